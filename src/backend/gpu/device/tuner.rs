//! Which scan kernel is the fastest for a shader variant on a device: timed once, on the first large table, and remembered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cache;
use super::lock::lock;
use super::tier::{ScanTier, Tier};
use super::timing::{ScanTiming, timed};
use crate::Result;
use crate::backend::{DeviceInfo, DeviceKind};

/// Fewest items of a table that is worth the timing. Smaller ones are always scanned by today's rule, whatever was timed, so that no
/// table changes its kernel, and with it the last bits of its scores.
const LARGE: usize = 65_536;

/// How long each candidate is measured.
const BUDGET: Duration = Duration::from_millis(20);

/// The same on a software driver, whose times tell nothing about hardware.
const SOFTWARE_BUDGET: Duration = Duration::from_millis(1);

/// What a device has learned about its kernels.
#[derive(Debug)]
pub(crate) struct Tuner {
    wanted: Mutex<ScanTier>,
    software: bool,
    known: Mutex<HashMap<String, Tier>>,
    /// Of this run.
    timings: Mutex<Vec<ScanTiming>>,
    file: Option<TuningFile>,
}

impl Tuner {
    /// With what an earlier one has left in `folder`.
    pub fn new(info: &DeviceInfo, wanted: ScanTier, folder: Option<&Path>) -> Tuner {
        let file = folder.map(|folder| TuningFile::new(info, folder));
        let known = file.as_ref().map(TuningFile::read).unwrap_or_default();
        let software = info.kind == DeviceKind::SoftwareGpu;
        Tuner { wanted: Mutex::new(wanted), software, known: Mutex::new(known), timings: Mutex::default(), file }
    }

    /// Choices of another kind from now on.
    pub fn set(&self, wanted: ScanTier) {
        *lock(&self.wanted) = wanted;
    }

    /// Whether nobody has asked for a kind of kernel.
    pub fn is_automatic(&self) -> bool {
        *lock(&self.wanted) == ScanTier::Auto
    }

    /// Forgets what was timed. A new choice takes the place of an old one in the file.
    pub fn forget(&self) {
        lock(&self.known).clear();
    }

    /// What was timed since the device was opened.
    pub fn timings(&self) -> Vec<ScanTiming> {
        lock(&self.timings).clone()
    }

    /// The kernel for a table of `n_items`, of `candidates`; `time` measures so many dispatches of one of them. `None` if the number of
    /// queries decides. `key` and `name` stand for what is scanned.
    pub fn choose(
        &self,
        n_items: usize,
        (key, name): (&str, &str),
        candidates: &[Tier],
        time: impl FnMut(Tier, usize) -> Result<Duration>,
    ) -> Option<Tier> {
        let is_timed = match *lock(&self.wanted) {
            ScanTier::Registers => false,
            ScanTier::Cooperative => return candidates.iter().copied().rfind(|tier| tier.is_cooperative()),
            ScanTier::Auto => !self.software && n_items >= LARGE,
            ScanTier::Timed => true,
        };
        if !is_timed {
            return None;
        }
        // Whoever needs the answer meanwhile waits for it: two timings at once would disturb each other.
        let mut known = lock(&self.known);
        if let Some(&tier) = known.get(key).filter(|tier| candidates.contains(tier)) {
            return Some(tier);
        }
        let times = timed(candidates, if self.software { SOFTWARE_BUDGET } else { BUDGET }, time);
        let &(tier, _) = times.iter().min_by_key(|(_, time)| *time)?;
        let timing = ScanTiming {
            variant: name.to_string(),
            chosen: tier.to_string(),
            times: times.iter().map(|(tier, time)| (tier.to_string(), *time)).collect(),
        };
        log::info!("{timing}");
        lock(&self.timings).push(timing);
        known.insert(key.to_string(), tier);
        // What failed today, for want of memory perhaps, gets another chance at the next start.
        if let Some(file) = self.file.as_ref().filter(|_| times.len() == candidates.len()) {
            file.add(key, tier);
        }
        Some(tier)
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
    /// By the key of a shader variant.
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

    const A: (&str, &str) = ("a", "f16 8x4x64");
    const B: (&str, &str) = ("b", "f16 8x8x32");

    fn info(name: &str, kind: DeviceKind) -> DeviceInfo {
        let (name, backend, driver) = (name.to_string(), "vulkan".to_string(), "Driver 1".to_string());
        DeviceInfo { name, kind, backend, driver, features: vec![], limits: vec![] }
    }

    fn tuner(wanted: ScanTier, folder: Option<&Path>) -> Tuner {
        Tuner::new(&info("GPU", DeviceKind::DiscreteGpu), wanted, folder)
    }

    /// A clock by which a dispatch of candidate i takes `millis[i]`.
    fn clock(millis: [u64; 5]) -> impl FnMut(Tier, usize) -> Result<Duration> {
        move |tier, dispatches| {
            let which = ALL.iter().position(|&known| known == tier).unwrap();
            Ok(Duration::from_millis(millis[which] * dispatches as u64))
        }
    }

    fn no_clock(tier: Tier, _: usize) -> Result<Duration> {
        panic!("{tier} was timed")
    }

    #[test]
    fn the_fastest_is_taken_and_stays() {
        let auto = tuner(ScanTier::Auto, None);
        assert_eq!(auto.choose(LARGE, A, &ALL, clock([5, 4, 9, 3, 8])), Some(Tier::Cooperative(1)));
        let timings = auto.timings();
        assert_eq!((timings.len(), timings[0].variant.as_str(), timings[0].times.len()), (1, "f16 8x4x64", 5));
        assert_eq!((timings[0].chosen.as_str(), timings[0].times[4].1), ("cooperative-1", Duration::from_millis(8)));
        assert_eq!(auto.choose(LARGE, A, &ALL, no_clock), Some(Tier::Cooperative(1)));
        assert_eq!(auto.choose(LARGE, B, &ALL[..3], clock([5, 4, 9, 3, 8])), Some(Tier::Registers(2)));
        assert_eq!(auto.choose(LARGE, A, &ALL[..3], clock([1, 4, 9, 3, 8])), Some(Tier::Registers(1)));
    }

    #[test]
    fn candidates_that_fail_are_out() {
        let fails = |tier: Tier, _: usize| {
            if tier == Tier::Registers(4) { Ok(Duration::from_secs(1)) } else { Err(Error::Cancelled) }
        };
        assert_eq!(tuner(ScanTier::Auto, None).choose(LARGE, A, &ALL[..2], fails), None);
        let folder = tempfile::tempdir().unwrap();
        let tuner = tuner(ScanTier::Auto, Some(folder.path()));
        assert_eq!(tuner.choose(LARGE, A, &ALL, fails), Some(Tier::Registers(4)));
        assert_eq!(tuner.choose(LARGE, A, &ALL, no_clock), Some(Tier::Registers(4)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "kept for this device only");
    }

    #[test]
    fn small_tables_and_software_drivers_are_never_timed_unless_told() {
        assert_eq!(tuner(ScanTier::Auto, None).choose(LARGE - 1, A, &ALL, no_clock), None);
        let software = Tuner::new(&info("CPU", DeviceKind::SoftwareGpu), ScanTier::Auto, None);
        assert_eq!(software.choose(LARGE, A, &ALL, no_clock), None);
        software.set(ScanTier::Timed);
        assert_eq!(software.choose(1, A, &ALL, clock([5, 4, 1, 3, 8])), Some(Tier::Registers(4)));
        software.set(ScanTier::Registers);
        assert_eq!(software.choose(LARGE, A, &ALL, no_clock), None);
        software.set(ScanTier::Cooperative);
        assert_eq!(software.choose(1, A, &ALL, no_clock), Some(Tier::Cooperative(2)));
        assert_eq!(software.choose(1, A, &ALL[..3], no_clock), None, "there is none");
    }

    #[test]
    fn choices_outlive_the_device_that_made_them() {
        let folder = tempfile::tempdir().unwrap();
        let new = || tuner(ScanTier::Auto, Some(folder.path()));
        let (first, second) = (new(), new());
        first.choose(LARGE, A, &ALL, clock([5, 4, 9, 3, 8]));
        second.choose(LARGE, B, &ALL, clock([1, 4, 9, 3, 8]));
        let third = new();
        assert_eq!(third.choose(LARGE, A, &ALL, no_clock), Some(Tier::Cooperative(1)));
        assert_eq!(third.choose(LARGE, B, &ALL, no_clock), Some(Tier::Registers(1)));
        assert_eq!(third.choose(LARGE, B, &ALL[1..], clock([1, 4, 9, 3, 8])), Some(Tier::Cooperative(1)));
        let other = Tuner::new(&info("another", DeviceKind::DiscreteGpu), ScanTier::Auto, Some(folder.path()));
        assert!(lock(&other.known).is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary files are left");
        // Timed again, the new choice takes the place of the old one.
        third.forget();
        assert_eq!(third.choose(LARGE, A, &ALL, clock([5, 4, 2, 3, 8])), Some(Tier::Registers(4)));
        assert_eq!(new().choose(LARGE, A, &ALL, no_clock), Some(Tier::Registers(4)));
        assert_eq!(new().choose(LARGE, B, &ALL[1..], no_clock), Some(Tier::Cooperative(1)), "the others stay");
    }

    #[test]
    fn broken_and_foreign_files_are_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let new = || tuner(ScanTier::Auto, Some(folder.path()));
        new().choose(LARGE, A, &ALL, clock([5, 4, 9, 3, 8]));
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
            assert_eq!(new().choose(LARGE, A, &ALL, clock([5, 4, 1, 3, 8])), Some(Tier::Registers(4)), "{text}");
            assert_eq!(new().choose(LARGE, A, &ALL, no_clock), Some(Tier::Registers(4)));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(new().choose(LARGE, A, &ALL, clock([1, 4, 9, 3, 8])), Some(Tier::Registers(1)));
    }
}
