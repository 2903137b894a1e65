//! `rails-bench search`.

use std::time::Duration;

use clap::Args;
use rails_wgpu::dataset::{ItemNames, Sequence};
use rails_wgpu::index::RowIds;
use rails_wgpu::search::{Algorithm, Answer, Hit, KernelTime, Request, Searcher, Stage, Stats};
use rails_wgpu::sequence::History;
use rails_wgpu::{Error, Result};
use serde_json::{Value, json};

use crate::json_output::JsonOutput;
use crate::model_files::load_dataset;
use crate::named;
use crate::options::{ConditionArgs, DataArgs, DeviceArgs, ModelArgs, StoredIndexArgs, algorithm_help};
use crate::output::outln;
use crate::paths::{Input, Output};
use crate::progress::note;
use crate::report::Table;
use crate::searcher;

#[derive(Args)]
pub struct SearchArgs {
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
    /// The user to recommend to: a user_id of the data set; of one that `preprocess` numbered anew, the id of the raw data
    #[arg(long, allow_hyphen_values = true)]
    user: String,
    /// Number of recommendations [default: 20, or the number of items]
    #[arg(long)]
    k: Option<usize>,
    #[arg(long, default_value = "exact", help = algorithm_help(""))]
    algorithm: Algorithm,
    /// Titles: movies.dat, movies.csv, u.item, a .item file, or any CSV or TSV file with an id and a title column
    #[arg(long)]
    movies: Option<Input>,
    /// Unix time of the request [default: that of the user's last event]
    #[arg(long, allow_hyphen_values = true)]
    now: Option<i64>,
    /// Also recommend what the user has seen
    #[arg(long)]
    include_seen: bool,
    /// Also print what the search took: pairs, bytes, time by stage and, on a GPU that can tell, by kernel
    #[arg(long)]
    stats: bool,
    /// Also write the results as JSON to this file; `-`: to standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<Output>,
}

pub fn run(args: &SearchArgs) -> Result<()> {
    let json = args.json.as_deref().map(JsonOutput::open).transpose()?;
    let dataset = load_dataset(&args.data, None)?;
    let titles = named::items(&args.data, args.movies.as_deref())?;
    let user = named::user(&dataset, &args.user, &args.data.dataset)?;
    let now = args.now.unwrap_or_else(|| user.timestamps.last().copied().unwrap_or(0));
    if user.timestamps.last().is_some_and(|&last| now < last) {
        note!("warning: --now {now} is before the last event of the user");
    }
    let history = History { user_id: user.user_id, item_ids: &user.item_ids, timestamps: &user.timestamps, now };
    let algorithms = [args.algorithm];
    let searcher = searcher::open(&args.model, &args.data, &args.stored, &args.device, &algorithms, &args.conditions)?;
    let n_items = searcher.index().len();
    if n_items == 0 {
        return Err(Error::argument("index", "at least one item (`rails-bench index add`)", "none"));
    }
    let k = args.k.unwrap_or(20.min(n_items));
    let queries = searcher.encode(&[history])?;
    let rows = searcher.index().row_ids()?;
    let seen: Vec<u64> = user.item_ids.iter().map(|&row| rows.id(row)).collect();
    let excluded: &[&[u64]] = if args.include_seen { &[] } else { &[&seen] };
    let request = Request::new(args.algorithm, k).with_excluded(excluded).with_conditions(args.conditions.conditions());
    let request = request.with_profile(args.stats);
    let answer = searcher.answer(&queries, &request)?;
    let found = found(&answer, &rows, &titles);
    if !matches!(json, Some(JsonOutput::Stdout)) {
        print_history(&args.user, user, &titles)?;
        print_found(&found)?;
        if args.stats {
            print_stats(&answer)?;
        }
    }
    suggest(&searcher, args.algorithm, &answer);
    json.map_or(Ok(()), |output| output.write(&format!("{:#}\n", as_json(args, &found, &answer.stats))))
}

/// An item that was found.
struct Found {
    /// What the raw data or the index call it, or its number.
    name: String,
    is_number: bool,
    score: f32,
    title: Option<String>,
}

fn found(answer: &Answer, rows: &RowIds, titles: &ItemNames) -> Vec<Found> {
    let strings = answer.string_ids.first();
    let item = |(rank, hit): (usize, &Hit)| {
        let name = strings.map_or_else(|| titles.id(hit.id), |strings| strings[rank].clone());
        let title = rows.row(hit.id).and_then(|row| titles.title(row.into())).map(str::to_string);
        Found { is_number: name == hit.id.to_string(), name, score: hit.score, title }
    };
    answer.hits[0].iter().enumerate().map(item).collect()
}

fn print_found(found: &[Found]) -> Result<()> {
    let columns = if found.iter().any(|item| item.title.is_some()) { 4 } else { 3 };
    let mut table = Table::new(["rank", "item", "score", "title"].into_iter().take(columns));
    for (rank, Found { name, score, title, .. }) in found.iter().enumerate() {
        let cells = [(rank + 1).to_string(), name.clone(), format!("{score:.4}"), title.clone().unwrap_or_default()];
        table.row(cells.into_iter().take(columns));
    }
    table.print()
}

fn as_json(args: &SearchArgs, found: &[Found], stats: &Stats) -> Value {
    let item = |(rank, item): (usize, &Found)| {
        let number = item.name.parse::<u64>().ok().filter(|_| item.is_number);
        let name = number.map_or_else(|| json!(item.name), |number| json!(number));
        let mut fields = json!({ "rank": rank + 1, "item": name, "score": item.score });
        if let Some(title) = &item.title {
            fields["title"] = title.as_str().into();
        }
        fields
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let stages = Stage::ALL.map(|stage| (stage.to_string(), json!(ms(stats.time(stage)))));
    let Stats { pairs, pruned, candidates, bytes_read, total, .. } = *stats;
    json!({
        "user": args.user,
        "algorithm": args.algorithm.to_string(),
        "results": found.iter().enumerate().map(item).collect::<Vec<_>>(),
        "stats": {
            "pairs": pairs, "pruned": pruned, "candidates": candidates, "bytes_read": bytes_read,
            "ms": ms(total), "stages_ms": serde_json::Map::from_iter(stages),
        },
    })
}

/// Says how the search would take less, where that is known.
fn suggest(searcher: &Searcher, algorithm: Algorithm, answer: &Answer) {
    let samples = matches!(algorithm, Algorithm::Tangent { .. } | Algorithm::TangentIvf { .. });
    let snapshot = searcher.index().snapshot();
    let has_learned = snapshot.similarity().is_some_and(|similarity| similarity.distilled.is_some());
    let share = answer.stats.first_stage.as_secs_f64() / answer.stats.total.as_secs_f64().max(f64::MIN_POSITIVE);
    if samples && !has_learned && share > 0.5 {
        note!(
            "note: {:.0} % of the time went into candidates, for which {algorithm} sampled items. An index that has learned \
             from some users needs no sample: `rails-bench index build --distill DATASET -o FOLDER`, then \
             `search --index FOLDER`",
            100.0 * share
        );
    }
}

fn print_stats(answer: &Answer) -> Result<()> {
    let ms = |time: Duration| format!("{:.3}", time.as_secs_f64() * 1e3);
    let Stats { pairs, pruned, candidates, bytes_read, total, .. } = answer.stats;
    outln!("\n{pairs} pairs scored, {pruned} pruned; {candidates} candidates; {bytes_read} bytes of tables read\n")?;
    let mut stages = Table::new(["stage", "ms"]);
    for stage in Stage::ALL {
        stages.row([stage.to_string(), ms(answer.stats.time(stage))]);
    }
    stages.row(["total".to_string(), ms(total)]);
    stages.print()?;
    if answer.kernels.is_empty() {
        return Ok(());
    }
    let mut kernels = Table::new(["kernel", "stage", "dispatches", "device ms"]);
    for KernelTime { stage, kernel, dispatches, time, .. } in &answer.kernels {
        kernels.row([kernel.to_string(), stage.to_string(), dispatches.to_string(), ms(*time)]);
    }
    outln!()?;
    kernels.print()
}

fn print_history(name: &str, user: &Sequence, titles: &ItemNames) -> Result<()> {
    const SHOWN: usize = 5;
    let first = user.item_ids.len().saturating_sub(SHOWN);
    let last: Vec<String> = user.item_ids[first..]
        .iter()
        .map(|&id| format!("{} {}", titles.id(id.into()), title(titles, id.into())).trim().to_string())
        .collect();
    outln!("user {name}: {} events, the last ones: {}\n", user.item_ids.len(), last.join(", "))
}

fn title(titles: &ItemNames, id: u64) -> String {
    titles.title(id).unwrap_or_default().to_string()
}
