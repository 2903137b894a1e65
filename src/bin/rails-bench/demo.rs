//! `rails-bench demo`.

#[path = "../../../assets/demo.rs"]
mod assets;

use std::ops::ControlFlow;
use std::time::Instant;

use clap::Args;
use rails_wgpu::backend::select;
use rails_wgpu::index::RowIds;
use rails_wgpu::search::{Algorithm, HistoryEncoder, Searcher, SearcherBuilder};
use rails_wgpu::{Cancel, Result};

use crate::eval::{RunArgs, evaluate, print};
use crate::exit_code::ExitCode;
use crate::interrupt;
use crate::json_output::JsonOutput;
use crate::measure::{Bencher, QuerySet, Rules, Truth};
use crate::options::DeviceArgs;
use crate::output::outln;
use crate::progress::{self, Bar};
use crate::report::{Machine, SpeedReport, SpeedRow, now};
use crate::searcher::{self, learn};
use assets::Demo;

/// Where the items come from, in the reports.
const ITEM_SOURCE: &str = "the demo";
/// What is compared on the large library.
const ALGORITHMS: &str = "exact,avg:1000,tangent:300,tangent:1000,distilled:100";
/// Items per result there.
const K: usize = 10;
const BATCH_SIZE: usize = 32;

/// Items of the second table; fewer where the program was built without optimisation.
const ITEMS: usize = if cfg!(debug_assertions) { 5_000 } else { 50_000 };

const NOTE: &str = "\
This model is tiny. With a larger one tangent:1000 found 99 % of the exact top 100, eight
times as fast: docs/BENCHMARKS.md. `rails-bench bench` measures your own model like this.";

#[derive(Args)]
pub struct DemoArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Items searched for the second table, most of them synthetic; 0: no second table
    #[arg(long, value_name = "N", default_value_t = ITEMS)]
    items: usize,
}

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let demo = Demo::load()?;
    let json = args.run.open_json()?;
    let is_printed = !matches!(json, Some(JsonOutput::Stdout));
    let cancel = interrupt::cancel_measuring();
    let searcher = searcher::build(&demo.model, &demo.item_ids, &args.device, &args.run.algorithm, None)?;
    let quality = evaluate(&searcher, &demo.dataset.sequences, ITEM_SOURCE, (&args.run, &[]), &cancel)?;
    if is_printed {
        print(&quality)?;
    }
    let mut report = quality.json();
    let mut interrupted = quality.run.interrupted;
    if args.items > 0 && !interrupted {
        let large = compare(&demo, args, &cancel)?;
        interrupted = large.interrupted;
        if is_printed && !large.rows.is_empty() {
            outln!("\nApproximate search: the same users, {} items, most of them synthetic, k = {K}:\n", large.items)?;
            large.table().print()?;
            large.legend().map_or(Ok(()), |legend| outln!("{legend}"))?;
            outln!("\n{NOTE}")?;
        }
        report["large"] = large.json();
    }
    if let Some(output) = json {
        output.write(&format!("{report:#}\n"))?;
    }
    Ok(ExitCode::of_interrupted(interrupted))
}

/// What approximate search gains on a library that is large enough.
fn compare(demo: &Demo, args: &DemoArgs, cancel: &Cancel) -> Result<SpeedReport> {
    let backend = select::open(&args.device.device)?;
    let (model, dtype) = (&demo.model, args.device.dtype());
    let flow = || if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let mut report = SpeedReport {
        model: model.config.summary(),
        machine: Machine::here(),
        date: now(),
        devices: vec![(backend.info().name.clone(), backend.info().driver.clone())],
        command: "rails-bench demo".to_string(),
        users: demo.dataset.sequences.len(),
        skipped_users: 0,
        items: args.items,
        item_source: ITEM_SOURCE.to_string(),
        rules: Rules::Strict,
        interrupted: true,
        rows: Vec::new(),
    };
    let encoder = HistoryEncoder::new(backend.as_ref(), model)?;
    let encoded =
        QuerySet::encode(&encoder, &demo.dataset.sequences, Rules::Strict, &RowIds::default(), &mut |_| flow())?;
    let Some(queries) = encoded.map(QuerySet::without_targets) else { return Ok(report) };
    let started = Instant::now();
    let searcher = progress::stage(&format!("indexing {} items", args.items), || {
        let (ids, embeddings) = demo.library(args.items)?;
        let builder = Searcher::builder().embeddings(&ids, &embeddings).backend(backend.clone()).dtype(dtype);
        model.mol.iter().fold(builder, SearcherBuilder::mol).build()
    })?;
    learn(searcher.index(), &queries.spread(queries.len()), cancel)?;
    let build = started.elapsed();
    let algorithms: Vec<Algorithm> = ALGORITHMS.split(',').map(str::parse).collect::<Result<_>>()?;
    let k = K.min(args.items);
    let bar: Bar = progress::bar(queries.len() as u64, "users compared", "computing recall");
    let Some(truth) = Truth::compute(&searcher, &queries, Rules::Strict, k, &mut |_| flow())? else {
        return Ok(report);
    };
    let bencher = Bencher {
        searcher: &searcher,
        queries: &queries,
        truth: &truth,
        expected: None,
        rules: Rules::Strict,
        count_absent_targets: true,
        k,
        batch_size: BATCH_SIZE,
        warm_up: 1,
        runs: 3,
        timed_every: 1,
    };
    let mut answered = 0;
    let measurements = bencher.run(&algorithms, &mut |n| {
        answered += n;
        bar.set((answered / bencher.runs) as u64);
        flow()
    })?;
    report.interrupted = flow().is_break();
    report.rows = measurements
        .into_iter()
        .map(|measurement| SpeedRow {
            device: backend.info().name.clone(),
            dtype: dtype.to_string(),
            items: args.items,
            batch: BATCH_SIZE,
            k,
            bytes_per_item: searcher.index().bytes() as f64 / args.items as f64,
            build,
            measurement,
        })
        .collect();
    Ok(report)
}
