//! Retrieval with learned similarities on any GPU and on plain CPUs.

pub mod backend;
pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod demo;
pub mod error;
pub mod eval;
pub mod index;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod report;
pub mod search;
pub mod sequence;
pub mod tensor;

pub use error::{Error, Result};
