//! `rails-bench reproduce`.

mod published;

use std::fs::{self, DirEntry};
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use rails_wgpu::config::{PRESETS, preset};
use rails_wgpu::dataset::{PreprocessOptions, RawFormat, preprocess, raw_files, write_item_ids};
use rails_wgpu::metrics::Metric;
use rails_wgpu::train::{DataSource, Ending, EvaluationRecord, RunConfig, RunFolder, Split};
use rails_wgpu::{Error, Result, atomic};
use serde_json::{Value, json};

use crate::exit_code::ExitCode;
use crate::interrupt;
use crate::output::outln;
use crate::paths::{self, Input, Output};
use crate::progress::{self, note};
use crate::report::Table;
use crate::train::{ChangeArgs, LimitArgs, STOPPING, Session, TrainDeviceArgs, read_data};
use published::{COLUMNS, published};

/// Data sets with a published table, or a format that one of them has.
const DATA_SETS: [&str; 4] = ["ml-100k", "ml-1m", "ml-20m", "amzn-books"];

/// The sequences, in the folder of a table.
const DATA: &str = "data.csv";
const ITEMS: &str = "data.items.txt";

#[derive(Args)]
pub struct ReproduceArgs {
    /// ml-1m, ml-20m or amzn-books; ml-100k with the models for ml-1m, of which no table was published
    #[arg(value_parser = PossibleValuesParser::new(DATA_SETS))]
    dataset: String,
    /// The raw data: a zip, a folder, or the ratings file
    input: Input,
    /// The folder to write: the data, a run for each model, table.md and table.json. The same command goes on where it was stopped
    #[arg(short, long, value_name = "FOLDER")]
    output: Output,
    /// Models, separated by commas [default: all]
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    rows: Vec<String>,
    /// Train each model so many times, with the seeds from --seed on, and print mean and standard deviation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1000))]
    seeds: u64,
    /// Choose the best model by the last event but one of each user, and print its test. The published tables are of the model
    /// that was best on the test
    #[arg(long)]
    validation: bool,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    device: TrainDeviceArgs,
}

/// A row of the table.
struct Row {
    model: String,
    epochs: usize,
    /// The test of each seed, in the order of [`COLUMNS`].
    tests: Vec<[f64; COLUMNS.len()]>,
}

pub fn run(args: &ReproduceArgs) -> Result<ExitCode> {
    let models = args.models()?;
    let source = args.data()?;
    let cancel = interrupt::cancel(STOPPING);
    let deadline = args.limits.deadline();
    let mut rows: Vec<Row> = Vec::new();
    for model in &models {
        let mut row = Row { model: model.clone(), epochs: 0, tests: Vec::new() };
        for n in 0..args.seeds {
            let mut session = args.session(model, n, &source)?;
            outln!("\n{model}, seed {}", session.run.config().train.seed)?;
            session.print_conditions()?;
            let ending = session.train(&args.limits.limits(), deadline, &cancel, true)?;
            if ending == Ending::Stopped {
                note!("to go on: run the same command again");
                return Ok(ExitCode::of_interrupted(session.interrupted));
            }
            row.epochs = session.run.config().train.epochs;
            let test = session.test_of_best()?;
            let best = session.run.best().and_then(|best| best.evaluation.clone());
            row.tests.extend(test.or(best).as_ref().map(columns));
        }
        rows.push(row);
        args.write(&rows)?;
    }
    outln!("\n{}\n", args.heading())?;
    args.table(&rows).print()?;
    outln!("\ntable: {}", args.output.join("table.md").display())?;
    Ok(ExitCode::SUCCESS)
}

fn columns(test: &EvaluationRecord) -> [f64; COLUMNS.len()] {
    let values = test.values();
    COLUMNS.map(|name| values.iter().find(|(found, _)| found == name).map_or(f64::NAN, |(_, value)| *value))
}

impl ReproduceArgs {
    /// The data set whose presets are meant.
    fn preset_data(&self) -> &str {
        if self.dataset == "ml-100k" { "ml-1m" } else { &self.dataset }
    }

    /// The models that were asked for, in the order of the published table.
    fn models(&self) -> Result<Vec<String>> {
        let of_data =
            |(name, _): &(&str, &str)| name.strip_prefix(self.preset_data())?.strip_prefix('/').map(str::to_string);
        let known: Vec<String> = PRESETS.iter().filter_map(of_data).collect();
        if let Some(unknown) = self.rows.iter().find(|row| !known.contains(row)) {
            return Err(Error::argument("rows", known.join(", "), format!("`{unknown}`")));
        }
        Ok(known.into_iter().filter(|model| self.rows.is_empty() || self.rows.contains(model)).collect())
    }

    /// The sequences and items in the folder, made of the raw data unless they are there already.
    fn data(&self) -> Result<DataSource> {
        let folder = &*self.output;
        let (data, items) = (folder.join(DATA), folder.join(ITEMS));
        if !(data.is_file() && items.is_file()) {
            let is_other = |entry: &DirEntry| {
                let name = entry.file_name();
                name != DATA && name != ITEMS && !name.to_string_lossy().ends_with(".tmp")
            };
            if let Some(other) =
                fs::read_dir(folder).into_iter().flatten().flatten().filter(is_other).min_by_key(DirEntry::file_name)
            {
                let expected = "a new folder, an empty one, or that of a table that was begun";
                return Err(Error::argument(
                    "output",
                    expected,
                    format!("`{}` in it", other.file_name().to_string_lossy()),
                ));
            }
            let format: RawFormat = self.dataset.parse()?;
            paths::check(&raw_files(format, &self.input)?, &[&data, &items])?;
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            let counter = progress::counter("lines");
            let count = |lines| counter.set(lines);
            let preprocessed = preprocess(format, &self.input, PreprocessOptions::default().with_progress(&count));
            drop(counter);
            let preprocessed = preprocessed?;
            outln!("{}", preprocessed.report)?;
            write_item_ids(&items, &preprocessed.item_ids, &preprocessed.original_items)?;
            preprocessed.dataset.write(&data)?;
        }
        DataSource::of_files(&data, Some(&items))
    }

    /// The run of a model with its n-th seed, new or begun before.
    fn session(&self, model: &str, n: u64, source: &DataSource) -> Result<Session> {
        let (model_config, train) = preset(&format!("{}/{model}", self.preset_data()))?;
        let train = self.change.apply(train);
        let seed = train.seed.wrapping_add(n);
        let data = read_data(source)?;
        let split = if self.validation { Split::Validation } else { Split::Test };
        let config = RunConfig::new(model_config, train.with_seed(seed), split, Metric::HitRate(10), data.summary());
        let folder: PathBuf = self.output.join(format!("{model}-{seed}"));
        if folder.join("config.json").exists() {
            let (folder, stored) = RunFolder::open(&folder)?;
            let device = self.device.open(Some(&stored), &config.model)?;
            return Session::resume(folder, &stored, config, data, &device);
        }
        let device = self.device.open(None, &config.model)?;
        Session::create(&folder, config, data, &device)
    }

    /// What holds for all rows.
    fn heading(&self) -> String {
        let chosen = match self.validation {
            true => "the model that is best on the validation split",
            false => "the model that is best on the test split, as published",
        };
        format!("{}: test split, reference protocol, all users, {chosen}", self.dataset)
    }

    fn table(&self, rows: &[Row]) -> Table {
        let mut table = Table::new(["model", "trained"].into_iter().chain(COLUMNS));
        for row in rows {
            let seeds = if row.tests.len() > 1 { format!(", {} seeds", row.tests.len()) } else { String::new() };
            let mut cells = vec![row.model.clone(), format!("{} epochs{seeds}", row.epochs)];
            cells.extend((0..COLUMNS.len()).map(|column| row.cell(column)));
            table.row(cells);
            if let Some(published) = published(&format!("{}/{}", self.dataset, row.model)) {
                let mut cells = vec![String::new(), "published".to_string()];
                cells
                    .extend(published.values.map(|value| value.map_or("-".to_string(), |value| format!("{value:.4}"))));
                table.row(cells);
            }
        }
        table
    }

    /// The table so far, for people and for programs.
    fn write(&self, rows: &[Row]) -> Result<()> {
        let markdown = format!("{}\n\n```\n{}```\n", self.heading(), self.table(rows));
        atomic::write(&self.output.join("table.md"), |file| file.write_all(markdown.as_bytes()))?;
        let json = json!({
            "dataset": self.dataset,
            "split": "test",
            "chosen_by": if self.validation { "validation" } else { "test" },
            "columns": COLUMNS,
            "rows": rows.iter().map(|row| row.json(&self.dataset)).collect::<Vec<_>>(),
        });
        atomic::write(&self.output.join("table.json"), |file| file.write_all(format!("{json:#}\n").as_bytes()))
    }
}

impl Row {
    /// Mean over seeds, and the standard deviation of one of them if there are some.
    fn cell(&self, column: usize) -> String {
        let n = self.tests.len() as f64;
        let mean = self.tests.iter().map(|test| test[column]).sum::<f64>() / n;
        match self.tests.len() {
            0 => "-".to_string(),
            1 => format!("{mean:.4}"),
            _ => {
                let squares: f64 = self.tests.iter().map(|test| (test[column] - mean).powi(2)).sum();
                format!("{mean:.4}±{:.4}", (squares / (n - 1.0)).sqrt())
            }
        }
    }

    fn json(&self, dataset: &str) -> Value {
        json!({
            "model": self.model,
            "epochs": self.epochs,
            "tests": self.tests,
            "published": published(&format!("{dataset}/{}", self.model)).map(|row| row.values),
        })
    }
}
