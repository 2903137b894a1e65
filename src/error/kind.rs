//! Kinds of errors.

/// What kind of thing went wrong, for programs that treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused to open, read or write a file.
    Io,
    /// A checkpoint is damaged, unsupported, or does not fit its configuration.
    Checkpoint,
    /// An index folder is damaged, of another version, or cannot be written.
    Index,
    /// A configuration file has a wrong line, or lacks one.
    Config,
    /// A data file has a wrong line.
    Dataset,
    /// An argument does not suit.
    Argument,
    /// There is no such device.
    NoDevice,
    /// The work does not fit the device: a limit, or its memory.
    Capacity,
    /// The device failed.
    Device,
    /// A training met numbers that are not finite.
    Diverged,
    /// The work was cancelled.
    Cancelled,
}
