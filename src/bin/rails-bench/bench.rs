//! `rails-bench bench`.

use std::path::PathBuf;

use clap::Args;
use rails_wgpu::Result;
use rails_wgpu::backend::select;
use rails_wgpu::eval::{Bencher, Protocol};
use rails_wgpu::index::ItemIndex;
use rails_wgpu::report::{RunInfo, SpeedReport};
use rails_wgpu::search::{Algorithm, Searcher};

use crate::json_output::JsonOutput;
use crate::model_files::{load_dataset, load_item_ids, load_model, with_history_and_target};
use crate::options::{DataArgs, DeviceArgs, ModelArgs};
use crate::progress;

#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Algorithms, separated by commas: exact, mips, naive:K, avg:K, comb:K_K, tangent:K
    #[arg(long, default_value = "exact,naive:50,avg:500,comb:50_500,tangent:1000", value_delimiter = ',')]
    algorithm: Vec<Algorithm>,
    /// Items per result
    #[arg(long, default_value_t = 100)]
    k: usize,
    /// Users per batch
    #[arg(long, default_value_t = 32, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    batch_size: usize,
    /// Measure with only the first N users, in file order
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Batches that every algorithm answers before times count
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// Also write the results as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: &BenchArgs) -> Result<()> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    let model = load_model(&args.model)?;
    let (users, skipped_users) = with_history_and_target(&load_dataset(&args.data, args.limit)?.sequences)?;
    let item_ids = load_item_ids(args.data.item_ids.as_deref(), &model)?;
    let k = Protocol::Strict.depth(args.k, item_ids.len())?;
    let backend = select::open(&args.device.device)?;
    let encoder = backend.encoder(&model.encoder)?;
    let searcher =
        Searcher::new(ItemIndex::from_model(backend.as_ref(), &model, &item_ids, args.device.dtype.dtype())?);
    let bencher = Bencher {
        config: &model.config,
        n_item_rows: model.n_item_rows(),
        encoder: encoder.as_ref(),
        searcher: &searcher,
        k,
        batch_size: args.batch_size,
        warm_up: args.warm_up,
    };
    let bar = progress::bar(users.len() as u64, "users");
    let measurements = bencher.run(&args.algorithm, &users, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let run = RunInfo {
        device: backend.info().name.clone(),
        dtype: args.device.dtype.name().to_string(),
        protocol: Protocol::Strict.to_string(),
        users: users.len(),
        skipped_users,
        items: item_ids.len(),
        k,
    };
    let bytes_per_item = searcher.index().bytes() as f64 / item_ids.len() as f64;
    let report = SpeedReport { run, batch: args.batch_size, bytes_per_item, measurements: measurements? };
    if !matches!(json, Some(JsonOutput::Stdout)) {
        let RunInfo { dtype, users, items, .. } = &report.run;
        println!("model     {}", model.config.summary());
        println!("device    {} ({})   dtype {dtype}", backend.info().name, backend.info().driver);
        println!(
            "data      {users} users in batches of {}, {items} items, {bytes_per_item:.0} bytes each\n",
            args.batch_size
        );
        print!("{}", report.table());
    }
    json.map_or(Ok(()), |output| output.write(&format!("{:#}\n", report.json())))
}
