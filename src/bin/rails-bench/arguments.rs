//! What the program was called with.

use std::ffi::OsString;
use std::sync::OnceLock;

static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Keeps the arguments, of which the first one is the name of the program.
pub fn keep(arguments: impl IntoIterator<Item = OsString>) -> &'static [OsString] {
    ARGUMENTS.get_or_init(|| arguments.into_iter().collect())
}

/// Those that were kept, without the name of the program.
pub fn given() -> &'static [OsString] {
    ARGUMENTS.get().and_then(|all| all.get(1..)).unwrap_or_default()
}
