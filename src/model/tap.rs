//! Where tests look into a forward pass.

use crate::ops::Ops;

/// Called with the name, the array and the row width of intermediate results; tests compare them with the reference.
pub type Tap<'a, O> = &'a mut dyn FnMut(&str, &<O as Ops>::Floats, usize);
