//! Results as tables for people, as JSON and CSV for programs, and as a page with curves.

mod axis;
mod html;
mod quality;
mod speed;
mod svg;
mod table;

pub use html::page;
pub use quality::{QualityReport, RunInfo};
pub use speed::{SpeedReport, SpeedRow};
pub use table::Table;
