//! `rails-bench`, as users start it, and the examples.
#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(all(unix, feature = "cli"))]
#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "cli")]
mod cli;
mod examples;
#[cfg(all(unix, feature = "cli"))]
mod index_faults;
