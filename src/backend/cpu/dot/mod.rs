//! Products of rows with a tile of items.

pub mod int8_tile;
pub mod item_tile;
pub mod micro_kernel;
pub mod quantized;
pub mod transform;
