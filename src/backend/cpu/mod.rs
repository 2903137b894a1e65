//! The native CPU backend: what everybody without a GPU runs, and the twin that the GPU kernels are compared with.
//!
//! Data flows from the bottom of this list to the top; a room imports only rooms below it.
//!
//! | room | what it does |
//! |---|---|
//! | `backend.rs`, `index.rs`, `encoder.rs` | the traits of a device, an index and an encoder |
//! | `loss/` | the losses of training, forward and backward |
//! | `scan/` | scores tiles of items on all threads: inner products, inverted lists, Mixture-of-Logits, late interaction |
//! | `mol/` | the Mixture-of-Logits score of a tile, its bound and its gradient |
//! | `max_sim/` | for each query vector the greatest inner product with the vectors of an item |
//! | `small_batch/` | inner products for batches of up to four queries, and the prefilter of a single query |
//! | `top_k/` | keeps the best k scores of each query |
//! | `dot/` | the micro-kernel: rows times a tile of items, in floats or in integers |
//! | `ops/` | the array operations that encoders and projections are made of |
//! | `simd/` | instruction sets: dispatch, exponentials, transposition, conversion, prefetch |
//!
//! Items lie in SIMD lanes, 32 to a tile; rows of queries or weights are broadcast, and each sum runs over the inner axis in order. So
//! results do not depend on batch size, tiling or the number of threads. Small batches multiply items as they lie in memory, to the
//! same bits. Late interaction has query vectors in lanes, and broadcasts the vectors of items.

mod backend;
mod dot;
mod encoder;
mod index;
pub mod loss;
mod max_sim;
mod mol;
mod ops;
mod scan;
mod simd;
mod small_batch;
mod top_k;
mod training;

pub use backend::Cpu;
pub use index::CpuIndex;
pub(crate) use mol::query_side::QuerySide;
pub use ops::{CpuOps, Shared};
