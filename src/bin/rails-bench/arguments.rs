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

/// The command as it can be given again.
pub fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    let quoted = |arg: String| match !arg.is_empty() && arg.chars().all(plain) {
        true => arg,
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    };
    let args = given().iter().map(|arg| quoted(arg.to_string_lossy().into_owned()));
    std::iter::once("rails-bench".to_string()).chain(args).collect::<Vec<_>>().join(" ")
}
