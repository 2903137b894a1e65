//! A training run as one self-contained page: curves of losses and metrics, and the table of epochs.

use std::path::Path;

use rails_wgpu::train::{DataSource, EpochRecord, EvaluationRecord, RunConfig};

use super::Machine;
use super::html::document;
use super::line_chart::{Line, LineChart};
use super::svg::escaped;
use crate::output::counted;

/// Where the items of a run come from, in short.
pub fn item_source(source: &DataSource) -> String {
    source.item_ids.as_deref().map_or("1 up to the largest id".to_string(), file_name)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The page; `command` is what made it.
pub fn training_page(
    config: &RunConfig,
    records: &[EpochRecord],
    best: Option<&EpochRecord>,
    test: Option<&EvaluationRecord>,
    command: &str,
) -> String {
    let mut facts = String::new();
    let mut fact =
        |name: &str, value: String| facts.push_str(&format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(&value)));
    fact("model", config.model.summary());
    fact("machine", Machine::here().to_string());
    let data = &config.data;
    let (users, items) = (counted(data.users, "user"), counted(data.items, "item"));
    fact("data", format!("{}: {users}, {items} from {}", file_name(&data.source.dataset), item_source(&data.source)));
    fact("split", format!("{}, which also chooses the best model, by {}", config.split, config.metric));
    if let Some((epoch, evaluation)) = best.and_then(|best| Some((best.epoch, best.evaluation.as_ref()?))) {
        fact("best epoch", format!("{epoch}: {} split: {}", evaluation.split, values(evaluation)));
    }
    if let Some(test) = test {
        fact("its test", format!("{} split: {}", test.split, values(test)));
    }
    facts.push_str(&format!("<dt>command</dt><dd><code>{}</code></dd>\n", escaped(command)));
    let charts: String = [losses(records), metrics(config, records, best)]
        .iter()
        .map(|chart| format!("<figure>\n{}</figure>\n", chart.svg()))
        .collect();
    let content = format!(
        "<h1>Training</h1>\n<dl>\n{facts}</dl>\n<div class=\"charts\">\n{charts}</div>\n<div class=\"scroll wide\">\n{}</div>\n",
        table(records)
    );
    document("rails-bench: training", &content)
}

fn values(evaluation: &EvaluationRecord) -> String {
    let values = evaluation.values();
    values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect::<Vec<_>>().join(", ")
}

fn line(name: &str, style: usize, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.to_string(), style, points }
}

fn losses(records: &[EpochRecord]) -> LineChart {
    let of = |value: fn(&EpochRecord) -> f64| records.iter().map(|record| (record.epoch, value(record))).collect();
    LineChart {
        title: "Losses by epoch".to_string(),
        x_title: "epoch".to_string(),
        y_title: "mean over steps".to_string(),
        lines: vec![
            line("all, weighted", 0, of(|record| record.losses.total)),
            line("softmax", 1, of(|record| record.losses.softmax)),
        ],
        marker: None,
    }
}

fn metrics(config: &RunConfig, records: &[EpochRecord], best: Option<&EpochRecord>) -> LineChart {
    let full = || {
        let evaluated = records.iter().filter_map(|record| Some((record.epoch, record.evaluation.as_ref()?)));
        evaluated.filter(|(_, evaluation)| evaluation.is_full)
    };
    let of = |name: &str| {
        let value = |evaluation: &EvaluationRecord| evaluation.values().into_iter().find(|(found, _)| found == name);
        full().filter_map(|(epoch, evaluation)| Some((epoch, value(evaluation)?.1))).collect()
    };
    let names = ["HR@10", "NDCG@10", "MRR"];
    LineChart {
        title: format!("Quality by epoch, {} split", config.split),
        x_title: "epoch".to_string(),
        y_title: "all users".to_string(),
        lines: names.iter().enumerate().map(|(style, name)| line(name, style, of(name))).collect(),
        marker: best.map(|best| (best.epoch, format!("best {}", config.metric))),
    }
}

fn table(records: &[EpochRecord]) -> String {
    let metrics: Vec<String> = records
        .iter()
        .find_map(|record| record.evaluation.as_ref())
        .map_or(Vec::new(), |evaluation| evaluation.values().into_iter().map(|(name, _)| name).collect());
    let names = ["epoch", "step", "loss", "positions/s", "users"].map(str::to_string);
    let header: String = names
        .iter()
        .chain(&metrics)
        .map(|name| format!("<th><button type=\"button\">{}</button></th>", escaped(name)))
        .collect();
    let rows: String = records
        .iter()
        .map(|record| {
            let mut cells = vec![
                format!("{:.2}", record.epoch),
                record.step.to_string(),
                format!("{:.4}", record.losses.total),
                format!("{:.0}", record.positions_per_second),
            ];
            if let Some(evaluation) = &record.evaluation {
                cells.push(evaluation.users.to_string());
                cells.extend(evaluation.values().into_iter().map(|(_, value)| format!("{value:.4}")));
            }
            let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        })
        .collect();
    format!("<table>\n<thead>\n<tr>{header}</tr>\n</thead>\n<tbody class=\"rows\">\n{rows}</tbody>\n</table>\n")
}
