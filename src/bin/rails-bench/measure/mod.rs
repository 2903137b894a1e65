//! Speed and recall of algorithms side by side: each batch is answered by every algorithm in turn, so that a machine that
//! slows down slows all of them.

mod batch;
mod bench_file;
mod bencher;
mod queries;
mod rules;
mod subset;
mod truth;

pub use bench_file::BenchFile;
pub use bencher::{Bencher, Measurement};
pub use queries::QuerySet;
pub use rules::Rules;
pub use subset::shuffled;
pub use truth::Truth;
