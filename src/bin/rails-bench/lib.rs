//! The program `rails-bench` as a function: `main.rs` calls it, and so does the Python package, whose wheel has the program
//! without a second copy of everything.

mod arguments;
mod bench;
mod convert;
mod demo;
mod devices;
mod eval;
mod eval_run;
mod exit_code;
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
mod reproduce;
mod search;
mod searcher;
mod train;
#[cfg(feature = "gpu")]
mod tune;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use exit_code::ExitCode;
use log::{LevelFilter, Log};
use rails_wgpu::{Error, ErrorKind, Result};

/// Retrieval with learned similarities (Mixture-of-Logits) on any GPU and on plain CPUs.
#[derive(Parser)]
#[command(name = "rails-bench", version, about, long_about = None, arg_required_else_help = true)]
struct Cli {
    /// CPU threads [default: as many as the machine has]
    #[arg(long, global = true, display_order = 900, value_name = "N", env = "RAILS_THREADS",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    threads: Option<usize>,
    /// Print results and errors only: no progress, notes and warnings
    #[arg(long, short, global = true, display_order = 901)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Evaluate the built-in small model on its built-in data: no download, no GPU needed
    Demo(demo::DemoArgs),
    /// List every device with its driver, features and limits, and say which one `auto` takes
    Devices(devices::DevicesArgs),
    /// Turn raw data, public or your own, into the sequence CSV that the other commands read, and the item list
    Preprocess(preprocess::PreprocessArgs),
    /// Turn a checkpoint and its config into one self-contained .safetensors file
    Convert(convert::ConvertArgs),
    /// Train a model on a data set, from fresh weights to a file that `eval` and `index build` read
    Train(train::TrainArgs),
    /// Train and evaluate every model of a published table, and print it beside that table
    Reproduce(reproduce::ReproduceArgs),
    /// Build, change, describe and check an index that is stored in a folder
    Index(index::IndexArgs),
    /// Print the retrieval quality of a checkpoint on a data set: HR, NDCG, MRR, queries per second
    Eval(eval::EvalArgs),
    /// Print the quality of any results (a TREC run) by judgments of relevance (qrels): NDCG, recall, precision, HR, MRR
    EvalRun(eval_run::EvalRunArgs),
    /// Measure recall against exact search and latency of retrieval algorithms, side by side
    Bench(bench::BenchArgs),
    /// Print the recommendations for one user
    Search(search::SearchArgs),
    /// Print completions for a shell: `rails-bench completions bash > ~/.local/share/bash-completion/completions/rails-bench`
    Completions(manual::CompletionsArgs),
    /// Print a manual page: `rails-bench man > rails-bench.1`, or one for each command into a folder
    Man(manual::ManArgs),
}

/// Runs the program with its arguments, of which the first one is its name; `log_to` installs where the log goes, up to a
/// level. Returns the exit code; after `--help` and wrong arguments, the process ends here.
pub fn run(args: impl IntoIterator<Item = OsString>, log_to: impl FnOnce(Box<dyn Log>, LevelFilter)) -> u8 {
    let matches = Cli::command().get_matches_from(arguments::keep(args));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let said = if cli.quiet { "error" } else { "warn,wgpu_hal=error,wgpu_core=error" };
    let environment = env_logger::Env::default().default_filter_or(said);
    let logger = env_logger::Builder::from_env(environment).format_timestamp(None).build();
    let most = logger.filter();
    log_to(Box::new(logger), most);
    if cli.quiet {
        progress::set_quiet();
    }
    // Paths are checked before anything is written.
    let ran = paths::check_all(&matches).and_then(|()| start_threads(cli.threads)).and_then(|()| execute(&cli.command));
    match ran {
        Ok(code) => code.0,
        Err(error) => {
            eprintln!("error: {error}");
            match error.kind() {
                ErrorKind::Cancelled => ExitCode::INTERRUPTED.0,
                _ => ExitCode::FAILURE.0,
            }
        }
    }
}

fn start_threads(wanted: Option<usize>) -> Result<()> {
    let Some(n) = wanted else { return Ok(()) };
    let refused = |error| Error::argument("threads", "as many threads as the system allows", format!("{n}: {error}"));
    rayon::ThreadPoolBuilder::new().num_threads(n).build_global().map_err(refused)
}

fn execute(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => return demo::run(args),
        Command::Devices(args) => devices::run(args)?,
        Command::Preprocess(args) => preprocess::run(args)?,
        Command::Convert(args) => convert::run(args)?,
        Command::Train(args) => return train::run(args),
        Command::Reproduce(args) => return reproduce::run(args),
        Command::Index(args) => return index::run(args),
        Command::Eval(args) => return eval::run(args),
        Command::EvalRun(args) => eval_run::run(args)?,
        Command::Bench(args) => return bench::run(args),
        Command::Search(args) => search::run(args)?,
        Command::Completions(args) => manual::completions(args, Cli::command())?,
        Command::Man(args) => manual::man(args, Cli::command())?,
    }
    Ok(ExitCode::SUCCESS)
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
