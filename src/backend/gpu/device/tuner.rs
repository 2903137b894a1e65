//! Which scan kernel is the fastest for a shader variant on a device: timed once, on the first large table, and remembered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cache;
use super::lock::lock;
use super::tier::{ScanTier, Tier};
use crate::Result;
use crate::backend::{DeviceInfo, DeviceKind};

/// Fewest items of a table that is worth the timing. Smaller ones are always scanned by today's rule, whatever was timed, so that no
/// table changes its kernel, and with it the last bits of its scores.
const LARGE: usize = 65_536;

/// How often each candidate is timed.
const ROUNDS: usize = 3;

/// What a device has learned about its kernels.
#[derive(Debug)]
pub(crate) struct Tuner {
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
