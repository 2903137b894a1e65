//! The recall and latency table of a benchmark.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Table;
use crate::measure::{Measurement, Rules};
use rails_wgpu::search::Algorithm;

/// Cut-offs of the hit rate in JSON and CSV.
const HIT_RATE_AT: [usize; 5] = [1, 5, 10, 50, 100];

/// Everything measured so far, and under which conditions.
#[derive(Clone, Debug)]
pub struct SpeedReport {
    /// The model in words.
    pub model: String,
    /// Name and driver of each device.
    pub devices: Vec<(String, String)>,
    /// The command that measured it.
    pub command: String,
    /// Queries of the data set or bench file.
    pub users: usize,
    /// Users left out because they have fewer than two events.
    pub skipped_users: usize,
    /// Items of the data set or bench file.
    pub items: usize,
    /// What happened to seen items, and what counts as a hit.
    pub rules: Rules,
    /// Whether the run was ended early: there are fewer rows than asked for, or the last ones cover fewer queries.
    pub interrupted: bool,
    /// One row per algorithm and grid point.
    pub rows: Vec<SpeedRow>,
}

/// One algorithm at one point of the grid.
#[derive(Clone, Debug)]
pub struct SpeedRow {
    /// Name of the device.
    pub device: String,
    /// Number format of the index.
    pub dtype: String,
    /// Items in the index.
    pub items: usize,
    /// Queries per batch.
    pub batch: usize,
    /// Items per result.
    pub k: usize,
    /// Bytes of the index per item.
    pub bytes_per_item: f64,
    /// Time to build the index.
    pub build: Duration,
    /// What was measured.
    pub measurement: Measurement,
}

/// A column of the printed table: name and cell.
type Column = (&'static str, fn(&SpeedRow) -> String);

const COLUMNS: [Column; 15] = [
    ("algorithm", |row| row.measurement.algorithm.to_string()),
    ("device", |row| row.device.clone()),
    ("dtype", |row| row.dtype.clone()),
    ("items", |row| row.items.to_string()),
    ("batch", |row| row.batch.to_string()),
    ("k", |row| row.k.to_string()),
    ("recall", |row| format!("{:.4}", row.measurement.recall)),
    ("agreement", |row| cell(row.measurement.agreement)),
    ("HR@10", |row| cell(row.hit_rate(10))),
    ("NDCG@10", |row| cell(row.ndcg(10))),
    ("MRR", |row| cell(row.mrr())),
    ("scored", |row| format!("{:.0}", row.measurement.scored)),
    ("pruned", |row| cell(Some(row.measurement.pruned).filter(|&share| share > 0.0))),
    ("ms/batch p50", |row| format!("{:.2}", row.percentile_ms(0.5))),
    ("p99", |row| format!("{:.2}", row.percentile_ms(0.99))),
];

/// Columns of the grid: left out where all rows agree. The others are left out where no row has a value.
const GRID: std::ops::Range<usize> = 1..6;

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |value| format!("{value:.4}"))
}

impl SpeedRow {
    /// A percentile of the time of a batch, in milliseconds.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        1e3 * self.measurement.percentile(p).as_secs_f64()
    }

    /// The mean time of a batch, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        1e3 * self.measurement.mean().as_secs_f64()
    }

    /// The hit rate, where there are targets and `n` items.
    fn hit_rate(&self, n: usize) -> Option<f64> {
        (self.has_targets() && n <= self.k).then(|| self.measurement.quality.hit_rate(n))
    }

    fn ndcg(&self, n: usize) -> Option<f64> {
        (self.has_targets() && n <= self.k).then(|| self.measurement.quality.ndcg(n))
    }

    fn mrr(&self) -> Option<f64> {
        self.has_targets().then(|| self.measurement.quality.mrr())
    }

    fn has_targets(&self) -> bool {
        !self.measurement.quality.is_empty()
    }

    /// Whether `other` is at the same point of the grid.
    pub(super) fn shares_point(&self, other: &SpeedRow) -> bool {
        COLUMNS[GRID].iter().all(|(_, cell)| cell(self) == cell(other))
    }

    /// Every number by its name in CSV.
    fn fields(&self) -> Vec<(String, Value)> {
        let measurement = &self.measurement;
        let mut fields: Vec<(String, Value)> = [
            ("algorithm", json!(measurement.algorithm.to_string())),
            ("device", json!(self.device)),
            ("dtype", json!(self.dtype)),
            ("items", json!(self.items)),
            ("batch", json!(self.batch)),
            ("k", json!(self.k)),
            ("queries", json!(measurement.queries)),
            ("runs", json!(measurement.times.len())),
            ("recall", json!(measurement.recall)),
            ("agreement", json!(measurement.agreement)),
            ("targets", json!(measurement.quality.len())),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        fields.extend(HIT_RATE_AT.map(|n| (format!("hr@{n}"), json!(self.hit_rate(n)))));
        fields.extend(
            [
                ("ndcg@10", json!(self.ndcg(10))),
                ("mrr", json!(self.mrr())),
                ("ms_per_batch_p50", json!(self.percentile_ms(0.5))),
                ("ms_per_batch_p99", json!(self.percentile_ms(0.99))),
                ("ms_per_batch_mean", json!(self.mean_ms())),
                ("scored_per_query", json!(measurement.scored)),
                ("pruned_share", json!(measurement.pruned)),
                ("bytes_per_item", json!(self.bytes_per_item)),
                ("index_build_s", json!(self.build.as_secs_f64())),
            ]
            .map(|(name, value)| (name.to_string(), value)),
        );
        fields
    }
}

impl SpeedReport {
    /// One row per algorithm and grid point; what is the same in all rows is left to [`SpeedReport::conditions`]. The
    /// rules of `eval_batch.py` print the reference's own columns.
    pub fn table(&self) -> Table {
        match self.rules {
            Rules::Strict => self.grid_table(),
            Rules::EvalBatch { .. } => self.reference_table(),
        }
    }

    /// What holds for all rows, one condition per line.
    pub fn conditions(&self) -> String {
        let devices: Vec<String> = self.devices.iter().map(|(name, driver)| format!("{name} ({driver})")).collect();
        let values = |cell| self.distinct(cell);
        let bytes = values(|row| format!("{:.0}", row.bytes_per_item));
        let build = values(|row| format!("{:.2}", row.build.as_secs_f64()));
        format!(
            "model     {}\ndevice    {}   dtype {}\ndata      {} users in batches of {}, {} items, {bytes} bytes each, k = {}\n\
             index     built in {build} s\n",
            self.model,
            devices.join(", "),
            values(|row| row.dtype.clone()),
            self.users,
            values(|row| row.batch.to_string()),
            values(|row| row.items.to_string()),
            values(|row| row.k.to_string()),
        )
    }

    /// The different values of a column, in the order of the rows.
    fn distinct(&self, cell: fn(&SpeedRow) -> String) -> String {
        let mut seen = BTreeSet::new();
        let values = self.rows.iter().map(cell);
        values.filter(|value| seen.insert(value.clone())).collect::<Vec<_>>().join(", ")
    }

    fn grid_table(&self) -> Table {
        let (grid, values) = (self.varying(), &COLUMNS[GRID.end..]);
        let has_values = |(_, cell): &&Column| self.rows.iter().any(|row| cell(row) != "-");
        let shown: Vec<&Column> =
            COLUMNS[..GRID.start].iter().chain(grid).chain(values.iter().filter(has_values)).collect();
        let one_k = self.rows.windows(2).all(|pair| pair[0].k == pair[1].k);
        let title = |column: &&Column| match (column.0, self.rows.first()) {
            ("recall", Some(row)) if one_k => format!("recall@{}", row.k),
            (name, _) => name.to_string(),
        };
        let mut table = Table::new(shown.iter().map(title));
        for row in &self.rows {
            table.row(shown.iter().map(|(_, cell)| cell(row)));
        }
        table
    }

    /// Columns of the grid that tell rows apart.
    fn varying(&self) -> Vec<&'static Column> {
        let varies = |(_, cell): &&Column| self.rows.windows(2).any(|pair| cell(&pair[0]) != cell(&pair[1]));
        COLUMNS[GRID].iter().filter(varies).collect()
    }

    fn reference_table(&self) -> Table {
        let grid = self.varying();
        let mut header = vec!["algorithm".to_string()];
        header.extend(grid.iter().map(|(name, _)| (*name).to_string()));
        header.extend(HIT_RATE_AT.map(|n| format!("HR@{n}")));
        header.extend(["mean ms", "speedup"].map(str::to_string));
        let mut table = Table::new(header);
        for row in &self.rows {
            let mut cells = vec![reference_name(row.measurement.algorithm)];
            cells.extend(grid.iter().map(|(_, cell)| cell(row)));
            cells.extend(HIT_RATE_AT.map(|n| cell(row.hit_rate(n))));
            cells.push(format!("{:.2}", row.mean_ms()));
            cells.push(self.speedup(row).map_or("-".to_string(), |speedup| format!("{speedup:.2}x")));
            table.row(cells);
        }
        table
    }

    /// How many times faster than exact search at the same grid point, by mean times.
    fn speedup(&self, row: &SpeedRow) -> Option<f64> {
        let same_point = |other: &&SpeedRow| other.measurement.algorithm == Algorithm::Exact && other.shares_point(row);
        let exact = self.rows.iter().find(same_point)?;
        (row.mean_ms() > 0.0).then(|| exact.mean_ms() / row.mean_ms())
    }

    /// Everything as one JSON object. Where the grid has several values of a condition, the one at the top lists them, and
    /// `items` is the number that there are.
    pub fn json(&self) -> Value {
        let result = |row: &SpeedRow| {
            let mut fields: Map<String, Value> = row
                .fields()
                .into_iter()
                .map(|(name, value)| match name.as_str() {
                    "recall" => (format!("recall@{}", row.k), value),
                    _ => (name, value),
                })
                .collect();
            fields.insert("speedup".to_string(), json!(self.speedup(row)));
            if let Rules::EvalBatch { .. } = self.rules {
                fields.insert("reference_name".to_string(), json!(reference_name(row.measurement.algorithm)));
            }
            Value::Object(fields)
        };
        json!({
            "model": self.model,
            "device": self.distinct(|row| row.device.clone()),
            "driver": self.devices.iter().map(|(_, driver)| driver.as_str()).collect::<Vec<_>>().join(", "),
            "dtype": self.distinct(|row| row.dtype.clone()),
            "protocol": match self.rules { Rules::Strict => "strict", Rules::EvalBatch { .. } => "eval-batch" },
            "command": self.command,
            "users": self.users,
            "skipped_users": self.skipped_users,
            "items": self.items,
            "interrupted": self.interrupted,
            "results": self.rows.iter().map(result).collect::<Vec<_>>(),
        })
    }

    /// Everything as CSV, one line per row; empty cells where there is no value.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn csv(&self, out: impl io::Write) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(out);
        for (index, row) in self.rows.iter().enumerate() {
            let fields = row.fields();
            if index == 0 {
                writer.write_record(fields.iter().map(|(name, _)| name.as_str()).chain(["speedup"]))?;
            }
            let speedup = json!(self.speedup(row));
            let text = |value: &Value| match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            writer.write_record(fields.iter().map(|(_, value)| text(value)).chain([text(&speedup)]))?;
        }
        writer.flush()
    }
}

/// What the reference calls the algorithm; our own name where it has none.
fn reference_name(algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::Exact => "MoLBruteForceTopK".to_string(),
        Algorithm::Mips => "MIPSBruteForceTopK".to_string(),
        Algorithm::Naive { per_group } => format!("MoLNaiveTopK{per_group}"),
        Algorithm::Avg { candidates } => format!("MoLAvgTopK{candidates}"),
        Algorithm::Comb { per_group, candidates } => format!("MoLCombTopK{per_group}_{candidates}"),
        Algorithm::NaiveIvf { per_group, n_probe: 1 } => format!("MoLNaiveFaissTopK{per_group}"),
        other => other.to_string(),
    }
}
