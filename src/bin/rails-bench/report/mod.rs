//! Results as tables for people, as JSON and CSV for programs, and as a page with curves.

mod axis;
mod columns;
mod html;
mod line_chart;
mod machine;
mod quality;
mod row;
mod speed;
mod svg;
mod table;
mod training;

pub use html::page;
pub use machine::{Machine, now};
pub use quality::{QualityReport, RunInfo};
pub use row::SpeedRow;
pub use speed::SpeedReport;
pub use table::Table;
pub use training::{item_source, training_page};
