//! Scans of the items of an index.

mod backoff;
pub mod dot_queries;
pub mod dot_scan;
pub mod list_scan;
pub mod mol_scan;
