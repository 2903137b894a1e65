//! `rails-bench eval`.

use std::path::PathBuf;

use clap::Args;
use rails_wgpu::Result;
use rails_wgpu::backend::{QueryBatch, QueryEncoder, select};
use rails_wgpu::dataset::Sequence;
use rails_wgpu::eval::{Evaluator, Protocol, history_of};
use rails_wgpu::index::{IndexOptions, ItemIndex};
use rails_wgpu::model::Model;
use rails_wgpu::report::{QualityReport, RunInfo};
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::sequence::{History, SequenceBatch};

use crate::json_output::JsonOutput;
use crate::model_files::{load_dataset, load_item_ids, load_model, with_history_and_target};
use crate::options::{DataArgs, DeviceArgs, ModelArgs};
use crate::progress;

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
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
    /// Algorithms, separated by commas: exact, mips, naive:K, avg:K, comb:K_K, tangent:K
    #[arg(long, default_value = "exact", value_delimiter = ',')]
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
    pub json: Option<PathBuf>,
}

pub fn run(args: &EvalArgs) -> Result<()> {
    let model = load_model(&args.model)?;
    let dataset = load_dataset(&args.data, args.limit)?;
    let item_ids = load_item_ids(args.data.item_ids.as_deref(), &model)?;
    evaluate(&model, &item_ids, &dataset.sequences, &args.device, &args.run)
}

/// Evaluates and prints.
pub fn evaluate(
    model: &Model,
    item_ids: &[u32],
    sequences: &[Sequence],
    device: &DeviceArgs,
    args: &RunArgs,
) -> Result<()> {
    // Fails before the work, not after it.
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    let (usable, skipped_users) = with_history_and_target(sequences)?;
    let k = args.k.unwrap_or(200.min(item_ids.len()));
    let depth = args.protocol.depth(k, item_ids.len())?;
    let backend = select::open(&device.device)?;
    let encoder = backend.encoder(&model.encoder)?;
    let options = IndexOptions::from(device.dtype.dtype()).with_lists_for(&args.algorithm, 0);
    let index = ItemIndex::from_model(backend.as_ref(), model, item_ids, options)?;
    if args.algorithm.iter().any(|algorithm| algorithm.needs_distilled()) {
        index.distill(&some_queries(model, encoder.as_ref(), &usable)?)?;
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
        dtype: device.dtype.name().to_string(),
        protocol: args.protocol.to_string(),
        users: usable.len(),
        skipped_users,
        items: item_ids.len(),
        k,
    };
    let report = QualityReport { run, evaluations: evaluations? };
    if !matches!(json, Some(JsonOutput::Stdout)) {
        let RunInfo { dtype, protocol, users, items, .. } = &report.run;
        println!("model     {}", model.config.summary());
        println!("device    {} ({})   dtype {dtype}", backend.info().name, backend.info().driver);
        println!("data      {users} users, {items} items   protocol {protocol}\n");
        print!("{}", report.table());
    }
    json.map_or(Ok(()), |output| output.write(&format!("{:#}\n", report.json())))
}

/// Queries of up to 256 users from all over the data set, for a distilled gate to learn from.
fn some_queries(model: &Model, encoder: &dyn QueryEncoder, users: &[Sequence]) -> Result<QueryBatch> {
    let n = users.len().min(256);
    let histories: Vec<History> = (0..n).map(|i| history_of(&users[i * users.len() / n])).collect();
    let batch = SequenceBatch::new(&histories, &model.config, model.n_item_rows())?;
    Ok(QueryBatch { embeddings: encoder.encode(&batch)?, user_ids: batch.user_ids })
}
