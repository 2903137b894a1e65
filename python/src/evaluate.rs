//! The functions behind `rails_wgpu.evaluate_run` and `rails_wgpu.write_run`.

use std::collections::HashMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use rails_wgpu::dataset::{Qrels, TrecRun};
use rails_wgpu::eval::GradedQuality;
use rails_wgpu::metrics::Metric;

use crate::errors::detached;

/// Values of documents by query, or a file with them.
#[derive(FromPyObject)]
pub enum Documents<T> {
    Values(HashMap<String, HashMap<String, T>>),
    File(PathBuf),
}

/// Means by the names of their metrics. How many judged queries the run lacks is logged.
#[pyfunction]
pub fn evaluate_run(
    py: Python,
    qrels: Documents<i32>,
    run: Documents<f32>,
    metrics: Vec<String>,
    relevance_level: i32,
    all_judged: bool,
) -> PyResult<HashMap<String, f64>> {
    let evaluate = || {
        let metrics = metrics.iter().map(|name| name.parse()).collect::<rails_wgpu::Result<Vec<Metric>>>()?;
        let qrels = match qrels {
            Documents::File(path) => Qrels::read(&path)?,
            Documents::Values(values) => {
                let mut qrels = Qrels::new();
                each(&values, |query, document, grade| qrels.add(query, document, grade))?;
                qrels
            }
        };
        let run = match run {
            Documents::File(path) => TrecRun::read(&path)?,
            Documents::Values(values) => run_of(&values)?,
        };
        let quality = GradedQuality::new(&qrels, &run, relevance_level)?;
        if quality.missing() > 0 {
            let count = if all_judged { "count 0" } else { "are left out" };
            log::info!(target: "rails_wgpu", "judged queries that the run lacks {count}: {}", quality.missing());
        }
        Ok(metrics.iter().map(|&metric| (metric.to_string(), quality.mean(metric, all_judged))).collect())
    };
    detached(py, evaluate)
}

#[pyfunction]
pub fn write_run(py: Python, run: HashMap<String, HashMap<String, f32>>, path: PathBuf, name: &str) -> PyResult<()> {
    detached(py, || run_of(&run)?.write(&path, name))
}

fn run_of(values: &HashMap<String, HashMap<String, f32>>) -> rails_wgpu::Result<TrecRun> {
    let mut run = TrecRun::new();
    each(values, |query, document, score| run.add(query, document, score))?;
    Ok(run)
}

fn each<T: Copy>(
    values: &HashMap<String, HashMap<String, T>>,
    mut pass: impl FnMut(&str, &str, T) -> rails_wgpu::Result<()>,
) -> rails_wgpu::Result<()> {
    let documents = |(query, documents): (_, &HashMap<String, T>)| {
        documents.iter().try_for_each(|(document, &value)| pass(query, document, value))
    };
    values.iter().map(|(query, documents)| (query.as_str(), documents)).try_for_each(documents)
}
