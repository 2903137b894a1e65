//! What a search finds.

use super::{Certificate, Hit, KernelTime, Stats};

/// The answer to a [`Request`](super::Request).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// The items of each query, by score descending, then id ascending.
    pub hits: Vec<Vec<Hit>>,
    /// Their string ids, if ids of items are strings; else nothing.
    pub string_ids: Vec<Vec<String>>,
    /// One per query, if they were asked for.
    pub certificates: Vec<Certificate>,
    /// What it took.
    pub stats: Stats,
    /// What each kernel of a GPU took, by stage, if that was asked for and the device has timestamps; else nothing.
    pub kernels: Vec<KernelTime>,
}
