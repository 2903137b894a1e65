//! One item of a result.

/// One item found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: u64,
    /// Its similarity to the query.
    pub score: f32,
}
