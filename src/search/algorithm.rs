//! Names of retrieval algorithms.

use std::fmt;
use std::str::FromStr;

use crate::error::Parameter;
use crate::index::ListOptions;
use crate::{Error, Result};

/// A retrieval algorithm and its parameters. All but [`Algorithm::Exact`] and [`Algorithm::Mips`] need a
/// Mixture-of-Logits model: they collect candidates and rescore them with the full similarity. Every one has a name, in which K
/// counts candidates; `tangent:1000` is where to begin.
///
/// An index of token embeddings has late interaction for its similarity, and `exact`, `mips`, `avg:K`, `naive:K` and `centroids:K`.
///
/// ```
/// use rails_wgpu::Algorithm;
///
/// # fn main() -> rails_wgpu::Result<()> {
/// let algorithm: Algorithm = "tangent:1000".parse()?;
/// assert_eq!(algorithm, Algorithm::Tangent { candidates: 1000 });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// `exact`: scores every item with the model's own similarity (the reference's `MoLBruteForceTopK`).
    Exact,
    /// `exact-pruned`: the same result; leaves out the gate of pairs whose largest logit rules them out.
    ExactPruned,
    /// `mips`: scores every item with the inner product of raw embeddings (the reference's `MIPSBruteForceTopK`); the same
    /// as [`Algorithm::Exact`] for a dot-product model. Of token embeddings the sum of a query's and the mean of an item's.
    Mips,
    /// `naive:K`. Candidates: the best items by each single component product (arXiv 2407.15462, algorithm 2;
    /// `MoLNaiveTopK`); for late interaction by each vector of the query.
    Naive {
        /// K': items per component product.
        per_group: usize,
    },
    /// `naive-ivf:K@P`: the same within inverted lists of every item component (`MoLNaiveFaissTopK`). Segments without
    /// lists are scanned as a whole.
    NaiveIvf {
        /// K': items per component product.
        per_group: usize,
        /// Lists that each component of a query looks into.
        n_probe: usize,
    },
    /// `avg:K`. Candidates: the best items by the product of mean components (`MoLAvgTopK`), or of mean token embeddings.
    Avg {
        /// K': candidates.
        candidates: usize,
    },
    /// `comb:K_K`. Candidates: the union of [`Algorithm::Naive`] and [`Algorithm::Avg`] (`MoLCombTopK`).
    Comb {
        /// K' of the naive part.
        per_group: usize,
        /// K' of the avg part.
        candidates: usize,
    },
    /// `h-indexer:K`. Candidates: all items whose product of mean components exceeds a threshold that a sample
    /// suggests (arXiv 2306.04039, section 3.3): about K', without any selection, for K' of 10^5 and more.
    HIndexer {
        /// K': candidates aimed at.
        candidates: usize,
    },
    /// `tangent:K`, the default of approximate algorithms. Candidates: the best items by the similarity's own linearisation
    /// around the best items, which is an inner product. See `docs/ARCHITECTURE.md`. An index that has learned from queries
    /// ([`ItemIndex::distill`](crate::index::ItemIndex::distill)) predicts the derivatives; others take them from a sample.
    Tangent {
        /// K': candidates.
        candidates: usize,
    },
    /// `tangent-sampled:K`: the same, with derivatives from a sample always.
    TangentSampled {
        /// K': candidates.
        candidates: usize,
    },
    /// `tangent-ivf:K@P`: the same within inverted lists of all components together.
    TangentIvf {
        /// K': candidates.
        candidates: usize,
        /// Lists that a query looks into.
        n_probe: usize,
    },
    /// `distilled:K`. Candidates: the best items by the mixture with a small gate that was fitted to the model's when the
    /// index was built.
    Distilled {
        /// K': candidates.
        candidates: usize,
    },
    /// `centroids:K`, for late interaction. Candidates: the best items of each segment by late interaction with centroids in place
    /// of the item's token embeddings (PLAID, arXiv 2205.09707, section 3). Without centroids ([`IndexOptions::lists`]) everything is scored.
    ///
    /// [`IndexOptions::lists`]: crate::index::IndexOptions::lists
    Centroids {
        /// K': candidates.
        candidates: usize,
    },
    /// `cascade:K_K`: candidates of [`Algorithm::Tangent`], of which those best by the distilled gate are rescored.
    Cascade {
        /// K' of the tangent.
        tangent: usize,
        /// K'' of the distilled gate.
        distilled: usize,
    },
}

impl Algorithm {
    /// The names that [`Algorithm::from_str`] understands: K counts candidates, P inverted lists.
    pub const SYNTAX: &str = "exact, exact-pruned, mips, naive:K, naive-ivf:K@P, avg:K, comb:K_K, h-indexer:K, tangent:K, \
                              tangent-sampled:K, tangent-ivf:K@P, distilled:K, centroids:K or cascade:K_K, for K candidates and P \
                              inverted lists (K, P >= 1), or the reference's name (MoLNaiveTopK50, ...)";

    /// The inverted lists that some algorithms look into, if any does; `n_lists` of them, 0: the default number.
    pub fn lists_of(algorithms: &[Algorithm], n_lists: usize) -> Option<ListOptions> {
        let groups = algorithms.iter().any(|algorithm| matches!(algorithm, Algorithm::NaiveIvf { .. }));
        let all = algorithms.iter().any(|algorithm| matches!(algorithm, Algorithm::TangentIvf { .. }));
        let centroids = algorithms.iter().any(|algorithm| matches!(algorithm, Algorithm::Centroids { .. }));
        (groups || all || centroids).then_some(ListOptions { n_lists, groups, all })
    }

    /// Whether it needs an index that has learned from queries, or is better on one.
    pub fn learns(self) -> bool {
        let needs = matches!(self, Algorithm::Distilled { .. } | Algorithm::Cascade { .. });
        needs || matches!(self, Algorithm::Tangent { .. } | Algorithm::TangentIvf { .. })
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Algorithm> {
        parse(name).ok_or_else(|| Error::argument(Parameter::Algorithm, Algorithm::SYNTAX, format!("`{name}`")))
    }
}

fn parse(name: &str) -> Option<Algorithm> {
    match name {
        "exact" | "MoLBruteForceTopK" => return Some(Algorithm::Exact),
        "exact-pruned" => return Some(Algorithm::ExactPruned),
        "mips" | "MIPSBruteForceTopK" => return Some(Algorithm::Mips),
        // As many candidates as a recall@100 of .99 takes on the model of docs/BENCHMARKS.md.
        "tangent" => return Some(Algorithm::Tangent { candidates: 1000 }),
        _ => {}
    }
    let number = |text: &str| text.parse().ok().filter(|&k: &usize| k >= 1);
    let two = |text: &str, separator: char| {
        let (a, b) = text.split_once(separator)?;
        Some((number(a)?, number(b)?))
    };
    if let Some(k) = name.strip_prefix("MoLNaiveFaissTopK") {
        // The reference leaves faiss' number of probes at its default.
        return Some(Algorithm::NaiveIvf { per_group: number(k)?, n_probe: 1 });
    }
    let (family, ks) = name.split_once(':').or_else(|| {
        let theirs = [("MoLNaiveTopK", "naive"), ("MoLAvgTopK", "avg"), ("MoLCombTopK", "comb")];
        theirs.into_iter().find_map(|(prefix, ours)| Some((ours, name.strip_prefix(prefix)?)))
    })?;
    Some(match family {
        "naive" => Algorithm::Naive { per_group: number(ks)? },
        "avg" => Algorithm::Avg { candidates: number(ks)? },
        "h-indexer" => Algorithm::HIndexer { candidates: number(ks)? },
        "tangent" => Algorithm::Tangent { candidates: number(ks)? },
        "tangent-sampled" => Algorithm::TangentSampled { candidates: number(ks)? },
        "distilled" => Algorithm::Distilled { candidates: number(ks)? },
        "centroids" => Algorithm::Centroids { candidates: number(ks)? },
        "comb" => two(ks, '_').map(|(per_group, candidates)| Algorithm::Comb { per_group, candidates })?,
        "cascade" => two(ks, '_').map(|(tangent, distilled)| Algorithm::Cascade { tangent, distilled })?,
        "naive-ivf" => two(ks, '@').map(|(per_group, n_probe)| Algorithm::NaiveIvf { per_group, n_probe })?,
        "tangent-ivf" => two(ks, '@').map(|(candidates, n_probe)| Algorithm::TangentIvf { candidates, n_probe })?,
        _ => return None,
    })
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Algorithm::Exact => f.write_str("exact"),
            Algorithm::ExactPruned => f.write_str("exact-pruned"),
            Algorithm::Mips => f.write_str("mips"),
            Algorithm::Naive { per_group } => write!(f, "naive:{per_group}"),
            Algorithm::NaiveIvf { per_group, n_probe } => write!(f, "naive-ivf:{per_group}@{n_probe}"),
            Algorithm::Avg { candidates } => write!(f, "avg:{candidates}"),
            Algorithm::Comb { per_group, candidates } => write!(f, "comb:{per_group}_{candidates}"),
            Algorithm::HIndexer { candidates } => write!(f, "h-indexer:{candidates}"),
            Algorithm::Tangent { candidates } => write!(f, "tangent:{candidates}"),
            Algorithm::TangentSampled { candidates } => write!(f, "tangent-sampled:{candidates}"),
            Algorithm::TangentIvf { candidates, n_probe } => write!(f, "tangent-ivf:{candidates}@{n_probe}"),
            Algorithm::Distilled { candidates } => write!(f, "distilled:{candidates}"),
            Algorithm::Centroids { candidates } => write!(f, "centroids:{candidates}"),
            Algorithm::Cascade { tangent, distilled } => write!(f, "cascade:{tangent}_{distilled}"),
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
            ("naive-ivf:5@1", "MoLNaiveFaissTopK5"),
        ] {
            assert!(parse(ours).is_some());
            assert_eq!(parse(ours), parse(alias));
        }
        assert_eq!(parse("tangent"), parse("tangent:1000"));
        for name in [
            "exact",
            "exact-pruned",
            "mips",
            "naive:50",
            "naive-ivf:50@8",
            "avg:7",
            "comb:50_500",
            "h-indexer:100000",
            "tangent:1000",
            "tangent-sampled:1000",
            "tangent-ivf:1000@16",
            "distilled:300",
            "centroids:300",
            "cascade:2000_300",
        ] {
            assert_eq!(parse(name).map(|algorithm| algorithm.to_string()).as_deref(), Some(name));
            let family = name.split(':').next().unwrap_or(name);
            assert!(Algorithm::SYNTAX.split([',', ':', ' ']).any(|word| word == family), "{family} is not listed");
        }
    }

    #[test]
    fn wrong_names_are_refused() {
        for name in [
            "",
            "Exact",
            "naive",
            "naive:",
            "naive:0",
            "naive:-1",
            "comb:5",
            "comb:5_0",
            "avg:1e3",
            "tangent:x",
            "naive-ivf:5",
            "tangent-ivf:5@",
            "cascade:5",
            "other:5",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
