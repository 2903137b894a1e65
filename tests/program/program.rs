//! `rails-bench`, as users start it, and the examples.
#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(unix)]
#[path = "../common/catalog.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod catalog;
#[cfg(unix)]
#[path = "../common/models.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod models;

mod bench;
mod cli;
mod examples;
#[cfg(unix)]
mod index_faults;
mod train;

/// The root of the repository, from where the tests name files.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");
