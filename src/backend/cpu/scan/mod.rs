//! Scans of the items of an index: by inner product, within inverted lists, by Mixture-of-Logits, and by late interaction.

mod backoff;
pub mod centroid_scan;
pub mod dot_queries;
pub mod dot_scan;
pub mod list_scan;
pub mod max_sim_scan;
pub mod mol_scan;
pub mod tile_scan;
