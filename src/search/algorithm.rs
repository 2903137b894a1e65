//! Names of retrieval algorithms.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A retrieval algorithm and its parameters. All but [`Algorithm::Exact`] and [`Algorithm::Mips`] need a
/// Mixture-of-Logits model: they collect candidates and rescore them with the full similarity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Scores every item with the model's own similarity (the reference's `MoLBruteForceTopK`).
    Exact,
    /// Scores every item with the inner product of raw embeddings (the reference's `MIPSBruteForceTopK`); the same as
    /// [`Algorithm::Exact`] for a dot-product model.
    Mips,
    /// Candidates: the best items by each single component product (arXiv 2407.15462, algorithm 2; `MoLNaiveTopK`).
    Naive {
        /// K': items per component product.
        per_group: usize,
    },
    /// Candidates: the best items by the product of mean components (`MoLAvgTopK`).
    Avg {
        /// K': candidates.
        candidates: usize,
    },
    /// Candidates: the union of [`Algorithm::Naive`] and [`Algorithm::Avg`] (`MoLCombTopK`).
    Comb {
        /// K' of the naive part.
        per_group: usize,
        /// K' of the avg part.
        candidates: usize,
    },
    /// Candidates: the best items by the similarity's own linearisation around the best items of a sample, which is an
    /// inner product. See `docs/ARCHITECTURE.md`.
    Tangent {
        /// K': candidates.
        candidates: usize,
    },
}

const EXPECTED: &str = "exact, mips, naive:K, avg:K, comb:K_K or tangent:K with K >= 1, \
                        or the reference's name (MoLNaiveTopK50, ...)";

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Algorithm> {
        parse(name).ok_or_else(|| Error::argument("algorithm", EXPECTED, format!("`{name}`")))
    }
}

fn parse(name: &str) -> Option<Algorithm> {
    let number = |text: &str| text.parse().ok().filter(|&k: &usize| k >= 1);
    match name {
        "exact" | "MoLBruteForceTopK" => return Some(Algorithm::Exact),
        "mips" | "MIPSBruteForceTopK" => return Some(Algorithm::Mips),
        _ => {}
    }
    let after = |ours: &str, theirs: &str| name.strip_prefix(ours).or_else(|| name.strip_prefix(theirs));
    if let Some(k) = after("naive:", "MoLNaiveTopK") {
        return Some(Algorithm::Naive { per_group: number(k)? });
    }
    if let Some(k) = after("avg:", "MoLAvgTopK") {
        return Some(Algorithm::Avg { candidates: number(k)? });
    }
    if let Some(ks) = after("comb:", "MoLCombTopK") {
        let (per_group, candidates) = ks.split_once('_')?;
        return Some(Algorithm::Comb { per_group: number(per_group)?, candidates: number(candidates)? });
    }
    let candidates = number(name.strip_prefix("tangent:")?)?;
    Some(Algorithm::Tangent { candidates })
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Algorithm::Exact => f.write_str("exact"),
            Algorithm::Mips => f.write_str("mips"),
            Algorithm::Naive { per_group } => write!(f, "naive:{per_group}"),
            Algorithm::Avg { candidates } => write!(f, "avg:{candidates}"),
            Algorithm::Comb { per_group, candidates } => write!(f, "comb:{per_group}_{candidates}"),
            Algorithm::Tangent { candidates } => write!(f, "tangent:{candidates}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_mean_the_same_and_print_as_ours() {
        for (ours, alias) in [
            ("exact", "MoLBruteForceTopK"),
            ("mips", "MIPSBruteForceTopK"),
            ("naive:50", "MoLNaiveTopK50"),
            ("avg:500", "MoLAvgTopK500"),
            ("comb:50_500", "MoLCombTopK50_500"),
        ] {
            assert_eq!(parse(ours), parse(alias));
            assert_eq!(parse(ours).map(|algorithm| algorithm.to_string()).as_deref(), Some(ours));
        }
        assert_eq!(parse("tangent:1000"), Some(Algorithm::Tangent { candidates: 1000 }));
    }

    #[test]
    fn wrong_names_are_refused() {
        for name in
            ["", "Exact", "naive", "naive:", "naive:0", "naive:-1", "comb:5", "comb:5_0", "avg:1e3", "tangent:x"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
