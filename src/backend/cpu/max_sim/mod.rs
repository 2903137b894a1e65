//! Late interaction: for each query vector its greatest inner product with the vectors of an item.
//!
//! Query vectors lie in lanes and stay there for a whole scan; the vectors of items are read as they lie in memory, and each of
//! their numbers is multiplied with all lanes. So the maximum over an item's vectors is one of registers, and nothing of
//! (query vectors x item vectors) is ever stored.

mod floats;
mod integers;
mod query_lanes;

pub use query_lanes::{MaxSimScratch, QueryLanes};
