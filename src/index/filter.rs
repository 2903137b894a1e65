//! Global filters: which items any query of a search may find.

use std::sync::{Arc, Mutex};

use roaring::RoaringTreemap;

use super::Segment;
use crate::backend::Bits;

/// A set of ids, allowed or denied. Reuse one for many searches: what it means for a version of an index is worked out
/// once, and kept until another one is searched.
pub struct Filter {
    ids: RoaringTreemap,
    allow: bool,
    worked_out: Mutex<Option<(u64, PerSegment)>>,
}

/// What is denied in each segment; `None`: nothing.
pub(super) type PerSegment = Arc<Vec<Option<Arc<Bits>>>>;

impl Filter {
    /// Only these ids may be found.
    pub fn allow(ids: RoaringTreemap) -> Filter {
        Filter { ids, allow: true, worked_out: Mutex::new(None) }
    }

    /// All but these ids may be found.
    pub fn deny(ids: RoaringTreemap) -> Filter {
        Filter { ids, allow: false, worked_out: Mutex::new(None) }
    }

    /// Whether `id` may be found.
    pub fn passes(&self, id: u64) -> bool {
        self.ids.contains(id) == self.allow
    }

    /// What this filter and deletions deny in the segments of the snapshot that `stamp` stands for.
    pub(super) fn denied(&self, stamp: u64, segments: &[Segment]) -> PerSegment {
        // A search that panicked cannot have left half a result here.
        let mut worked_out = self.worked_out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((of, denied)) = &*worked_out
            && *of == stamp
        {
            return denied.clone();
        }
        let denied = segments.iter().map(|segment| {
            let ids = segment.ids();
            let mut bits = match segment.deleted() {
                Some(deleted) => (**deleted).clone(),
                None => Bits::new(ids.len(), |_| false),
            };
            match self.allow {
                true => {
                    let shut_out = ids.iter().enumerate().filter(|(_, id)| !self.ids.contains(**id));
                    shut_out.for_each(|(position, _)| bits.insert(position as u32));
                }
                false => {
                    let positions = self.ids.iter().filter_map(|id| ids.binary_search(&id).ok());
                    positions.for_each(|position| bits.insert(position as u32));
                }
            }
            (bits.count() > 0).then(|| Arc::new(bits))
        });
        let denied: PerSegment = Arc::new(denied.collect());
        *worked_out = Some((stamp, denied.clone()));
        denied
    }
}
