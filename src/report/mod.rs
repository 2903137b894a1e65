//! Results as tables for people and as JSON for programs.

mod quality;
mod speed;
mod table;

pub use quality::{QualityReport, RunInfo};
pub use speed::SpeedReport;
pub use table::Table;
