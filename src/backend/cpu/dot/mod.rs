//! Inner products of rows (of queries, or of weights) with a tile of items: in floats, or in integers for 8-bit tables.

pub mod int8_tile;
pub mod item_tile;
pub mod micro_kernel;
pub mod quantized;
pub mod transform;
