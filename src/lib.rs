//! Retrieval with learned similarities on any GPU and on plain CPUs.
//!
//! A *learned similarity* scores a query and an item by more than one inner product. Mixture-of-Logits (MoL, arXiv
//! 2407.15462) mixes many of them with a gate that depends on both sides:
//!
//! ```text
//! z[n,m] = <f_n(q), g_m(x)> / temperature      component logits, L = P_Q * P_X of them
//! g      = Q(q) * X(x) + QI(z)                 gate: query part, item part, cross part
//! score  = sum_l softmax(g * sigmoid(g))_l z_l
//! ```
//!
//! This crate loads trained PyTorch models with such a similarity (or a plain inner product), encodes histories, and
//! finds the best items, exactly, on Vulkan, Metal and DX12 devices through [wgpu](https://wgpu.rs) or on the CPU.
//! Published models and data sets are evaluated by its program, `rails-bench`.
//!
//! # Shapes
//! B queries, N items, K results; D width of raw embeddings; P_Q, P_X component embeddings of a query, an item; D_P
//! their width; L = P_Q * P_X logits of a pair; H hidden width of the cross gate part; R rows of packed histories. Arrays
//! are row-major, the last axis contiguous.
//!
//! # Example
//! ```
//! use rails_wgpu::{Algorithm, QueryBatch, Searcher, Tensor};
//!
//! # fn main() -> rails_wgpu::Result<()> {
//! let items = Tensor::from_rows([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]); // three items of width 2
//! let searcher = Searcher::builder().embeddings(&[10, 20, 30], &items).device("auto").build()?;
//!
//! let queries = QueryBatch::new(Tensor::from_rows([[0.6, 0.8]]));
//! let hits = searcher.search(Algorithm::Exact, &queries, 2, &[])?;
//! assert_eq!(hits[0][0].id, 30);
//! # Ok(())
//! # }
//! ```
//! [`Searcher::builder`](search::Searcher::builder) also takes an index folder, or embeddings of your own. An application
//! that draws with wgpu shares its device
//! ([`GpuBackend::from_device`](backend::gpu::GpuBackend::from_device)) and may leave results on it
//! ([`Searcher::search_on_gpu`](search::Searcher::search_on_gpu)). More in `examples/`.
//!
//! # Features
//! `gpu` (default): the wgpu backend. Without it, the library runs on the
//! CPU only and depends on neither wgpu nor clap. `capi`: functions for C, see `docs/C.md`. `tracing`: spans, see
//! [`search`].

pub mod atomic;
pub mod backend;
#[cfg(feature = "capi")]
pub mod capi;
pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod error;
pub mod eval;
pub mod index;
mod input;
mod job;
pub mod learn;
mod mapped;
pub mod metrics;
pub mod model;
pub mod model_file;
mod names;
pub mod ops;
pub mod search;
pub mod sequence;
pub mod store;
pub mod tables;
pub mod tensor;
mod tensor_header;
mod threads;

pub use backend::{Backend, QueryBatch};
pub use checkpoint::Checkpoint;
pub use config::ModelConfig;
pub use error::{Error, ErrorKind, Parameter, Result};
pub use index::{Filter, IndexOptions, ItemIndex, ListOptions, OpenOptions};
pub use model::{Model, Mol};
pub use model_file::ModelFile;
pub use search::{Algorithm, Answer, Cancel, Certificate, Hit, Request, Searcher, SearcherBuilder, Stats};
pub use sequence::{History, SequenceBatch};
pub use tables::{Dtype, Form};
pub use tensor::Tensor;
/// The version of wgpu that devices and buffers of this crate are of.
#[cfg(feature = "gpu")]
pub use wgpu;
