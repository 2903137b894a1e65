//! `rails-bench index`.

mod build;
mod change;
mod info;
mod items;
mod search;

use clap::{Args, Subcommand};
use rails_wgpu::Result;

use crate::exit_code::ExitCode;

/// What to do with an index.
#[derive(Args)]
pub struct IndexArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Index items and store the index, with the model or the similarity, in a new folder
    Build(build::BuildArgs),
    /// Print what an index holds
    Info(info::InfoArgs),
    /// Read every byte of an index and list all damage; exit code 1 if there is any
    Verify(info::VerifyArgs),
    /// Search for query embeddings of a file, and write the results as a TREC run
    Search(search::SearchArgs),
    /// Add items, or replace those that are there
    Add(change::AddArgs),
    /// Remove items
    Remove(change::RemoveArgs),
    /// Rewrite an index without deleted items and with as few segments as may be
    Compact(change::CompactArgs),
}

pub fn run(args: &IndexArgs) -> Result<ExitCode> {
    match &args.command {
        Command::Build(args) => build::run(args)?,
        Command::Info(args) => info::run(args)?,
        Command::Verify(args) => return info::verify(args),
        Command::Search(args) => search::run(args)?,
        Command::Add(args) => change::add(args)?,
        Command::Remove(args) => change::remove(args)?,
        Command::Compact(args) => change::compact(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
