//! The context of a search: whether somebody still wants its result, and what it has cost.
//!
//! A search hands it through an index, its segments and a device to loops over tiles and to submissions of commands, which ask
//! it whether to go on and tell it what they do.

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

/// What the work of one search, or of learning from queries, shares wherever it is done: whether it is cancelled, its stage, the
/// bytes read, what kernels take. Clones are the same one; `SearchContext::default()` is that of work that nobody cancels or
/// measures.
#[derive(Clone, Debug, Default)]
pub struct SearchContext(Option<Arc<State>>);

#[derive(Debug)]
struct State {
    cancel: Option<Cancel>,
    stage: AtomicU8,
    bytes: AtomicU64,
    submissions: AtomicU64,
    readbacks: AtomicU64,
    kernels: Option<Mutex<Vec<KernelTime>>>,
}

impl SearchContext {
    /// Of a search that `cancel` ends and that, if `profiled`, wants to know what kernels take.
    pub(crate) fn new(cancel: Option<Cancel>, profiled: bool) -> SearchContext {
        let kernels = profiled.then(Mutex::default);
        SearchContext(Some(Arc::new(State {
            cancel,
            stage: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            readbacks: AtomicU64::new(0),
            kernels,
        })))
    }

    fn cancel(&self) -> Option<&Cancel> {
        self.0.as_ref()?.cancel.as_ref()
    }

    /// Whether somebody may cancel it.
    #[cfg(feature = "gpu")]
    pub(crate) fn can_be_cancelled(&self) -> bool {
        self.cancel().is_some()
    }

    /// Whether nobody wants the result any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancel().is_some_and(Cancel::is_cancelled)
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if nobody wants the result any more.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// What is done from now on belongs to `stage`.
    pub(crate) fn enter(&self, stage: Stage) {
        if let Some(state) = &self.0 {
            state.stage.store(stage as u8, Ordering::Relaxed);
        }
    }

    /// Counts `rows` of tables that are read, of so many bytes each.
    pub(crate) fn reads(&self, rows: usize, bytes: u64) {
        if let Some(state) = &self.0 {
            state.bytes.fetch_add(rows as u64 * bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of tables read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |state| state.bytes.load(Ordering::Relaxed))
    }

    /// Counts a submission to a GPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn submitted(&self) {
        if let Some(state) = &self.0 {
            state.submissions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts results that are waited for and read from a GPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn read_back(&self) {
        if let Some(state) = &self.0 {
            state.readbacks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Submissions to GPUs so far, and how often results were read back.
    pub(crate) fn submissions_and_readbacks(&self) -> (u64, u64) {
        let counts =
            |state: &Arc<State>| (state.submissions.load(Ordering::Relaxed), state.readbacks.load(Ordering::Relaxed));
        self.0.as_ref().map_or((0, 0), counts)
    }

    /// The stage that work belongs to now.
    #[cfg(feature = "gpu")]
    pub(crate) fn stage(&self) -> Stage {
        self.0.as_ref().map_or(Stage::QuerySide, |state| Stage::ALL[state.stage.load(Ordering::Relaxed) as usize])
    }

    /// Whether to measure kernels.
    #[cfg(feature = "gpu")]
    pub(crate) fn is_profiled(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.kernels.is_some())
    }

    /// Counts a dispatch of a kernel in a stage.
    #[cfg(feature = "gpu")]
    pub(crate) fn dispatched(&self, stage: Stage, kernel: &'static str, time: Duration) {
        let Some(state) = &self.0 else { return };
        let Some(kernels) = &state.kernels else { return };
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
    pub(crate) fn kernels(&self) -> Vec<KernelTime> {
        let measured = self.0.as_ref().and_then(|state| state.kernels.as_ref());
        let mut kernels =
            measured.map(|kernels| kernels.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default();
        kernels.sort_by(|a, b| a.stage.cmp(&b.stage).then(b.time.cmp(&a.time)));
        kernels
    }
}

/// Does `work` with a context that finds out what each kernel of a GPU takes that it is handed on to, as
/// [`Request::profile`](crate::search::Request::profile) does: for encoders, and for indices and kernels used directly.
/// There are no stages then: all kernels count for the first one. A search within `work` keeps what it finds out to itself.
pub fn profiled<T>(work: impl FnOnce(&SearchContext) -> T) -> (T, Vec<KernelTime>) {
    let context = SearchContext::new(None, true);
    let done = work(&context);
    (done, context.kernels())
}
