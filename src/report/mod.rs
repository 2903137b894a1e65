//! Results as tables for people and as JSON for programs.

mod quality;
mod table;

pub use quality::{QualityReport, RunInfo};
pub use table::Table;
