//! The timing of kernels that can do the same work, against each other.
//!
//! A device that has been idle runs slowly at first, faster when it is warm and slower when it is hot, and others may use it. So
//! all candidates work until clocks have risen, then each takes its turn in every round, for long enough to be measured.

use std::fmt;
use std::time::Duration;

use super::tier::Tier;
use crate::Result;

/// Rounds of all candidates, at least.
const ROUNDS: u32 = 4;

/// How long all candidates together work before the rounds, to warm the device: so many budgets.
const WARM_UP: u32 = 5;

/// Dispatches of one measurement, at most.
const MOST_DISPATCHES: usize = 1 << 12;

/// Measurements of a candidate, at most, where a clock hardly moves.
const MOST_MEASUREMENTS: u32 = 64;

/// What the kernels that can scan some tables took, and which of them scans from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanTiming {
    /// What they scan: similarity, number format and shapes.
    pub variant: String,
    /// The kernel that was chosen.
    pub chosen: String,
    /// Each kernel and the time of one dispatch of it, the shortest of all rounds. Those that failed are left out.
    pub times: Vec<(String, Duration)>,
}

impl fmt::Display for ScanTiming {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}; a dispatch takes", self.variant, self.chosen)?;
        self.times.iter().enumerate().try_for_each(|(i, (kernel, time))| {
            write!(f, "{} {:.4} ms by {kernel}", if i > 0 { "," } else { "" }, time.as_secs_f64() * 1e3)
        })
    }
}

/// A candidate while it is timed.
struct Candidate {
    tier: Tier,
    /// Dispatches of one measurement.
    dispatches: usize,
    /// The shortest time of one dispatch.
    shortest: Duration,
    /// In all rounds together.
    total: Duration,
}

/// The time of one dispatch by each of the candidates that do not fail, in their order. `time` takes so many dispatches; each
/// candidate is measured for `budget` or longer.
pub(super) fn timed(
    candidates: &[Tier],
    budget: Duration,
    mut time: impl FnMut(Tier, usize) -> Result<Duration>,
) -> Vec<(Tier, Duration)> {
    let mut time = |tier: Tier, dispatches| {
        let failed = |error| log::warn!("the kernel {tier} is left out: {error}");
        time(tier, dispatches).map_err(failed).ok()
    };
    // The first dispatch may wait for a compiler.
    let sized = |&tier: &Tier| {
        time(tier, 1)?;
        let mut dispatches = 1;
        while time(tier, dispatches)? < budget / ROUNDS && dispatches < MOST_DISPATCHES {
            dispatches *= 2;
        }
        Some(Candidate { tier, dispatches, shortest: Duration::MAX, total: Duration::ZERO })
    };
    let mut left: Vec<Candidate> = candidates.iter().filter_map(sized).collect();
    let (mut warm, mut measured) = (Duration::ZERO, 0);
    while !left.is_empty() && warm < WARM_UP * budget && measured < MOST_MEASUREMENTS {
        left.retain(|candidate| time(candidate.tier, candidate.dispatches).map(|took| warm += took).is_some());
        measured += 1;
    }
    let mut rounds = 0;
    while rounds < ROUNDS || rounds < MOST_MEASUREMENTS && left.iter().any(|candidate| candidate.total < budget) {
        left.retain_mut(|candidate| {
            let took = time(candidate.tier, candidate.dispatches);
            took.is_some_and(|took| {
                candidate.total += took;
                candidate.shortest = candidate.shortest.min(took / candidate.dispatches as u32);
                true
            })
        });
        rounds += 1;
    }
    left.into_iter().map(|candidate| (candidate.tier, candidate.shortest)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Error;

    const THREE: [Tier; 3] = [Tier::Registers(1), Tier::Registers(2), Tier::Registers(4)];
    const BUDGET: Duration = Duration::from_millis(20);

    /// A device on which a dispatch by each candidate takes so many microseconds once it is warm: its clock rises to five times
    /// what it begins with, within 60 ms of work.
    struct Device {
        micros: [u64; 3],
        worked: Duration,
        measurements: Vec<(Tier, usize, Duration)>,
    }

    impl Device {
        fn new(micros: [u64; 3]) -> Device {
            Device { micros, worked: Duration::ZERO, measurements: Vec::new() }
        }

        fn time(&mut self, tier: Tier, dispatches: usize) -> Duration {
            let which = THREE.iter().position(|&known| known == tier).unwrap();
            let slow = 5.0 - 4.0 * (self.worked.as_secs_f64() / 0.06).min(1.0);
            let took = Duration::from_secs_f64(self.micros[which] as f64 * 1e-6 * dispatches as f64 * slow);
            self.worked += took;
            self.measurements.push((tier, dispatches, took));
            took
        }

        /// What the measurements of each candidate took together after the first 60 ms.
        fn warm(&self) -> [Duration; 3] {
            let mut worked = Duration::ZERO;
            let warm = self.measurements.iter().filter(|one| {
                worked += one.2;
                worked > Duration::from_millis(60)
            });
            let warm: Vec<_> = warm.collect();
            THREE.map(|tier| warm.iter().filter(|one| one.0 == tier).map(|one| one.2).sum())
        }
    }

    #[test]
    fn short_and_long_dispatches_are_measured_for_long_enough_on_a_warm_device() {
        for micros in [[3, 2, 4], [120, 100, 110], [7000, 6000, 5900]] {
            let mut device = Device::new(micros);
            let times = timed(&THREE, BUDGET, |tier, dispatches| Ok(device.time(tier, dispatches)));
            let close = |(&(tier, time), (&expected, micros)): (&(Tier, Duration), (&Tier, u64))| {
                tier == expected && (time.as_secs_f64() * 1e6 / micros as f64 - 1.0).abs() < 0.001
            };
            assert!(times.iter().zip(THREE.iter().zip(micros)).all(close), "{micros:?}: {times:?}");
            assert!(device.warm().iter().all(|total| *total >= BUDGET), "{micros:?}: {:?}", device.warm());
            let last: Vec<Tier> = device.measurements.iter().rev().take(6).map(|one| one.0).collect();
            assert_eq!(last[..3], last[3..], "one after the other");
            assert_ne!(last[0], last[1]);
            let most = device.measurements.iter().map(|one| one.1).max().unwrap();
            assert!(most <= MOST_DISPATCHES);
            // Clocks that rise make those look best that are measured last: the first measurements are of no use.
            assert!(device.measurements[0].2.as_secs_f64() > 4.9e-6 * micros[0] as f64);
        }
    }

    #[test]
    fn disturbances_that_are_not_in_every_round_do_not_show() {
        let mut calls = 0;
        let times = timed(&THREE, BUDGET, |tier, dispatches| {
            calls += 1;
            let disturbance = if calls % 4 == 0 { 0 } else { 3000 * (calls % 5) };
            Ok(Duration::from_micros((disturbance + 100 * tier.queries() as u64) * dispatches as u64))
        });
        assert_eq!(times.iter().map(|time| time.1.as_micros()).collect::<Vec<_>>(), [100, 200, 400]);
    }

    #[test]
    fn candidates_that_fail_are_out_whenever_it_is() {
        for fails_at in [1, 2, 5, 12] {
            let mut calls = 0;
            let times = timed(&THREE, BUDGET, |tier, dispatches| {
                calls += usize::from(tier == THREE[1]);
                let fails = tier == THREE[1] && calls >= fails_at;
                if fails { Err(Error::Cancelled) } else { Ok(Duration::from_millis(dispatches as u64)) }
            });
            assert_eq!(times.iter().map(|time| time.0).collect::<Vec<_>>(), [THREE[0], THREE[2]], "{fails_at}");
        }
        assert_eq!(timed(&THREE, BUDGET, |_, _| Err(Error::Cancelled)), []);
    }

    #[test]
    fn a_clock_that_stands_still_ends_it() {
        let mut calls = 0;
        let times = timed(&THREE, BUDGET, |_, _| {
            calls += 1;
            Ok(Duration::ZERO)
        });
        assert_eq!(times.len(), 3);
        assert!(calls < 3 * 2 * (MOST_MEASUREMENTS as usize + 16), "{calls}");
    }

    #[test]
    fn a_timing_says_what_was_chosen_and_why() {
        let timing = ScanTiming {
            variant: "mol f16 8x4x64".to_string(),
            chosen: "registers-4".to_string(),
            times: vec![
                ("registers-2".to_string(), Duration::from_micros(150)),
                ("registers-4".to_string(), Duration::from_nanos(98_760)),
            ],
        };
        let text = "mol f16 8x4x64: registers-4; a dispatch takes 0.1500 ms by registers-2, 0.0988 ms by registers-4";
        assert_eq!(timing.to_string(), text);
    }
}
