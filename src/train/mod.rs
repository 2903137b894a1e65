//! Training: fresh weights, batches of sequences, gradients of the operations that models are described by, steps of AdamW, and runs in
//! folders.
//!
//! [`Tape`] is a third implementor of [`Ops`](crate::ops::Ops): it runs each operation on a backend at once and remembers how to run it
//! backwards ([`GradientOps`](crate::ops::GradientOps)), so what is trained is what is served. Dropout is an operation, too, which does
//! nothing in serving. A step of a [`Trainer`] gathers the distinct items of its batch once; encoder states of all positions and the
//! item side are arrays of the tape, and a fused loss ([`crate::backend::loss`]) begins the way back. Nothing of the size
//! positions x negatives x L is stored, and no attention weights: they are computed again. The gradient of the item table has the
//! rows of the batch only.
//!
//! Masks, negatives, the order of users and fresh weights are drawn by position from one generator ([`crate::random`]), keyed by seed,
//! step, site and element; sums over rows are made of chunks of a fixed size, added in order. So the same seed makes the same bits with
//! any number of threads, and a resumed training those of one without a break.

mod batch;
mod evaluate;
mod folder;
mod init;
mod item_copies;
mod items;
mod losses;
mod masks;
mod negatives;
mod on_device;
mod optimiser;
mod record;
mod run;
mod run_config;
mod run_data;
mod similarity;
mod sites;
mod state;
mod tape;
mod trainer;
mod weights;

pub use batch::{Epoch, Split, TrainBatch, TrainData};
pub use folder::RunFolder;
pub use init::{fresh_model, fresh_similarity};
pub use losses::Losses;
pub use masks::Masks;
pub use record::{EpochRecord, EvaluationRecord, MeanLosses};
pub use run::{Ending, Run, RunEvent, RunLimits};
pub use run_config::{DataSource, DataSummary, RunConfig};
pub use run_data::{RunData, TrainSet};
pub use similarity::{EmbeddingPairs, train_similarity};
pub use tape::{Gradients, Node, Tape};
pub use trainer::{TrainState, Trainer};
