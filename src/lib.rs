//! Retrieval with learned similarities on any GPU and on plain CPUs.

#![deny(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod error;
pub mod tensor;

pub use error::{Error, Result};
