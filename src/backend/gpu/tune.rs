//! Which kernel is the fastest for a program on a device: timed once, on the first large table, and remembered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::buffer::lock;
use super::item_table::ItemTable;
use super::pack::Layout;
use super::plan::{Chunk, TILE};
use super::scan::{Scan, Slice, position_lists};
use super::survivors::Survivors;
use super::tier::{ScanTier, Tier};
use super::{Recorder, cache};
use crate::Result;
use crate::backend::{DeviceInfo, DeviceKind, ScoredPosition};
use crate::job::Job;

/// Fewest items of a table that is worth the timing. Smaller ones are always scanned by today's rule, whatever was timed, so that no
/// table changes its kernel, and with it the last bits of its scores.
const LARGE: usize = 65_536;

/// Queries of a timed batch.
const QUERIES: usize = 32;

/// Floating-point operations of a timed dispatch: 20 ms of a slow integrated GPU (200 GFLOP/s).
const FLOPS: u64 = 4_000_000_000;

/// Dispatches of a timed submission, and how often it is timed.
const DISPATCHES: usize = 4;
const ROUNDS: usize = 3;

/// What a device has learned about its kernels.
#[derive(Debug)]
pub(super) struct Tuner {
    wanted: Mutex<ScanTier>,
    software: bool,
    known: Mutex<HashMap<String, Tier>>,
    file: Option<TuningFile>,
}

impl Tuner {
    /// With what an earlier one has left in `folder`.
    pub fn new(info: &DeviceInfo, wanted: ScanTier, folder: Option<&Path>) -> Tuner {
        let file = folder.map(|folder| TuningFile::new(info, folder));
        let known = file.as_ref().map(TuningFile::read).unwrap_or_default();
        let software = info.kind == DeviceKind::SoftwareGpu;
        Tuner { wanted: Mutex::new(wanted), software, known: Mutex::new(known), file }
    }

    /// Choices of another kind from now on.
    pub fn set(&self, wanted: ScanTier) {
        *lock(&self.wanted) = wanted;
    }

    /// The kernel for a table of `n_items`, of `candidates`; `time` times one of them. `None` if the number of queries decides.
    pub fn choose(
        &self,
        n_items: usize,
        key: &str,
        candidates: &[Tier],
        time: impl FnMut(Tier) -> Result<Duration>,
    ) -> Option<Tier> {
        let timed = match *lock(&self.wanted) {
            ScanTier::Registers => false,
            ScanTier::Cooperative => return candidates.iter().copied().rfind(|tier| tier.is_cooperative()),
            ScanTier::Auto => !self.software && n_items >= LARGE,
            ScanTier::Timed => true,
        };
        if !timed {
            return None;
        }
        // Whoever needs the answer meanwhile waits for it: two timings at once would disturb each other.
        let mut known = lock(&self.known);
        if let Some(&tier) = known.get(key).filter(|tier| candidates.contains(tier)) {
            return Some(tier);
        }
        let (tier, all) = fastest(candidates, time)?;
        known.insert(key.to_string(), tier);
        // What failed today, for want of memory perhaps, gets another chance at the next start.
        if let Some(file) = self.file.as_ref().filter(|_| all) {
            file.add(key, tier);
        }
        Some(tier)
    }
}

/// The candidate with the shortest of some times, and whether all were timed; those that fail are out.
fn fastest(candidates: &[Tier], mut time: impl FnMut(Tier) -> Result<Duration>) -> Option<(Tier, bool)> {
    let mut shortest = |tier: Tier| {
        let times: Result<Vec<Duration>> = (0..ROUNDS).map(|_| time(tier)).collect();
        match times {
            Ok(times) => Some((times.into_iter().min()?, tier)),
            Err(error) => {
                log::warn!("the kernel {tier} is left out: {error}");
                None
            }
        }
    };
    let timed: Vec<_> = candidates.iter().filter_map(|&tier| shortest(tier)).collect();
    let (time, tier) = timed.iter().copied().min_by_key(|(time, _)| *time)?;
    log::debug!("{tier} takes {time:?}, of {timed:?}");
    Some((tier, timed.len() == candidates.len()))
}

impl Scan<'_> {
    /// The kernel that this device scans `table` with; `None` if the number of queries decides.
    pub(super) fn chosen(&self, table: &ItemTable) -> Result<Option<Tier>> {
        if self.weights.is_none() {
            return Ok(None);
        }
        let n_items = table.rows.last().map_or(0, |rows| rows.end);
        let candidates = self.program.candidates();
        // Not as the job of the search: what is cancelled has not failed.
        let mut agreed = None;
        let time = |tier: Tier| {
            if tier.is_cooperative() && agreed.replace(tier) != Some(tier) {
                Job::new(None, false).run(|| self.check_agreement(table, tier))?;
            }
            self.time(table, tier)
        };
        let tier = self.gpu.tuner().choose(n_items, &self.program.key(), &candidates, time);
        // Where every candidate failed the device is to blame.
        self.gpu.check().map(|()| tier)
    }

    /// Cooperative matrices are young: a driver whose scores are far from those in registers is not trusted with them.
    fn check_agreement(&self, table: &ItemTable, tier: Tier) -> Result<()> {
        let expected = self.some_scores(table, Tier::Registers(1))?;
        let found = self.some_scores(table, tier)?;
        agree(&expected, &found).map_err(|what| self.gpu.error(format!("kernel {tier}: {what}")))
    }

    /// The scores of the first items for the first queries, by position, one query after the other.
    fn some_scores(&self, table: &ItemTable, tier: Tier) -> Result<Vec<ScoredPosition>> {
        let chunk = Chunk { shard: 0, first_tile: 0, n_tiles: table.rows[0].len().div_ceil(TILE).min(4) };
        let mut recorder = Recorder::new(self.gpu);
        let slice = self.slice(&mut recorder, 0..self.n_queries.min(QUERIES), tier);
        let survivors = Survivors::new(&mut recorder, slice.n_queries, chunk.n_tiles * TILE);
        self.dispatch(&mut recorder, &self.program.tier_kernel(tier), (table, &chunk), &slice, &survivors);
        Ok(survivors.scored(&mut recorder)?.unwrap_or_default().concat())
    }

    /// What a few dispatches of a kernel take, by the clock of the device if it has one.
    fn time(&self, table: &ItemTable, tier: Tier) -> Result<Duration> {
        let tile_flops = self.program.pair_flops * (QUERIES * TILE) as u64;
        let tiles = table.rows[0].len().div_ceil(TILE).min(self.limits.workgroups);
        let n_tiles = tiles.min((FLOPS / tile_flops.max(1)) as usize).max(1);
        let chunk = Chunk { shard: 0, first_tile: 0, n_tiles };
        let kernel = self.program.tier_kernel(tier);
        let job = Job::new(None, true);
        job.run(|| {
            let mut recorder = Recorder::new(self.gpu);
            let queries = recorder.temporary(Layout::Queries(tier.lanes()).bytes(&self.program.queries, QUERIES));
            recorder.clear(&queries);
            let excluded = recorder.upload(&position_lists((0..QUERIES).map(|_| [].as_slice())));
            let slice = Slice { n_queries: QUERIES, tier, queries, excluded, denied: None };
            // No score passes.
            let survivors = Survivors::at_least(&mut recorder, &[f32::INFINITY; QUERIES], 1);
            let mut run = |dispatches: usize| {
                for _ in 0..dispatches {
                    self.dispatch(&mut recorder, &kernel, (table, &chunk), &slice, &survivors);
                }
                recorder.read_bytes(&survivors.state)
            };
            run(1)?;
            let by_device = || job.kernels().iter().map(|kernel| kernel.time).sum::<Duration>();
            let (start, before) = (Instant::now(), by_device());
            run(DISPATCHES)?;
            let measured = by_device().saturating_sub(before);
            Ok(if measured.is_zero() { start.elapsed() } else { measured })
        })
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

/// The choices of a device in a file. Whatever cannot be read, or is about another device, driver or version, is ignored.
#[derive(Debug)]
struct TuningFile {
    path: PathBuf,
    device: String,
    driver: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    device: String,
    driver: String,
    version: String,
    /// By [`super::program::Program::key`].
    tiers: BTreeMap<String, String>,
}

impl TuningFile {
    fn new(info: &DeviceInfo, folder: &Path) -> TuningFile {
        let (device, driver) = (format!("{} {}", info.backend, info.name), info.driver.clone());
        let name = format!("tiers-{:08x}.json", crc32fast::hash(format!("{device}\n{driver}").as_bytes()));
        TuningFile { path: folder.join(name), device, driver }
    }

    fn content(&self) -> Content {
        let read = std::fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice::<Content>(&bytes).ok());
        let own = Content {
            device: self.device.clone(),
            driver: self.driver.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            tiers: BTreeMap::new(),
        };
        let is_own = |content: &Content| {
            (&content.device, &content.driver, &content.version) == (&own.device, &own.driver, &own.version)
        };
        read.filter(is_own).unwrap_or(own)
    }

    fn read(&self) -> HashMap<String, Tier> {
        let tier = |(key, name): (String, String)| Some((key, Tier::named(&name)?));
        self.content().tiers.into_iter().filter_map(tier).collect()
    }

    /// Other programs may have added theirs meanwhile.
    fn add(&self, key: &str, tier: Tier) {
        let mut content = self.content();
        content.tiers.insert(key.to_string(), tier.to_string());
        match serde_json::to_vec_pretty(&content) {
            Ok(bytes) => cache::write(&self.path, &bytes),
            Err(error) => log::warn!("{}: {error}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Error;

    const ALL: [Tier; 5] =
        [Tier::Registers(1), Tier::Registers(2), Tier::Registers(4), Tier::Cooperative(1), Tier::Cooperative(2)];

    fn info(name: &str, kind: DeviceKind) -> DeviceInfo {
        let (name, backend, driver) = (name.to_string(), "vulkan".to_string(), "Driver 1".to_string());
        DeviceInfo { name, kind, backend, driver, features: vec![], limits: vec![] }
    }

    fn tuner(wanted: ScanTier, folder: Option<&Path>) -> Tuner {
        Tuner::new(&info("GPU", DeviceKind::DiscreteGpu), wanted, folder)
    }

    /// A clock by which candidate i takes `millis[i]`, in one of its rounds; it is disturbed in the others.
    fn clock(millis: [u64; 5], calls: &mut usize) -> impl FnMut(Tier) -> Result<Duration> {
        move |tier| {
            let disturbance = if *calls % ROUNDS == 1 { 0 } else { 1000 * (*calls as u64 % 7 + 1) };
            *calls += 1;
            let which = ALL.iter().position(|&known| known == tier).unwrap();
            Ok(Duration::from_millis(millis[which] + disturbance))
        }
    }

    fn no_clock(tier: Tier) -> Result<Duration> {
        panic!("{tier} was timed")
    }

    #[test]
    fn the_fastest_is_taken_and_stays() {
        let mut calls = 0;
        let auto = tuner(ScanTier::Auto, None);
        assert_eq!(auto.choose(LARGE, "a", &ALL, clock([5, 4, 9, 3, 8], &mut calls)), Some(Tier::Cooperative(1)));
        assert_eq!(calls, ALL.len() * ROUNDS);
        assert_eq!(auto.choose(LARGE, "a", &ALL, no_clock), Some(Tier::Cooperative(1)));
        assert_eq!(auto.choose(LARGE, "b", &ALL[..3], clock([5, 4, 9, 3, 8], &mut 0)), Some(Tier::Registers(2)));
        assert_eq!(auto.choose(LARGE, "a", &ALL[..3], clock([1, 4, 9, 3, 8], &mut 0)), Some(Tier::Registers(1)));
    }

    #[test]
    fn candidates_that_fail_are_out() {
        let fails = |tier: Tier| {
            if tier == Tier::Registers(4) { Ok(Duration::from_secs(1)) } else { Err(Error::Cancelled) }
        };
        assert_eq!(fastest(&ALL, fails), Some((Tier::Registers(4), false)));
        assert_eq!(fastest(&ALL[2..3], fails), Some((Tier::Registers(4), true)));
        assert_eq!(fastest(&ALL[..2], fails), None);
        let folder = tempfile::tempdir().unwrap();
        let tuner = tuner(ScanTier::Auto, Some(folder.path()));
        assert_eq!(tuner.choose(LARGE, "a", &ALL, fails), Some(Tier::Registers(4)));
        assert_eq!(tuner.choose(LARGE, "a", &ALL, no_clock), Some(Tier::Registers(4)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "kept for this device only");
    }

    #[test]
    fn far_off_scores_do_not_agree() {
        let hits = |list: [(u32, f32); 3]| list.map(|(position, score)| ScoredPosition { position, score });
        let expected = hits([(0, 1.0), (1, -8.0), (5, 0.25)]);
        assert_eq!(agree(&expected, &expected), Ok(()));
        assert_eq!(agree(&expected, &hits([(0, 1.4), (1, -7.6), (5, 0.25)])), Ok(()));
        let far = agree(&expected, &hits([(0, 1.0), (1, -7.4), (5, 0.25)])).unwrap_err();
        assert!(far.contains("-7.4 instead of -8"), "{far}");
        assert!(agree(&expected, &hits([(0, 1.0), (1, f32::NAN), (5, 0.25)])).is_err());
        assert!(agree(&expected, &expected[..2]).is_err());
        assert!(agree(&expected, &hits([(0, 1.0), (2, -8.0), (5, 0.25)])).is_err());
    }

    #[test]
    fn small_tables_and_software_drivers_are_never_timed_unless_told() {
        assert_eq!(tuner(ScanTier::Auto, None).choose(LARGE - 1, "a", &ALL, no_clock), None);
        let software = Tuner::new(&info("CPU", DeviceKind::SoftwareGpu), ScanTier::Auto, None);
        assert_eq!(software.choose(LARGE, "a", &ALL, no_clock), None);
        software.set(ScanTier::Timed);
        assert_eq!(software.choose(1, "a", &ALL, clock([5, 4, 1, 3, 8], &mut 0)), Some(Tier::Registers(4)));
        software.set(ScanTier::Registers);
        assert_eq!(software.choose(LARGE, "a", &ALL, no_clock), None);
        software.set(ScanTier::Cooperative);
        assert_eq!(software.choose(1, "a", &ALL, no_clock), Some(Tier::Cooperative(2)));
        assert_eq!(software.choose(1, "a", &ALL[..3], no_clock), None, "there is none");
    }

    #[test]
    fn choices_outlive_the_device_that_made_them() {
        let folder = tempfile::tempdir().unwrap();
        let new = || tuner(ScanTier::Auto, Some(folder.path()));
        let (first, second) = (new(), new());
        first.choose(LARGE, "a", &ALL, clock([5, 4, 9, 3, 8], &mut 0));
        second.choose(LARGE, "b", &ALL, clock([1, 4, 9, 3, 8], &mut 0));
        let third = new();
        assert_eq!(third.choose(LARGE, "a", &ALL, no_clock), Some(Tier::Cooperative(1)));
        assert_eq!(third.choose(LARGE, "b", &ALL, no_clock), Some(Tier::Registers(1)));
        assert_eq!(third.choose(LARGE, "b", &ALL[1..], clock([1, 4, 9, 3, 8], &mut 0)), Some(Tier::Cooperative(1)));
        let other = Tuner::new(&info("another", DeviceKind::DiscreteGpu), ScanTier::Auto, Some(folder.path()));
        assert!(lock(&other.known).is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary files are left");
    }

    #[test]
    fn broken_and_foreign_files_are_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let new = || tuner(ScanTier::Auto, Some(folder.path()));
        new().choose(LARGE, "a", &ALL, clock([5, 4, 9, 3, 8], &mut 0));
        let path = new().file.unwrap().path;
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.contains("cooperative-1"), "{whole}");
        let broken = [
            whole.replace("Driver 1", "Driver 2"),
            whole.replace(env!("CARGO_PKG_VERSION"), "0.0.0"),
            whole.replace("cooperative-1", "cooperative-3"),
            whole.replace("cooperative-1", "warp-1"),
            whole[..whole.len() / 2].to_string(),
            String::new(),
            "[]".to_string(),
        ];
        for text in broken {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(
                new().choose(LARGE, "a", &ALL, clock([5, 4, 1, 3, 8], &mut 0)),
                Some(Tier::Registers(4)),
                "{text}"
            );
            assert_eq!(new().choose(LARGE, "a", &ALL, no_clock), Some(Tier::Registers(4)));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(new().choose(LARGE, "a", &ALL, clock([1, 4, 9, 3, 8], &mut 0)), Some(Tier::Registers(1)));
    }
}
