//! Standard output that may be closed: whoever reads it, such as `head`, may have seen enough. That is no failure, and
//! files are still written.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

use rails_wgpu::{Error, Result};

/// Writes text.
pub fn write(text: Arguments) -> Result<()> {
    match stdout().write_fmt(text).and_then(|()| stdout().flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::io("write", Path::new("standard output"))),
    }
}

/// `print!` that returns what went wrong.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// `println!` that returns what went wrong.
macro_rules! outln {
    () => { $crate::output::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {out, outln};

/// `n` of `noun`, in the plural unless there is one: "1 batch", "2 batches", "3 epochs", "4 queries".
pub fn counted(n: usize, noun: &str) -> String {
    match (noun, noun.strip_suffix('y')) {
        _ if n == 1 => format!("{n} {noun}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        ("batch", _) => format!("{n} {noun}es"),
        _ => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_are_counted_in_english() {
        let written = ["batch", "epoch", "query"].map(|noun| [counted(1, noun), counted(2, noun)]);
        assert_eq!(written.concat(), ["1 batch", "2 batches", "1 epoch", "2 epochs", "1 query", "2 queries"]);
    }
}
