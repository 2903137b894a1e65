//! `rails-bench`: retrieval quality and speed of learned similarities, from the command line.

mod bench;
mod convert;
mod demo;
mod devices;
mod eval;
mod index;
mod interrupt;
mod json_output;
mod manual;
mod measure;
mod model_files;
mod named;
mod options;
mod output;
mod paths;
mod preprocess;
mod progress;
mod report;
mod search;
mod searched;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Retrieval with learned similarities (Mixture-of-Logits) on any GPU and on plain CPUs.
#[derive(Parser)]
#[command(version, about, long_about = None, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Evaluate the built-in small model on its built-in data: no download, no GPU needed
    Demo(demo::DemoArgs),
    /// List every device with its driver, features and limits, and say which one `auto` takes
    Devices,
    /// Turn raw public data files into the sequence CSV that `eval` reads, and the item list
    Preprocess(preprocess::PreprocessArgs),
    /// Turn a checkpoint and its config into one self-contained .safetensors file
    Convert(convert::ConvertArgs),
    /// Build, change, describe and check an index that is stored in a folder
    Index(index::IndexArgs),
    /// Print the retrieval quality of a checkpoint on a data set: HR, NDCG, MRR, queries per second
    Eval(eval::EvalArgs),
    /// Measure recall against exact search and latency of retrieval algorithms, side by side
    Bench(bench::BenchArgs),
    /// Print the recommendations for one user
    Search(search::SearchArgs),
    /// Print completions for a shell: `rails-bench completions bash > ~/.local/share/bash-completion/completions/rails-bench`
    Completions(manual::CompletionsArgs),
    /// Print a manual page: `rails-bench man > rails-bench.1`, or one for each command into a folder
    Man(manual::ManArgs),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu_hal=error,wgpu_core=error"))
        .format_timestamp(None)
        .init();
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // Before anything is written.
    if let Err(error) = paths::check_all(&matches) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Devices => devices::run(),
        Command::Preprocess(args) => preprocess::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Index(args) => match index::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => match bench::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Search(args) => search::run(&args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;
    use std::path::PathBuf;

    use super::*;

    /// [`paths::check_all`] knows what is read and what is written by the types of arguments.
    fn assert_paths_are_known(command: &clap::Command) {
        for argument in command.get_arguments() {
            let parsed = argument.get_value_parser().type_id();
            let (command, id) = (command.get_name(), argument.get_id());
            assert!(parsed != TypeId::of::<PathBuf>(), "{command} {id}: neither `Input` nor `Output`");
        }
        command.get_subcommands().for_each(assert_paths_are_known);
    }

    #[test]
    fn every_path_is_an_input_or_an_output() {
        assert_paths_are_known(&Cli::command());
    }
}
