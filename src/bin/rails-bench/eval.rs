//! `rails-bench eval`.

use crate::report::{QualityReport, RunInfo};
use clap::Args;
use rails_wgpu::backend::Similarity;
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::{Evaluator, Protocol};
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::{Error, Result};

use crate::json_output::JsonOutput;
use crate::model_files::{load_dataset, warn_of_absent, with_history_and_target};
use crate::options::{DataArgs, DeviceArgs, ModelArgs, StoredIndexArgs};
use crate::output::{out, outln};
use crate::paths::Output;
use crate::progress;
use crate::searched::{Searched, some_queries};

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    stored: StoredIndexArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Evaluate only the first N users, in file order
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// How to evaluate.
#[derive(Args)]
pub struct RunArgs {
    #[arg(long, default_value = "exact", value_delimiter = ',', help = format!(
        "Algorithms, separated by commas: {}", Algorithm::SYNTAX
    ))]
    pub algorithm: Vec<Algorithm>,
    /// Items per result; metrics beyond this many are not reported [default: 200, or the number of items]
    #[arg(long)]
    pub k: Option<usize>,
    /// Users per batch
    #[arg(long, default_value_t = 128, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub batch_size: usize,
    /// `strict`: seen items are excluded inside the search; `reference`: the published tables' protocol
    #[arg(long, default_value = "strict", env = "RAILS_PROTOCOL")]
    pub protocol: Protocol,
    /// Also write the results as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<Output>,
}

pub fn run(args: &EvalArgs) -> Result<()> {
    let json = args.run.open_json()?;
    let dataset = load_dataset(&args.data, args.limit)?;
    let searched = Searched::open(&args.model, &args.data, &args.stored, &args.device, &args.run.algorithm)?;
    evaluate(searched, &dataset.sequences, &args.run, json)
}

impl RunArgs {
    /// The place for JSON; fails before the work, not after it.
    pub fn open_json(&self) -> Result<Option<JsonOutput>> {
        self.json.as_deref().map(JsonOutput::open).transpose()
    }
}

/// Evaluates and prints.
pub fn evaluate(searched: Searched, sequences: &[Sequence], args: &RunArgs, json: Option<JsonOutput>) -> Result<()> {
    let dtype = searched.dtype();
    let Searched { model, index, backend } = searched;
    let (usable, skipped_users) = with_history_and_target(sequences)?;
    let n_items = index.len();
    if n_items == 0 {
        return Err(Error::argument("index", "at least one item (`rails-bench index add`)", "none"));
    }
    warn_of_absent(&usable, |id| index.contains(id.into()));
    let k = args.k.unwrap_or(200.min(n_items));
    let depth = args.protocol.depth(k, n_items)?;
    let encoder = backend.encoder(&model.encoder)?;
    let has_learned_nothing = |similarity: &Similarity| similarity.distilled.is_none();
    if args.algorithm.iter().any(|algorithm| algorithm.learns())
        && index.folder().is_none()
        && index.snapshot().similarity().is_some_and(has_learned_nothing)
    {
        index.distill(&some_queries(&model, encoder.as_ref(), &usable)?)?;
    }
    let searcher = Searcher::new(index);
    let evaluator = Evaluator {
        config: &model.config,
        n_item_rows: model.n_item_rows(),
        encoder: encoder.as_ref(),
        searcher: &searcher,
        protocol: args.protocol,
        k: depth,
        batch_size: args.batch_size,
    };
    let bar = progress::bar(usable.len() as u64, "users");
    let evaluations = evaluator.run(&args.algorithm, &usable, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let run = RunInfo {
        device: backend.info().name.clone(),
        dtype: dtype.to_string(),
        protocol: args.protocol.to_string(),
        users: usable.len(),
        skipped_users,
        items: n_items,
        k,
    };
    let report = QualityReport { run, evaluations: evaluations? };
    if !matches!(json, Some(JsonOutput::Stdout)) {
        let RunInfo { dtype, protocol, users, items, .. } = &report.run;
        outln!("model     {}", model.config.summary())?;
        outln!("device    {} ({})   dtype {dtype}", backend.info().name, backend.info().driver)?;
        outln!("data      {users} users, {items} items   protocol {protocol}\n")?;
        out!("{}", report.table())?;
    }
    json.map_or(Ok(()), |output| output.write(&format!("{:#}\n", report.json())))
}
