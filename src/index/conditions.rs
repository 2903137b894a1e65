//! Conditions on attributes as what the queries of a search must not find.

use std::sync::Arc;

use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::excluded::Matching;
use super::{Excluded, Segment, Snapshot};
use crate::attributes::Condition;
use crate::backend::{Bits, Exclusions};
use crate::context::Cancel;
use crate::error::Parameter;
use crate::{Error, Result, threads};

impl Snapshot {
    /// The items that meet a condition.
    ///
    /// # Errors
    /// If the index has no attributes, or as [`AttributeTable::matching`].
    pub(crate) fn matching(&self, condition: &Condition, cancel: &Cancel) -> Result<Matching> {
        let missing = || {
            let expected = "an index with attributes (`index build --attributes`, `ItemSource::with_attributes`)";
            Error::argument(Parameter::Condition, expected, format!("{} for one without", condition.shown()))
        };
        let of_segment = |segment: &Segment| segment.attributes().ok_or_else(missing)?.matching(condition, cancel);
        let per_segment = threads::run(|| self.segments.par_iter().map(of_segment).collect::<Result<_>>())?;
        Ok(Matching { per_segment })
    }

    /// The ids of those, ascending.
    ///
    /// # Errors
    /// As [`Snapshot::matching`], or if a file was cut short.
    pub(super) fn matching_ids(&self, condition: &Condition) -> Result<Vec<u64>> {
        self.check_files()?;
        let (matching, none) = (self.matching(condition, &Cancel::new())?, self.exclude(&[], None));
        let positions = self.matching_positions(&matching, &none, 0);
        let mut ids: Vec<u64> = positions.into_iter().map(|position| self.id(position)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// What was excluded before, and all items that are not `matching`.
    pub(crate) fn exclude_others(&self, excluded: Excluded, matching: Matching) -> Excluded {
        let others = |(old, positions): (Exclusions, &Arc<RoaringBitmap>), n: usize| {
            let mut denied = Bits::all(n);
            positions.iter().for_each(|position| denied.remove(position));
            if let Some(before) = &old.denied {
                denied.unite(before);
            }
            Exclusions { denied: (denied.count() > 0).then(|| Arc::new(denied)), ..old }
        };
        let pairs = excluded.per_segment.into_iter().zip(&matching.per_segment);
        let per_segment = pairs.zip(&self.segments).map(|(pair, segment)| others(pair, segment.len())).collect();
        Excluded { per_segment, matching: Some(Arc::new(matching)) }
    }

    /// The items of `matching` that `query` may find: their positions, ascending.
    pub(crate) fn matching_positions(&self, matching: &Matching, excluded: &Excluded, query: usize) -> Vec<u32> {
        let segments = matching.per_segment.iter().zip(&excluded.per_segment).zip(&self.offsets);
        let of_segment = |((positions, excluded), offset): ((&Arc<RoaringBitmap>, &Exclusions), &u32)| {
            let left = positions.iter().filter(|position| !excluded.excludes(query, *position));
            left.map(|position| position + offset).collect::<Vec<u32>>()
        };
        segments.flat_map(of_segment).collect()
    }
}
