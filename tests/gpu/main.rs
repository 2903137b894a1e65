//! The GPU backend: devices, kernels, tables, top-k, and what happens when a device fails.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod device;
mod faults;
mod host;
mod ops;
mod scan;
mod shaders;
mod tables;
mod tiers;
mod top_k;
