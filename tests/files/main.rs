//! What is read from files and written to them: checkpoints, hyper-parameters, sequences and the folder that changes as a whole.
#![allow(clippy::unwrap_used, reason = "tests")]

mod checkpoint;
mod config;
mod dataset;
mod store;
