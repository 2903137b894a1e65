//! The search that a thread works for: whether somebody still wants its result, and what it has cost.
//!
//! A search passes through an index, its segments and a device to loops over tiles and to submissions of commands. All of
//! these stay as they are: like a span of a tracing library, the job of a thread is found by whoever has to ask or tell it
//! something, and a thread without one is never disturbed.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{Error, Result};

/// Ends searches early. Clones end the same ones.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Ends every search that was given this, now or later: it returns [`Error::Cancelled`] after the chunk of items, or the
    /// submission to a GPU, that it is at.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stage of a search, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Component embeddings of the queries for the first stage. A scan of everything computes them itself.
    QuerySide,
    /// The collection of candidates.
    FirstStage,
    /// The scan with, or rescoring by, the full similarity.
    Scoring,
    /// What the host does with scores: the best k of the candidates, and their ids.
    Selection,
    /// The certificates.
    Certifying,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 5] =
        [Stage::QuerySide, Stage::FirstStage, Stage::Scoring, Stage::Selection, Stage::Certifying];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Stage::QuerySide => "query-side",
            Stage::FirstStage => "first-stage",
            Stage::Scoring => "scoring",
            Stage::Selection => "selection",
            Stage::Certifying => "certifying",
        })
    }
}

/// What one kernel of a GPU took in one stage of a search, by the timestamps of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelTime {
    /// The stage.
    pub stage: Stage,
    /// Name of the kernel.
    pub kernel: &'static str,
    /// How often it was dispatched.
    pub dispatches: u32,
    /// All dispatches together.
    pub time: Duration,
}

/// One search. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job(Option<Arc<State>>);

#[derive(Debug)]
struct State {
    cancel: Option<Cancel>,
    stage: AtomicU8,
    bytes: AtomicU64,
    kernels: Option<Mutex<Vec<KernelTime>>>,
}

thread_local! {
    static CURRENT: RefCell<Job> = const { RefCell::new(Job(None)) };
}

/// Gives a thread back the job that it had before.
struct Before(Job);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.0));
    }
}

impl Job {
    /// A job that `cancel` ends and that, if `profiled`, wants to know what kernels take.
    pub fn new(cancel: Option<Cancel>, profiled: bool) -> Job {
        let kernels = profiled.then(Mutex::default);
        Job(Some(Arc::new(State { cancel, stage: AtomicU8::new(0), bytes: AtomicU64::new(0), kernels })))
    }

    /// That of this thread.
    pub fn current() -> Job {
        CURRENT.with_borrow(Job::clone)
    }

    /// Does `work` as part of this job. A worker thread may take up another job in the middle of one, and comes back.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let _before = Before(CURRENT.replace(self.clone()));
        work()
    }

    fn cancel(&self) -> Option<&Cancel> {
        self.0.as_ref()?.cancel.as_ref()
    }

    /// Whether somebody may cancel it.
    #[cfg(any(test, feature = "gpu"))]
    pub fn can_be_cancelled(&self) -> bool {
        self.cancel().is_some()
    }

    /// Whether nobody wants the result any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancel().is_some_and(Cancel::is_cancelled)
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// What is done from now on belongs to `stage`.
    pub fn enter(&self, stage: Stage) {
        if let Some(state) = &self.0 {
            state.stage.store(stage as u8, Ordering::Relaxed);
        }
    }

    /// Counts bytes of tables that are read.
    pub fn reads(&self, bytes: u64) {
        if let Some(state) = &self.0 {
            state.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of tables read so far.
    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |state| state.bytes.load(Ordering::Relaxed))
    }

    /// Whether to measure kernels.
    #[cfg(feature = "gpu")]
    pub fn is_profiled(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.kernels.is_some())
    }

    /// Counts a dispatch of a kernel.
    #[cfg(feature = "gpu")]
    pub fn dispatched(&self, kernel: &'static str, time: Duration) {
        let Some(state) = &self.0 else { return };
        let Some(kernels) = &state.kernels else { return };
        let stage = Stage::ALL[state.stage.load(Ordering::Relaxed) as usize];
        let mut kernels = kernels.lock().unwrap_or_else(PoisonError::into_inner);
        match kernels.iter_mut().find(|known| (known.stage, known.kernel) == (stage, kernel)) {
            Some(known) => {
                known.dispatches += 1;
                known.time += time;
            }
            None => kernels.push(KernelTime { stage, kernel, dispatches: 1, time }),
        }
    }

    /// What kernels took, by stage, the longest first.
    pub fn kernels(&self) -> Vec<KernelTime> {
        let measured = self.0.as_ref().and_then(|state| state.kernels.as_ref());
        let mut kernels =
            measured.map(|kernels| kernels.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default();
        kernels.sort_by(|a, b| a.stage.cmp(&b.stage).then(b.time.cmp(&a.time)));
        kernels
    }
}

/// Does `work` on this thread and finds out what each kernel of a GPU takes that it runs, as
/// [`Request::profile`](crate::search::Request::profile) does: for encoders, and for indices and kernels used directly.
/// There are no stages then: all kernels count for the first one. A search within `work` keeps what it finds out to itself.
pub fn profiled<T>(work: impl FnOnce() -> T) -> (T, Vec<KernelTime>) {
    let job = Job::new(None, true);
    let done = job.run(work);
    (done, job.kernels())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_nest_and_end_with_their_work() {
        let (outer, inner) = (Cancel::new(), Cancel::new());
        inner.cancel();
        assert!(!Job::current().can_be_cancelled());
        Job::new(Some(outer), false).run(|| {
            assert!(Job::current().check().is_ok());
            let ended = Job::new(Some(inner), false).run(|| Job::current().check());
            assert!(matches!(ended, Err(Error::Cancelled)));
            assert!(Job::current().check().is_ok(), "the outer job again");
        });
        assert!(!Job::current().can_be_cancelled());
    }

    #[test]
    fn a_panic_leaves_no_job_behind() {
        let job = Job::new(Some(Cancel::new()), false);
        let panicked = std::panic::catch_unwind(|| job.run(|| panic!("of the test")));
        assert!(panicked.is_err() && !Job::current().can_be_cancelled());
    }
}
