//! `rails-bench bench`.

mod grid;
mod outputs;
mod plan;
mod source;

use crate::report::{Machine, SpeedReport, now};
use clap::{Args, ValueEnum};
use rails_wgpu::search::Algorithm;
use rails_wgpu::{Dtype, Result};

use crate::arguments;
use crate::exit_code::ExitCode;
use crate::interrupt;
use crate::options::{ConditionArgs, FormArg, ImportArgs, StoredIndexArgs, algorithm_help, dtype, form};
use crate::paths::{Input, Output};
use grid::Grid;
use outputs::Outputs;
use plan::Plan;
use source::Source;

const NOTES: &str = "\
The grid is the product of all lists (devices, formats, batch sizes, N, k), with one row for each algorithm at each
point. At a point all algorithms answer each batch in turn. Recall is against exact search of the f32 index on the same
device, so it shows what f16 and int8 lose. The index learns (tangents, distilled gate) from up to 256 of the queries,
spread over the data set, without labels. HR, NDCG and MRR look for the user's next item; users whose next item is not
among the N items of a smaller index are left out of them. With --index, the stored index is measured as it is, with its
own lists and what it has learned; recall is against its own exact search. The CPU searches its memory-mapped files.
Ctrl-C ends after the current batch and keeps what was measured; files are written after each point.";

/// What to measure.
#[derive(Args)]
#[command(after_long_help = NOTES)]
pub struct BenchArgs {
    /// A similarity, items and queries in one .safetensors file, in place of a checkpoint and a data set
    #[arg(long, value_name = "FILE", required_unless_present_any = ["checkpoint", "dataset", "index"])]
    bench_file: Option<Input>,
    #[command(flatten)]
    stored: StoredIndexArgs,
    /// Trained weights: .pt, .pth or .safetensors
    #[arg(long, env = "RAILS_CHECKPOINT")]
    checkpoint: Option<Input>,
    /// Hyper-parameters (.gin); default: those inside the checkpoint, else a `config.gin` or a .gin file of the same name
    /// beside it; for a bench file without any, those of the reference's MovieLens
    /// models where the shapes do not tell
    #[arg(long, env = "RAILS_CONFIG")]
    config: Option<Input>,
    #[command(flatten)]
    import: ImportArgs,
    /// Sequences, as `rails-bench preprocess` and the reference write them
    #[arg(long, env = "RAILS_DATASET")]
    dataset: Option<Input>,
    /// Items to search: a text file with one id per line, or a CSV with a movie_id or item_id column [default: the .items.txt that
    /// `preprocess` has written beside the data set, else every row of the model's item table from 1 on]
    #[arg(long)]
    item_ids: Option<Input>,
    #[command(flatten)]
    conditions: ConditionArgs,
    /// Pass over malformed lines of the data set, and say how many
    #[arg(long)]
    skip_bad_lines: bool,
    /// Add this to every item id of the data set (1 for the reference's Amazon files, whose ids start at 0)
    #[arg(long, default_value_t = 0)]
    shift_id_by: u32,
    /// Measure with only the first N users of the data set, or queries of the bench file [default: all]
    #[arg(long, visible_alias = "queries", value_name = "N")]
    limit: Option<usize>,
    /// `auto`, `cpu`, `gpu`, or parts of devices' names (see `rails-bench devices`), separated by commas
    #[arg(long, default_value = "auto", env = "RAILS_DEVICE", value_delimiter = ',')]
    device: Vec<String>,
    /// Number formats of the item tables, separated by commas; a stored index keeps its own
    #[arg(long, env = "RAILS_DTYPE", value_delimiter = ',', value_parser = dtype())]
    dtype: Vec<Dtype>,
    /// How item components are kept
    #[arg(long, default_value = "auto", conflicts_with = "index", value_parser = form())]
    form: FormArg,
    /// Inverted lists to make for naive-ivf and tangent-ivf; 0: by the number of items
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "index")]
    lists: usize,
    #[arg(long, value_delimiter = ',', help = format!(
        "{} [default: {}]", algorithm_help("Algorithms, separated by commas: "), plan::DEFAULT
    ))]
    algorithm: Option<Vec<Algorithm>>,
    /// Queries per batch, separated by commas [default: 32]. A last batch is filled up with the first queries
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    batch_size: Option<Vec<usize>>,
    /// Numbers N of items in the index, separated by commas [default: all]. Fewer than all: the first N after a fixed
    /// shuffle; of a bench file, the first N
    #[arg(long, value_delimiter = ',', conflicts_with = "index")]
    items: Vec<usize>,
    /// Items per result, separated by commas [default: 100]
    #[arg(long, value_delimiter = ',')]
    k: Option<Vec<usize>>,
    /// Runs of the first batch by each algorithm before times count
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// Timed runs of each batch by each algorithm [default: 1; of a bench file, 20]
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    runs: Option<usize>,
    /// A ready-made grid; the other options change parts of it
    #[arg(long, conflicts_with = "condition")]
    preset: Option<Preset>,
    /// Also write the results as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
    /// Also write the results as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<Output>,
    /// Also write a page with curves of recall against latency
    #[arg(long, value_name = "FILE")]
    html: Option<Output>,
}

/// Grids by name.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// The reference's eval_batch.py: its algorithms in batches of 32 with k = 120; HR@n is the share
    /// of users whose first item of the exact list, seen ones dropped, is among the first n; times are the mean of 20 runs
    /// of every tenth batch. Rows at which the reference fails (fewer candidates than k) are measured all the same
    EvalBatch,
}

pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let outputs = Outputs::open(args)?;
    let source = Source::open(args)?;
    let plan = Plan::new(args, &source)?;
    let mut report = SpeedReport {
        model: source.summary(),
        machine: Machine::here(),
        date: now(),
        devices: plan.devices(),
        command: arguments::command_line(),
        users: source.n_queries(),
        skipped_users: source.skipped_users(),
        items: source.n_items(),
        item_source: source.item_source().to_string(),
        rules: plan.rules,
        interrupted: false,
        rows: Vec::new(),
    };
    let cancel = interrupt::cancel_measuring();
    Grid { source: &source, plan: &plan, cancel: &cancel }.run(&mut report, &outputs)?;
    outputs.finish(&report)?;
    Ok(ExitCode::of_interrupted(report.interrupted))
}
