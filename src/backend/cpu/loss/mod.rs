//! The losses of training, forward and backward in one: see [`crate::backend::loss`].
//!
//! A position's values stay in the cache between the way there and the way back; what is kept for longer is the derivatives with
//! respect to the inner products of a round of positions, for the gradients of items. Every sum is made by one thread in an order that
//! depends on the batch alone, so that results are the same bits for any number of threads.

mod by_item;
mod cross_gate;
mod dot;
mod full;
mod gate;
mod mol;
mod mutual_information;
mod pairs;
mod rows;
mod softmax;
mod tile;

#[cfg(test)]
mod tests;

pub use dot::dot_loss;
pub use full::full_softmax;
pub use mol::mol_loss;
