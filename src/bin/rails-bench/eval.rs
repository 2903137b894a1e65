//! `rails-bench eval`.

use std::ops::ControlFlow;

use crate::report::{Machine, QualityReport, RunInfo};
use clap::Args;
use rails_wgpu::backend::Similarity;
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::{Evaluator, Protocol};
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::{Cancel, Condition, Error, Result};

use crate::exit_code::ExitCode;
use crate::interrupt;
use crate::json_output::JsonOutput;
use crate::model_files::{load_dataset, warn_of_absent, with_history_and_target};
use crate::options::{ConditionArgs, DataArgs, DeviceArgs, ModelArgs, StoredIndexArgs, algorithm_help};
use crate::output::out;
use crate::paths::Output;
use crate::progress::{self, note};
use crate::searcher::{self, learn, some_queries};

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    stored: StoredIndexArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Evaluate only the first N users, in file order [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// How to evaluate.
#[derive(Args)]
pub struct RunArgs {
    #[arg(long, default_value = "exact", value_delimiter = ',', help = algorithm_help("Algorithms, separated by commas: "))]
    pub algorithm: Vec<Algorithm>,
    /// Items per result; metrics beyond this many are not reported [default: 200, or the number of items]
    #[arg(long)]
    pub k: Option<usize>,
    /// Users per batch
    #[arg(long, default_value_t = 128, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub batch_size: usize,
    /// `strict`: seen items are excluded inside the search; `reference`: as in the published tables, seen items are
    /// dropped from a longer result
    #[arg(long, default_value = "strict", env = "RAILS_PROTOCOL")]
    pub protocol: Protocol,
    /// Also write the results as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<Output>,
}

pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    let json = args.run.open_json()?;
    let dataset = load_dataset(&args.data, args.limit)?;
    let EvalArgs { model, data, stored, device, run, conditions, .. } = args;
    let searcher = searcher::open(model, data, stored, device, &run.algorithm, conditions)?;
    let item_source = conditions.item_source(data.item_source(stored));
    let run = (run, conditions.conditions());
    let report = evaluate(&searcher, &dataset.sequences, &item_source, run, &interrupt::cancel_measuring())?;
    if !matches!(json, Some(JsonOutput::Stdout)) {
        print(&report)?;
    }
    if let Some(output) = json {
        output.write(&format!("{:#}\n", report.json()))?;
    }
    Ok(ExitCode::of_interrupted(report.run.interrupted))
}

/// The table, and under which conditions it holds.
pub fn print(report: &QualityReport) -> Result<()> {
    out!("{}\n", report.conditions())?;
    report.table().print()?;
    if report.run.interrupted {
        note!("ended early: only the first {} users were evaluated", report.run.users);
    }
    Ok(())
}

impl RunArgs {
    /// The place for JSON; fails before the work, not after it.
    pub fn open_json(&self) -> Result<Option<JsonOutput>> {
        self.json.as_deref().map(JsonOutput::open).transpose()
    }
}

/// How many candidates `algorithm` aims at, where that is one number.
fn first_candidates(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Avg { candidates }
        | Algorithm::HIndexer { candidates }
        | Algorithm::Tangent { candidates }
        | Algorithm::TangentSampled { candidates }
        | Algorithm::TangentIvf { candidates, .. }
        | Algorithm::Distilled { candidates } => candidates,
        _ => usize::MAX,
    }
}

/// Evaluates, under a condition if there is one, until all users are done, or that is cancelled; `item_source` says where the items
/// come from.
pub fn evaluate(
    searcher: &Searcher,
    sequences: &[Sequence],
    item_source: &str,
    (args, conditions): (&RunArgs, &[Condition]),
    cancel: &Cancel,
) -> Result<QualityReport> {
    let index = searcher.index();
    let (usable, skipped_users) = with_history_and_target(sequences)?;
    let n_items = index.len();
    if n_items == 0 {
        return Err(Error::argument("index", "at least one item (`rails-bench index add`)", "none"));
    }
    let rows = index.row_ids()?;
    match conditions {
        [] => warn_of_absent(&usable, |row| index.contains(rows.id(row))),
        [condition, ..] => {
            let matching = index.matching_ids(condition)?;
            note!("{} of {n_items} items meet the condition", matching.len());
            warn_of_absent(&usable, |row| matching.binary_search(&rows.id(row)).is_ok());
        }
    }
    let k = args.k.unwrap_or(200).min(n_items);
    if let Some(asked) = args.k.filter(|asked| *asked > n_items) {
        note!("note: --k {asked}: there are {n_items} items, so results have {n_items}");
    }
    let depth = args.protocol.depth(k, n_items)?;
    for algorithm in args.algorithm.iter().filter(|algorithm| first_candidates(**algorithm) < depth) {
        note!(
            "note: {algorithm} aims at fewer candidates than the {depth} items of a result: it is given more until there are enough"
        );
    }
    let encoder = searcher.encoder()?;
    let has_learned_nothing = |similarity: &Similarity| similarity.distilled.is_none();
    if args.algorithm.iter().any(|algorithm| algorithm.learns())
        && index.folder().is_none()
        && index.snapshot().similarity().is_some_and(has_learned_nothing)
    {
        learn(index, &some_queries(encoder, &usable)?, cancel)?;
    }
    let evaluator = Evaluator { searcher, conditions, protocol: args.protocol, k: depth, batch_size: args.batch_size };
    log::info!("evaluating {} users in batches of {}", usable.len(), args.batch_size);
    let bar = progress::bar(usable.len() as u64, "users", "computing metrics");
    let evaluations = evaluator.run(&args.algorithm, &usable, |done| {
        bar.set(done as u64);
        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(bar);
    let evaluations = evaluations?;
    let users = evaluations.first().map_or(0, |evaluation| evaluation.quality.len());
    let (device, driver) = searcher::device(searcher);
    let run = RunInfo {
        model: encoder.config().summary(),
        machine: Machine::here(),
        device,
        driver,
        dtype: index.dtype().to_string(),
        protocol: args.protocol.to_string(),
        users,
        skipped_users,
        interrupted: users < usable.len(),
        items: n_items,
        item_source: item_source.to_string(),
        k,
    };
    Ok(QualityReport { run, evaluations })
}
