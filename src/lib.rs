//! Finds the best items for a query among thousands to a hundred million, by inner products or by a learned similarity
//! (Mixture-of-Logits), exactly or approximately, on any GPU through [wgpu](https://wgpu.rs) or on plain CPUs.
//!
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
//!
//! # What to use
//! | for | see |
//! |---|---|
//! | items of your own, a trained model, or an index folder | [`Searcher::builder`] |
//! | an exact or an approximate search; `tangent:1000` is where to begin | [`Algorithm`] |
//! | filters, exclusions, certificates, cancelling, times | [`Request`], [`Searcher::answer`] |
//! | filters by attributes of items, in SQL | [`Attributes`], [`Condition`] |
//! | trained models in files: checkpoint and hyper-parameters, of this program or others | [`ModelFile`], [`Model`], [`import`] |
//! | histories as queries | [`History`], [`Searcher::encode`] |
//! | adding and removing items while others search, index folders, several devices | [`ItemIndex`] |
//! | tables in half or a quarter of the memory | [`Dtype`], [`IndexOptions`] |
//! | a device by name; a wgpu device of your own; results that stay there | [`backend::select`], [`backend::gpu`] |
//! | component embeddings of the token states of a language model | [`TokenPooling`] |
//! | to train a model | the program `rails-bench`; [`train::Run`], step by step [`train::Trainer`] |
//! | to train a similarity on embeddings of your own | [`train::train_similarity`] |
//! | hit rate, NDCG and MRR of a model | the program `rails-bench`; [`eval`] |
//! | recall, NDCG, MRR of any results by judgments with grades | the program `rails-bench eval-run`; [`eval::GradedQuality`] |
//!
//! What a first program needs is at the root of the crate. The modules hold the rest, and may change more between versions.
//! Enums and options that may grow are `#[non_exhaustive]`; options have constructors and `with_` methods.
//!
//! # Approximate search
//! An exact search takes time in proportion to the number of items. An approximate [`Algorithm`] finds candidates by a cheaper
//! scan and scores only those with the full similarity. Its recall, the share of the exact result that it finds, is measured by
//! `rails-bench bench`, and a [`Certificate`] says for each query how far the result can be from the exact one. Recall is better
//! in an index that has learned from some queries ([`ItemIndex::distill`]).
//!
//! # Learned similarities
//! A *learned similarity* scores a query and an item by more than one inner product. Mixture-of-Logits (MoL, [arXiv
//! 2407.15462](https://arxiv.org/abs/2407.15462)) mixes many of them by a gate that depends on both sides:
//!
//! ```text
//! z[n,m] = <f_n(q), g_m(x)> / temperature      component logits, L = P_Q * P_X of them
//! g      = Q(q) * X(x) + QI(z)                 gate: query part, item part, cross part
//! score  = sum_l softmax(g * sigmoid(g))_l z_l
//! ```
//!
//! # Shapes
//! B queries, N items, K results; D width of raw embeddings; P_Q, P_X component embeddings of a query, an item; D_P
//! their width; L = P_Q * P_X logits of a pair; H hidden width of the cross gate part; R rows of packed histories. Arrays
//! are row-major, the last axis contiguous.
//!
//! # Speed of debug builds
//! Without optimisation the kernels are hundreds of times slower. Use `--release`, or add to the `Cargo.toml` of your program:
//!
//! ```toml
//! [profile.dev.package.rails-wgpu]
//! opt-level = 3
//! ```
//!
//! # Features
//! `gpu` (default): the wgpu backend; without it the library runs on the CPU only and does not depend on wgpu. `attributes`: SQLite,
//! compiled from its C sources, for [`attributes`]; without it an index that has some is opened and searched, but not by conditions.
//! `capi`: functions for C, see `docs/C.md`. `tracing`: spans, see [`search`]. The program `rails-bench` is a package of its own.

pub mod atomic;
pub mod attributes;
pub mod backend;
#[cfg(feature = "capi")]
pub mod capi;
pub mod checkpoint;
pub mod config;
mod context;
pub mod dataset;
pub mod error;
pub mod eval;
pub mod import;
pub mod index;
mod input;
pub mod learn;
mod mapped;
pub mod metrics;
pub mod model;
pub mod model_file;
mod names;
pub mod ops;
pub mod random;
pub mod search;
pub mod sequence;
pub mod store;
pub mod tables;
pub mod tensor;
mod tensor_header;
mod threads;
mod token_embeddings;
pub mod train;

#[doc(inline)]
pub use attributes::{Attributes, Condition};
#[doc(inline)]
pub use backend::{Backend, QueryBatch};
#[doc(inline)]
pub use checkpoint::Checkpoint;
#[doc(inline)]
pub use config::ModelConfig;
#[doc(inline)]
pub use error::{Error, ErrorKind, Parameter, Result};
#[doc(inline)]
pub use import::ImportOptions;
#[doc(inline)]
pub use index::{Filter, IndexOptions, ItemIndex, ListOptions, OpenOptions};
#[doc(inline)]
pub use model::{Model, Mol, TokenPooling};
#[doc(inline)]
pub use model_file::ModelFile;
#[doc(inline)]
pub use search::{Algorithm, Answer, Cancel, Certificate, Hit, Request, ScoreFusion, Searcher, SearcherBuilder, Stats};
#[doc(inline)]
pub use sequence::{History, SequenceBatch};
#[doc(inline)]
pub use tables::{Dtype, Form};
#[doc(inline)]
pub use tensor::Tensor;
#[doc(inline)]
pub use token_embeddings::TokenEmbeddings;
/// The version of wgpu that devices and buffers of this crate are of.
#[cfg(feature = "gpu")]
pub use wgpu;
