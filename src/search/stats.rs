//! What a search took.

use std::time::Duration;

use crate::context::Stage;

/// What a search took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// (query, item) pairs scored with the full similarity.
    pub pairs: u64,
    /// Pairs that [`Algorithm::ExactPruned`](super::Algorithm::ExactPruned) left out.
    pub pruned: u64,
    /// (query, item) pairs that the first stage left to be scored; 0 for a scan of everything.
    pub candidates: u64,
    /// Bytes of item tables read, an estimate: one reading of each table that a stage scans, for the whole batch, and the
    /// rows of every candidate. Caches save some of them; a GPU that has to cut the batch into slices reads a
    /// table once per slice. The sample of the tangent is left out.
    pub bytes_read: u64,
    /// Submissions to GPUs, those that move tables there included.
    pub submissions: u64,
    /// How often results were waited for and read back from a GPU.
    pub readbacks: u64,
    /// Time of the query side; for a scan of everything it is part of the scoring.
    pub query_side: Duration,
    /// Time of the first stage. Where a GPU does it in one submission with the rescoring, what the host does for it.
    pub first_stage: Duration,
    /// Time of the scan with, or rescoring by, the full similarity. A scan keeps the best as it goes, and that is part of it.
    pub scoring: Duration,
    /// Time of what the host does with scores: the best k of the candidates, and their ids.
    pub selection: Duration,
    /// Time of the certificates.
    pub certifying: Duration,
    /// Time of all together, checks of arguments and exclusions included.
    pub total: Duration,
}

impl Stats {
    /// Time of one stage.
    pub fn time(&self, stage: Stage) -> Duration {
        match stage {
            Stage::QuerySide => self.query_side,
            Stage::FirstStage => self.first_stage,
            Stage::Scoring => self.scoring,
            Stage::Selection => self.selection,
            Stage::Certifying => self.certifying,
        }
    }

    pub(super) fn place(&mut self, stage: Stage) -> &mut Duration {
        match stage {
            Stage::QuerySide => &mut self.query_side,
            Stage::FirstStage => &mut self.first_stage,
            Stage::Scoring => &mut self.scoring,
            Stage::Selection => &mut self.selection,
            Stage::Certifying => &mut self.certifying,
        }
    }
}
