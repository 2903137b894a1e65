//! `rails-bench eval-run`.

use clap::Args;
use rails_wgpu::Result;
use rails_wgpu::dataset::{Qrels, TrecRun};
use rails_wgpu::eval::GradedQuality;
use rails_wgpu::metrics::Metric;
use serde_json::{Map, Value, json};

use crate::json_output::JsonOutput;
use crate::paths::{Input, Output};
use crate::progress::note;
use crate::report::Table;

const METRICS: &str = "ndcg@10,recall@10,recall@100,precision@10,hr@10,mrr@10,mrr";

#[derive(Args)]
pub struct EvalRunArgs {
    /// Judgments of relevance: lines `query 0 document grade`, as TREC's qrels
    #[arg(long)]
    qrels: Input,
    /// Results: lines `query Q0 document rank score name`, as `rails-bench index search` and other programs write them; scores
    /// say the order, not ranks
    #[arg(long)]
    run: Input,
    /// Metrics, separated by commas: ndcg@N, recall@N, precision@N, hr@N, mrr@N, mrr
    #[arg(long, default_value = METRICS, value_delimiter = ',')]
    metric: Vec<Metric>,
    /// Least grade of a relevant document; in NDCG the grades themselves are the gains
    #[arg(long, default_value_t = 1, value_name = "GRADE")]
    relevance_level: i32,
    /// Count judged queries that the run lacks as 0, as trec_eval does with -c [default: leave them out]
    #[arg(long)]
    all_judged: bool,
    /// Also write the results, with those of each query, as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
}

pub fn run(args: &EvalRunArgs) -> Result<()> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    let (qrels, run) = (Qrels::read(&args.qrels)?, TrecRun::read(&args.run)?);
    let quality = GradedQuality::new(&qrels, &run, args.relevance_level)?;
    let (missing, unjudged) = (quality.missing(), quality.unjudged());
    if missing > 0 {
        let count = if args.all_judged { "count 0" } else { "are left out; --all-judged lets them count 0" };
        note!("note: judged queries that the run lacks {count}: {missing}");
    }
    if unjudged > 0 {
        note!("note: queries of the run that were not judged are left out: {unjudged}");
    }
    if !matches!(json, Some(JsonOutput::Stdout)) {
        let mut table = Table::new(["metric", "value"]);
        for &metric in &args.metric {
            table.row([metric.to_string(), format!("{:.4}", quality.mean(metric, args.all_judged))]);
        }
        table.print()?;
    }
    json.map_or(Ok(()), |output| output.write(&format!("{:#}\n", as_json(args, &quality))))
}

fn as_json(args: &EvalRunArgs, quality: &GradedQuality) -> Value {
    let values = |value: &dyn Fn(Metric) -> f64| -> Map<String, Value> {
        args.metric.iter().map(|&metric| (metric.to_string(), value(metric).into())).collect()
    };
    let queries =
        quality.queries().map(|(query, ranking)| (query.to_string(), values(&|metric| ranking.value(metric)).into()));
    json!({
        "metrics": values(&|metric| quality.mean(metric, args.all_judged)),
        "queries": queries.collect::<Map<String, Value>>(),
        "missing_queries": quality.missing(),
        "unjudged_queries": quality.unjudged(),
    })
}
