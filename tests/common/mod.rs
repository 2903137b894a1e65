//! What several tests need. Each test program compiles all of it and uses a part.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod backends;
pub mod case;
pub mod catalog;
pub mod compare;
#[path = "../../assets/demo.rs"]
pub mod demo;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod models;
pub mod mol;
pub mod naive;
pub mod naive_gradients;
pub mod spy;
pub mod tables;
