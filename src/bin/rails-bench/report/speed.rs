//! The recall and latency table of a benchmark.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Map, Value, json};

use super::columns::{COLUMNS, Column, EVAL_BATCH};
use super::row::{AXES, Axis, SpeedRow};
use super::{Machine, Table};
use crate::measure::Rules;
use rails_wgpu::search::Algorithm;

/// Everything measured so far, and under which conditions.
#[derive(Clone, Debug)]
pub struct SpeedReport {
    /// The model in words.
    pub model: String,
    /// What measured it.
    pub machine: Machine,
    /// When it began.
    pub date: String,
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
    /// Where these come from.
    pub item_source: String,
    /// What happened to seen items, and what counts as a hit.
    pub rules: Rules,
    /// Whether the run was ended early: there are fewer rows than asked for, or the last ones cover fewer queries.
    pub interrupted: bool,
    /// One row per algorithm and grid point.
    pub rows: Vec<SpeedRow>,
}

/// A recall that users of approximate search ask for.
pub const GOOD_RECALL: f64 = 0.99;

impl SpeedReport {
    /// One row per algorithm, a group for each point of the grid; what is the same in all rows is left to
    /// [`SpeedReport::conditions`]. The rules of `eval_batch.py` have the reference's own names and columns.
    pub fn table(&self) -> Table {
        let columns = self.columns();
        let names = columns.iter().map(|column| self.title(column));
        let mut table = Table::new([("algorithm".to_string())].into_iter().chain(names));
        for rows in self.points() {
            if let Some(title) = self.point_title(rows[0]) {
                table.group(title);
            }
            let best = self.best(&rows);
            for row in rows {
                let is_best = best.is_some_and(|best| std::ptr::eq(best, row));
                let name = if is_best { format!("{} *", self.name(row)) } else { self.name(row) };
                let cells =
                    [name].into_iter().chain(columns.iter().map(|column| (column.cell)(row, self.speedup(row))));
                if is_best { table.best_row(cells) } else { table.row(cells) }
            }
        }
        table
    }

    /// What the mark in the table means, if there is one.
    pub fn legend(&self) -> Option<String> {
        let is_marked = self.points().iter().any(|rows| self.best(rows).is_some());
        is_marked.then(|| format!("* the fastest approximate one with a recall of {GOOD_RECALL} or more"))
    }

    /// Rows of each point of the grid, in the order in which the points come.
    pub fn points(&self) -> Vec<Vec<&SpeedRow>> {
        let mut points: Vec<Vec<&SpeedRow>> = Vec::new();
        for row in &self.rows {
            match points.iter_mut().find(|rows| rows[0].shares_point(row)) {
                Some(rows) => rows.push(row),
                None => points.push(vec![row]),
            }
        }
        points
    }

    /// What tells the point of `row` from the others; `None` where there is one only.
    pub fn point_title(&self, row: &SpeedRow) -> Option<String> {
        let varies = |(_, value): &&Axis| self.rows.iter().any(|other| value(other) != value(row));
        let told: Vec<String> =
            AXES.iter().filter(varies).map(|(name, value)| format!("{name} {}", value(row))).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    /// Of the rows of a point, the fastest approximate one that finds nearly all, if it is faster than exact search.
    pub fn best<'a>(&self, rows: &[&'a SpeedRow]) -> Option<&'a SpeedRow> {
        let is_exact = |row: &SpeedRow| matches!(row.measurement.algorithm, Algorithm::Exact | Algorithm::ExactPruned);
        let is_good = |row: &&&SpeedRow| !is_exact(row) && row.measurement.recall >= GOOD_RECALL;
        let fastest = |a: &&&SpeedRow, b: &&&SpeedRow| a.percentile_ms(0.5).total_cmp(&b.percentile_ms(0.5));
        let best = *rows.iter().filter(is_good).min_by(fastest)?;
        self.speedup(best).is_some_and(|times| times > 1.0).then_some(best)
    }

    /// Columns with a value in some row, but for the algorithm, which comes first.
    pub fn columns(&self) -> Vec<&'static Column> {
        let has_values = |column: &&Column| self.rows.iter().any(|row| (column.cell)(row, self.speedup(row)) != "-");
        match self.rules {
            Rules::Strict => COLUMNS.iter().filter(has_values).collect(),
            Rules::EvalBatch { .. } => EVAL_BATCH.iter().collect(),
        }
    }

    /// The name of a column, with k where that is one for all rows and there is room for it.
    pub fn title(&self, column: &Column) -> String {
        match (column.name, self.rows.first()) {
            ("recall", Some(row)) if self.rules == Rules::Strict && self.rows.iter().all(|other| other.k == row.k) => {
                format!("recall@{}", row.k)
            }
            (name, _) => name.to_string(),
        }
    }

    /// The name of a row's algorithm.
    pub fn name(&self, row: &SpeedRow) -> String {
        match self.rules {
            Rules::Strict => row.measurement.algorithm.to_string(),
            Rules::EvalBatch { .. } => reference_name(row.measurement.algorithm),
        }
    }

    /// What holds for all rows, one condition per line.
    pub fn conditions(&self) -> String {
        let devices: Vec<String> = self.devices.iter().map(|(name, driver)| format!("{name} ({driver})")).collect();
        let values = |cell| self.distinct(cell);
        let bytes = values(|row| format!("{:.0}", row.bytes_per_item));
        let build = values(|row| format!("{:.2}", row.build.as_secs_f64()));
        format!(
            "model     {}\nmachine   {}\ndevice    {}   dtype {}\ndata      {} users in batches of {}, k = {}\n\
             index     {} items from {}, {bytes} bytes each, built in {build} s\n",
            self.model,
            self.machine,
            devices.join(", "),
            values(|row| row.dtype.clone()),
            self.users,
            values(|row| row.batch.to_string()),
            values(|row| row.k.to_string()),
            values(|row| row.items.to_string()),
            self.item_source,
        )
    }

    /// The different values of a column, in the order of the rows.
    fn distinct(&self, cell: fn(&SpeedRow) -> String) -> String {
        let mut seen = BTreeSet::new();
        let values = self.rows.iter().map(cell);
        values.filter(|value| seen.insert(value.clone())).collect::<Vec<_>>().join(", ")
    }

    /// How many times as fast as exact search at the same grid point: by median times, or by mean times as the reference does.
    pub fn speedup(&self, row: &SpeedRow) -> Option<f64> {
        let same_point = |other: &&SpeedRow| other.measurement.algorithm == Algorithm::Exact && other.shares_point(row);
        let exact = self.rows.iter().find(same_point)?;
        let ms = |row: &SpeedRow| match self.rules {
            Rules::Strict => row.percentile_ms(0.5),
            Rules::EvalBatch { .. } => row.mean_ms(),
        };
        (ms(row) > 0.0).then(|| ms(exact) / ms(row))
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
            "processor": self.machine.processor,
            "threads": self.machine.threads,
            "version": self.machine.version,
            "date": self.date,
            "driver": self.devices.iter().map(|(_, driver)| driver.as_str()).collect::<Vec<_>>().join(", "),
            "dtype": self.distinct(|row| row.dtype.clone()),
            "protocol": match self.rules { Rules::Strict => "strict", Rules::EvalBatch { .. } => "eval-batch" },
            "command": self.command,
            "users": self.users,
            "skipped_users": self.skipped_users,
            "items": self.items,
            "item_source": self.item_source,
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
