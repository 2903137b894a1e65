//! Scans: tables of items, the shader variants of a similarity, and the plan of what is scanned in which order.

mod coop;
mod fused_scan;
mod gate;
mod inverted_lists;
mod item_table;
mod kernel_specs;
mod mol;
mod pack;
mod plan;
mod quantized_queries;
mod queries;
mod query_side;
mod rescore;
mod sampled;
mod sections;
mod shaped_kernels;
mod token_items;
mod transform;
mod tuning;
mod variant;

pub(crate) use fused_scan::{QueryParts, Scan};
pub(crate) use inverted_lists::{InvertedLists, ListTasks};
pub(crate) use item_table::{ItemSource, ItemTable};
pub(crate) use kernel_specs::kernel_specs;
pub(crate) use mol::GpuMol;
pub use plan::ScanLimits;
pub(crate) use plan::{ScanPlan, shards};
pub(crate) use rescore::{rescore, rescore_hits, slices};
pub(crate) use shaped_kernels::shaped_kernels;
pub(crate) use token_items::{TokenItems, TokenQueries};
pub(crate) use tuning::chosen;
pub(crate) use variant::ShaderVariant;
