//! Selection: lists of hits that scan kernels append to, cut to the best k again and again and sorted in the end.

mod hit_lists;
mod kernels;
mod long_lists;
mod top_k;
mod union;

pub(crate) use hit_lists::{HIT_BYTES, HitLists, Passed};
pub(crate) use kernels::kernel_specs;
pub(crate) use top_k::{SortedHits, TopK};
pub(crate) use union::{Union, union_bytes};
