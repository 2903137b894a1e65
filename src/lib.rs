//! Retrieval with learned similarities on any GPU and on plain CPUs.

pub mod backend;
pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod error;
pub mod model;
pub mod ops;
pub mod sequence;
pub mod tensor;

pub use error::{Error, Result};
