//! `rails-bench index search`.

use std::collections::HashSet;

use clap::Args;
use rails_wgpu::dataset::{TREC_RUN_NAME, TrecRun, check_trec_name, read_string_ids};
use rails_wgpu::index::{ItemIndex, ItemSource, Items};
use rails_wgpu::search::{Algorithm, Request, Searcher};
use rails_wgpu::{Condition, Error, QueryBatch, Result, atomic};

use super::items;
use crate::output::{counted, outln};
use crate::paths::{Input, Output};
use crate::progress;

/// Queries that are searched together.
const BATCH: usize = 128;

#[derive(Args)]
pub struct SearchArgs {
    /// The folder of the index
    index: Input,
    /// Query embeddings: a .safetensors file with `ids` (B) and `embeddings` (B, D), or a .npy file with embeddings (B, D), whose
    /// ids are in a file `*.ids.npy` beside it or 0 to B - 1; for an index of given components embeddings (B, P_Q, D_P); for one
    /// of token embeddings a file as for `index build --token-embeddings`, with B queries in place of N items
    #[arg(long, value_name = "FILE")]
    queries: Input,
    /// For an index of component embeddings: --queries are token embeddings, of which this token pooling makes components
    #[arg(long, value_name = "FILE")]
    pooling: Option<Input>,
    /// Names of the queries in the run: a text file with one a line, in their order [default: their ids]
    #[arg(long, value_name = "FILE")]
    query_ids: Option<Input>,
    /// Results per query
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    k: usize,
    #[arg(long, default_value = "exact", help = crate::options::algorithm_help(""))]
    algorithm: Algorithm,
    /// Find only items whose attributes meet this SQL expression, such as "year >= 1990 AND genre = 'Comedy'"
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<Condition>,
    /// Device: `auto`, `cpu`, `gpu`, or part of a device's name, API and driver (see `rails-bench devices`)
    #[arg(long, default_value = "auto", env = "RAILS_DEVICE")]
    device: String,
    /// The TREC run to write: lines `query Q0 item rank score name`, for `rails-bench eval-run`, trec_eval and others
    #[arg(short, long)]
    output: Output,
    /// Name of the run, the last field of each line
    #[arg(long, default_value = TREC_RUN_NAME, value_name = "NAME")]
    run_name: String,
}

pub fn run(args: &SearchArgs) -> Result<()> {
    atomic::check(&args.output)?;
    let of_tokens = ItemIndex::info(&args.index)?.token_embeddings;
    items::check_pooling(args.pooling.as_deref(), of_tokens)?;
    let queries = match of_tokens || args.pooling.is_some() {
        true => items::of_tokens(&args.queries, args.pooling.as_deref(), &args.device)?,
        false => ItemSource::of_file(&args.queries)?,
    };
    let names = args.query_ids.as_deref().map(read_string_ids).transpose()?.unwrap_or_default();
    if args.query_ids.is_some() && names.len() != queries.len() {
        return Err(Error::argument("query-ids", format!("{}, one per query", queries.len()), names.len()));
    }
    // Before the work and not after it.
    check_trec_name("run", &args.run_name)?;
    let mut seen = HashSet::new();
    for name in &names {
        check_trec_name("query", name)?;
        if !seen.insert(name) {
            return Err(Error::argument("query-ids", "each name once", format!("`{name}` twice")));
        }
    }
    let searcher = Searcher::builder().folder(&*args.index).device(&args.device).build()?;
    let bar = progress::bar(queries.len() as u64, "queries", "writing the run");
    let (mut run, mut names, mut seen_ids) = (TrecRun::new(), names.into_iter(), HashSet::new());
    for chunk in queries.into_chunks() {
        let Items { ids, embeddings, token_embeddings, .. } = chunk?;
        if let (None, Some(id)) = (&args.query_ids, ids.iter().find(|id| !seen_ids.insert(**id))) {
            return Err(Error::argument("queries", "each id once", format!("id {id} twice")));
        }
        let rows: Vec<usize> = (0..ids.len()).collect();
        for rows in rows.chunks(BATCH) {
            let batch = match &token_embeddings {
                Some(tokens) => QueryBatch::of_tokens(tokens.select(rows)),
                None => QueryBatch::new(embeddings.select_rows(rows)),
            };
            let request = Request::new(args.algorithm, args.k).with_conditions(args.condition.as_slice());
            let answer = searcher.answer(&batch, &request)?;
            for (query, (&row, hits)) in rows.iter().zip(&answer.hits).enumerate() {
                let name = names.next().unwrap_or_else(|| ids[row].to_string());
                for (rank, hit) in hits.iter().enumerate() {
                    let string = answer.string_ids.get(query).map(|ids| ids[rank].clone());
                    run.add(&name, &string.unwrap_or_else(|| hit.id.to_string()), hit.score)?;
                }
            }
            bar.add(rows.len() as u64);
        }
    }
    drop(bar);
    let n = run.queries().count();
    if n == 0 {
        let item = if args.condition.is_some() { "item that meets the condition" } else { "item in the index" };
        return Err(Error::argument("queries", format!("at least one query, and one {item}"), "no results"));
    }
    run.write(&args.output, &args.run_name)?;
    outln!("{}: results of {}", args.output.display(), counted(n, "query"))
}
