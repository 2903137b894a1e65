//! Names of retrieval algorithms.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A retrieval algorithm and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Scores every item with the model's own similarity (the reference's `MoLBruteForceTopK`).
    Exact,
    /// Scores every item with the inner product of raw embeddings (the reference's `MIPSBruteForceTopK`); the same as
    /// [`Algorithm::Exact`] for a dot-product model.
    Mips,
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Algorithm> {
        match name {
            "exact" | "MoLBruteForceTopK" => Ok(Algorithm::Exact),
            "mips" | "MIPSBruteForceTopK" => Ok(Algorithm::Mips),
            _ => Err(Error::argument("algorithm", "`exact` or `mips`", format!("`{name}`"))),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Exact => "exact",
            Algorithm::Mips => "mips",
        })
    }
}
