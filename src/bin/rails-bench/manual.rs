//! `rails-bench completions` and `rails-bench man`: what shells and manuals want to know of the program.

use std::path::Path;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use rails_wgpu::{Error, Result};

use crate::output::out;
use crate::paths::Output;

#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Args)]
pub struct ManArgs {
    /// Write one page for the program and for each of its commands into this folder, which must exist
    #[arg(long, value_name = "FOLDER")]
    folder: Option<Output>,
}

/// Prints the completions of `program` for a shell.
///
/// # Errors
/// If they cannot be written.
pub fn completions(args: &CompletionsArgs, mut program: Command) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut program, "rails-bench", &mut text);
    out!("{}", String::from_utf8_lossy(&text))
}

/// Prints the manual page of `program`, or writes one for each of its commands.
///
/// # Errors
/// If a page cannot be written.
pub fn man(args: &ManArgs, program: Command) -> Result<()> {
    match &args.folder {
        Some(folder) => clap_mangen::generate_to(program, folder).map_err(Error::io("write", folder)),
        None => {
            let mut text = Vec::new();
            Man::new(program).render(&mut text).map_err(Error::io("write", Path::new("standard output")))?;
            out!("{}", String::from_utf8_lossy(&text))
        }
    }
}
