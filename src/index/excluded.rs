//! What the queries of a search must not find.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::backend::Exclusions;

/// What the queries of a search must not find, for each segment.
pub struct Excluded {
    pub(super) per_segment: Vec<Exclusions>,
    /// The items that meet the condition of the queries, if there is one.
    pub(super) matching: Option<Arc<Matching>>,
}

impl Excluded {
    /// The items that meet the condition of the queries, if there is one; others are excluded.
    pub(crate) fn matching(&self) -> Option<&Matching> {
        self.matching.as_deref()
    }
}

/// The items of a version that meet a condition: for each segment their positions.
pub(crate) struct Matching {
    pub(super) per_segment: Vec<Arc<RoaringBitmap>>,
}

impl Matching {
    /// Number of items, deleted ones included.
    pub fn len(&self) -> usize {
        self.per_segment.iter().map(|positions| positions.len() as usize).sum()
    }
}
