//! The one error type of the crate: every variant says what was expected, what was found and, where it
//! is not obvious, how to mend it.

mod kind;
mod parameter;

pub use kind::ErrorKind;
pub use parameter::Parameter;

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a checkpoint file and a list of hits.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A checkpoint file is damaged, of an unsupported kind, or holds something that is refused.
    #[error("checkpoint {}: {what}; {fix}", path.display())]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// A tensor of the checkpoint is missing, has the wrong shape, or holds values that cannot be used.
    #[error("checkpoint {}: tensor `{name}`: expected {expected}, found {found}", path.display())]
    Tensor {
        /// The checkpoint file.
        path: PathBuf,
        /// Full name of the tensor.
        name: String,
        /// What the configuration asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// An index folder or one of its files is missing, damaged, of an unknown version, or cannot be written.
    #[error("index {}: {what}; {fix}", path.display())]
    Index {
        /// The folder or the file in it.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What to do about it.
        fix: String,
    },
    /// A configuration file has a wrong line.
    #[error("config {}: `{key}`: expected {expected}, found {found}", place(path, *line as u64))]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// 1-based line; 0 where a key is missing from the whole file.
        line: usize,
        /// The hyper-parameter.
        key: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A data file has a line that cannot be understood.
    #[error("{}: {what}", place(path, *line))]
    Dataset {
        /// The data file.
        path: PathBuf,
        /// 1-based line; 0 where the whole file is meant.
        line: u64,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// An argument is out of its range.
    #[error("{parameter}: expected {expected}, found {found}")]
    Argument {
        /// Which argument.
        parameter: Parameter,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// No device goes by this name, or none is usable.
    #[error("no device `{wanted}`; available: {available}; `rails-bench devices` lists them with their limits")]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// Names of what there is.
        available: String,
    },
    /// The work does not fit the device's limits.
    #[error("{what}: needs {need}, the device has {have}")]
    Limit {
        /// Which resource.
        what: &'static str,
        /// How much the work needs.
        need: u64,
        /// How much the device offers.
        have: u64,
    },
    /// The device has no memory left, or is not allowed more. What it has keeps working.
    #[error(
        "device `{device}`: out of memory: {} are in use, {need} bytes more do not fit; let tables pass through the device \
         (`device_memory` of the index options, `--device-memory`), or use f16 or int8, the raw form or a smaller batch",
        in_use_of(*in_use, *limit)
    )]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// Bytes of the new buffer; 0 where the driver ran out in the middle of other work.
        need: u64,
        /// Bytes of all buffers of this crate on the device.
        in_use: u64,
        /// Most bytes of them, if a limit was set.
        limit: Option<u64>,
    },
    /// The device failed: it was lost, or it refused a command.
    #[error("device `{device}`: {what}")]
    Device {
        /// Name of the device.
        device: String,
        /// What it reported.
        what: String,
    },
    /// Some scores are not numbers: stored items, weights, or queries that were left on a device hold values that overflow.
    #[error(
        "query {query}: expected {expected} items, found {found}: scores of others are not finite numbers; look for damage with \
         `rails-bench index verify`, or rebuild the index: items that cannot be scored are refused then"
    )]
    NotScored {
        /// Row of the query in its batch.
        query: usize,
        /// Items that there are for it.
        expected: usize,
        /// Items with a score.
        found: usize,
    },
    /// A training step met a number that is not finite. Weights and optimiser are as before the step.
    #[error(
        "training step {step}: {what} is not finite; lower the learning rate, warm it up, or clip gradients \
         (`max_gradient_norm`)"
    )]
    Diverged {
        /// Number of the step, from 1.
        step: u64,
        /// What is not finite: the loss, or the gradient of a tensor by its name in a checkpoint.
        what: String,
    },
    /// A search, or the learning from queries, was cancelled; index and searcher are as before.
    #[error("the work was cancelled")]
    Cancelled,
}

/// The file, with the line where one is meant.
fn place(path: &Path, line: u64) -> String {
    let path = path.display();
    if line == 0 { path.to_string() } else { format!("{path}:{line}") }
}

fn in_use_of(in_use: u64, limit: Option<u64>) -> String {
    limit.map_or(format!("{in_use} bytes"), |limit| format!("{in_use} of the {limit} bytes allowed"))
}

impl Error {
    /// For `map_err`: an [`Error::Io`] that remembers the file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// An [`Error::Index`].
    pub fn index(path: &Path, what: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Index { path: path.to_path_buf(), what: what.into(), fix: fix.into() }
    }

    /// An [`Error::Argument`].
    pub fn argument(parameter: impl Into<Parameter>, expected: impl Into<String>, found: impl ToString) -> Error {
        Error::Argument { parameter: parameter.into(), expected: expected.into(), found: found.to_string() }
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } => ErrorKind::Io,
            Error::Checkpoint { .. } | Error::Tensor { .. } => ErrorKind::Checkpoint,
            Error::Index { .. } | Error::NotScored { .. } => ErrorKind::Index,
            Error::Config { .. } => ErrorKind::Config,
            Error::Dataset { .. } => ErrorKind::Dataset,
            Error::Argument { .. } => ErrorKind::Argument,
            Error::NoDevice { .. } => ErrorKind::NoDevice,
            Error::Limit { .. } | Error::OutOfMemory { .. } => ErrorKind::Capacity,
            Error::Device { .. } => ErrorKind::Device,
            Error::Diverged { .. } => ErrorKind::Diverged,
            Error::Cancelled => ErrorKind::Cancelled,
        }
    }
}
