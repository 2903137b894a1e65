//! How the program ended.

/// The exit code, as shells have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    pub const SUCCESS: ExitCode = ExitCode(0);
    pub const FAILURE: ExitCode = ExitCode(1);
    /// Ended by Ctrl-C.
    pub const INTERRUPTED: ExitCode = ExitCode(130);

    /// The end of a command that keeps what it has done until Ctrl-C.
    pub fn of_interrupted(interrupted: bool) -> ExitCode {
        if interrupted { ExitCode::INTERRUPTED } else { ExitCode::SUCCESS }
    }
}
