//! The timing of the kernels that can scan a table, for the device's choice among them.

use std::time::{Duration, Instant};

use super::fused_scan::{Scan, Slice};
use super::item_table::ItemTable;
use super::pack::Layout;
use super::plan::{Chunk, TILE};
use super::queries::position_lists;
use crate::Result;
use crate::backend::gpu::device::Tier;
use crate::backend::gpu::kernels::Recorder;
use crate::backend::gpu::select::HitLists;
use crate::backend::{ScoredPosition, SearchContext};

/// Queries of a timed batch.
const QUERIES: usize = 32;

/// Floating-point operations of a timed dispatch: 20 ms of a slow integrated GPU (200 GFLOP/s).
const FLOPS: u64 = 4_000_000_000;

/// The kernel that this device scans `table` with; `None` if the number of queries decides.
///
/// # Errors
/// If the device fails.
pub(crate) fn chosen(scan: &Scan, table: &ItemTable) -> Result<Option<Tier>> {
    Timing { scan, table }.chosen()
}

/// The timing of a scan of a table.
struct Timing<'a> {
    scan: &'a Scan<'a>,
    table: &'a ItemTable,
}

impl Timing<'_> {
    fn chosen(&self) -> Result<Option<Tier>> {
        let (scan, table) = (self.scan, self.table);
        let n_items = table.rows.last().map_or(0, |rows| rows.end);
        let mut candidates = scan.variant.candidates();
        if scan.gpu.tuner().is_automatic() && !scan.variant.fits_halves {
            candidates.retain(|tier| !tier.is_cooperative());
        }
        // Not in the context of the search: what is cancelled has not failed.
        let mut agreed = Vec::new();
        let time = |tier: Tier, dispatches| {
            if tier.is_cooperative() && !agreed.contains(&tier) {
                self.check_agreement(tier)?;
                agreed.push(tier);
            }
            self.time(tier, dispatches)
        };
        let variant = (scan.variant.key(), scan.variant.name.as_str());
        let tier = scan.gpu.tuner().choose(n_items, (&variant.0, variant.1), &candidates, time);
        // Where every candidate failed the device is to blame.
        scan.gpu.check().map(|()| tier)
    }

    /// Cooperative matrices are young: a driver whose scores are far from those in registers is not trusted with them.
    fn check_agreement(&self, tier: Tier) -> Result<()> {
        let expected = self.some_scores(Tier::Registers(1))?;
        let found = self.some_scores(tier)?;
        agree(&expected, &found).map_err(|what| self.scan.gpu.error(format!("kernel {tier}: {what}")))
    }

    /// The scores of the first items for the first queries, by position, one query after the other.
    fn some_scores(&self, tier: Tier) -> Result<Vec<ScoredPosition>> {
        let (scan, table) = (self.scan, self.table);
        let chunk = Chunk { shard: 0, first_tile: 0, stride: 1, n_tiles: table.rows[0].len().div_ceil(TILE).min(4) };
        let mut recorder = Recorder::new(scan.gpu);
        let slice = scan.slice(&mut recorder, 0..scan.n_queries.min(QUERIES), tier);
        let hits = HitLists::new(&mut recorder, slice.n_queries, chunk.n_tiles * TILE);
        scan.dispatch(&mut recorder, &scan.variant.tier_kernel(tier), (table, &chunk), &slice, &hits);
        Ok(hits.scored(&mut recorder)?.unwrap_or_default().concat())
    }

    /// What so many dispatches of a kernel take together, by the clock of the device if it has one.
    fn time(&self, tier: Tier, dispatches: usize) -> Result<Duration> {
        let (scan, table) = (self.scan, self.table);
        let tile_flops = scan.variant.pair_flops * (QUERIES * TILE) as u64;
        let tiles = table.rows[0].len().div_ceil(TILE).min(scan.limits.workgroups);
        let n_tiles = tiles.min((FLOPS / tile_flops.max(1)) as usize).max(1);
        let chunk = Chunk { shard: 0, first_tile: 0, stride: 1, n_tiles };
        let kernel = scan.variant.tier_kernel(tier);
        let context = SearchContext::new(None, true);
        let mut recorder = Recorder::with_context(&context, scan.gpu);
        let queries =
            recorder.temporary(Layout::Queries(tier.queries_per_thread()).bytes(&scan.variant.queries, QUERIES));
        recorder.clear(&queries);
        let excluded = recorder.upload(&position_lists((0..QUERIES).map(|_| [].as_slice())));
        let slice = Slice { n_queries: QUERIES, tier, queries, extents: None, excluded, denied: None };
        // No score passes.
        let hits = HitLists::at_least(&mut recorder, &[f32::INFINITY; QUERIES], 1);
        // What comes before is not part of it.
        recorder.read_bytes(&hits.state)?;
        for _ in 0..dispatches {
            scan.dispatch(&mut recorder, &kernel, (table, &chunk), &slice, &hits);
        }
        let start = Instant::now();
        recorder.read_bytes(&hits.state)?;
        let measured = context.kernels().iter().map(|kernel| kernel.time).sum::<Duration>();
        Ok(if measured.is_zero() { start.elapsed() } else { measured })
    }
}

/// Whether rounding to halves may be all that tells `found` from `expected`. It moves a score by about a thousandth of the largest
/// logit; a mistake, by about as much as scores differ.
fn agree(expected: &[ScoredPosition], found: &[ScoredPosition]) -> std::result::Result<(), String> {
    if !expected.iter().map(|hit| hit.position).eq(found.iter().map(|hit| hit.position)) {
        return Err(format!("{} scores instead of {}, or of other items", found.len(), expected.len()));
    }
    let largest = expected.iter().map(|hit| hit.score.abs()).fold(0.0, f32::max);
    let mut pairs = expected.iter().zip(found).map(|(expected, found)| (expected.score, found.score));
    // A NaN is close to nothing.
    let is_close = |(expected, found): &(f32, f32)| (expected - found).abs() <= largest / 16.0;
    match pairs.find(|pair| !is_close(pair)) {
        None => Ok(()),
        Some((expected, found)) => Err(format!("score {found} instead of {expected}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn far_off_scores_do_not_agree() {
        let hits = |list: [(u32, f32); 3]| list.map(|(position, score)| ScoredPosition { position, score });
        let expected = hits([(0, 1.0), (1, -8.0), (5, 0.25)]);
        assert_eq!(agree(&expected, &expected), Ok(()));
        assert_eq!(agree(&expected, &hits([(0, 1.4), (1, -7.6), (5, 0.25)])), Ok(()));
        let far = agree(&expected, &hits([(0, 1.0), (1, -7.4), (5, 0.25)])).expect_err("scores that differ");
        assert!(far.contains("-7.4 instead of -8"), "{far}");
        assert!(agree(&expected, &hits([(0, 1.0), (1, f32::NAN), (5, 0.25)])).is_err());
        assert!(agree(&expected, &expected[..2]).is_err());
        assert!(agree(&expected, &hits([(0, 1.0), (2, -8.0), (5, 0.25)])).is_err());
    }
}
