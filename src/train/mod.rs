//! Training: fresh weights, batches of sequences.

mod batch;
mod init;

pub use batch::{Epoch, Split, TrainBatch, TrainData};
pub use init::fresh_model;
