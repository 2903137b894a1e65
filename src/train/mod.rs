//! Training: fresh weights, batches of sequences, gradients of the operations that models are described by, and steps of AdamW.
//!
//! Whatever is drawn comes from one generator, keyed by seed, step and site ([`crate::random`]), and every sum has an order that depends
//! on shapes alone, so that the same seed makes the same bits.

mod batch;
mod init;
mod items;
mod masks;
mod negatives;
mod tape;
mod trainer;
mod weights;

pub use batch::{Epoch, Split, TrainBatch, TrainData};
pub use init::fresh_model;
pub use masks::Masks;
pub use tape::{Gradients, Node, Tape};
pub use trainer::{Losses, TrainState, Trainer};
