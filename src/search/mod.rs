//! Retrieval algorithms over an [`ItemIndex`]: from query embeddings to hits.

mod algorithm;

pub use algorithm::Algorithm;

use crate::Result;
use crate::backend::{QueryBatch, Scorer};
use crate::index::ItemIndex;

/// One item found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: u64,
    /// Its similarity to the query.
    pub score: f32,
}

/// Answers queries from an index.
pub struct Searcher {
    index: ItemIndex,
}

impl Searcher {
    /// A searcher over `index`.
    pub fn new(index: ItemIndex) -> Searcher {
        Searcher { index }
    }

    /// The index searched.
    pub fn index(&self) -> &ItemIndex {
        &self.index
    }

    /// The `k` best items of each query, by score descending, then id ascending; ids are unique. `excluded` names
    /// items to leave out, one list per query (or no list at all). A result is shorter than `k` only where fewer
    /// items are left.
    ///
    /// # Errors
    /// If `k` is not in 1..=N, shapes do not fit, or the device fails.
    pub fn search(
        &self,
        algorithm: Algorithm,
        queries: &QueryBatch,
        k: usize,
        excluded: &[&[u64]],
    ) -> Result<Vec<Vec<Hit>>> {
        let exclusions = match excluded {
            [] => Default::default(),
            lists => self.index.exclusions(lists.iter().copied()),
        };
        let scorer = match algorithm {
            Algorithm::Exact if self.index.has_mol() => Scorer::Mol,
            Algorithm::Exact | Algorithm::Mips => Scorer::Dot,
        };
        let found = self.index.scan(scorer, queries, k, &exclusions)?;
        let ids = self.index.ids();
        let hits = |found: Vec<crate::backend::ScoredPosition>| {
            found.into_iter().map(|hit| Hit { id: ids[hit.position as usize], score: hit.score }).collect()
        };
        Ok(found.into_iter().map(hits).collect())
    }
}
