//! Models, indexes and searches, on the CPU and on a GPU if there is one.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod attributes;
mod cancel;
mod candidates;
mod cpu_scan;
mod determinism;
mod gradients;
mod imports;
mod index;
mod index_format;
mod int8;
mod late_interaction;
#[cfg(feature = "gpu")]
mod losses;
mod model_file;
mod oracle;
mod overlap;
mod range;
mod retrieval;
mod search;
mod searcher_builder;
mod stats;
mod stress;
mod token_pooling;
mod tracing;
mod train;
