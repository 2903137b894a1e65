//! The grid that the options describe.

use std::sync::Arc;

use crate::measure::Rules;
use rails_wgpu::backend::{Backend, Dtype, select};
use rails_wgpu::search::Algorithm;
use rails_wgpu::tables::Form;
use rails_wgpu::{Error, Result};

use super::source::Source;
use super::{BenchArgs, Preset};
use crate::options::check_dtype;

pub const DEFAULT: &str = "exact,naive:50,avg:500,comb:50_500,tangent:1000";

/// What the reference's eval_batch.py runs.
const EVAL_BATCH: &str = "MoLBruteForceTopK,MoLNaiveTopK5,MoLNaiveTopK10,MoLNaiveTopK50,MoLNaiveTopK100,MoLAvgTopK200,\
                          MoLAvgTopK500,MoLAvgTopK1000,MoLAvgTopK2000,MoLAvgTopK4000,MoLCombTopK5_200,MoLCombTopK50_500,\
                          MoLCombTopK100_1000,MoLNaiveFaissTopK5";

/// Every axis of the grid, and how a point is measured.
pub struct Plan {
    pub backends: Vec<Arc<dyn Backend>>,
    pub items: Vec<usize>,
    pub dtypes: Vec<Dtype>,
    /// Number format of the index whose exact search the others are compared with.
    pub truth: Dtype,
    pub batch_sizes: Vec<usize>,
    pub ks: Vec<usize>,
    pub algorithms: Vec<Algorithm>,
    /// Number of inverted lists; 0: the default of the index.
    pub n_lists: usize,
    pub form: Option<Form>,
    pub rules: Rules,
    pub warm_up: usize,
    pub runs: usize,
    pub timed_every: usize,
}

impl Plan {
    /// Opens the devices and checks every point of the grid.
    pub fn new(args: &BenchArgs, source: &Source) -> Result<Plan> {
        let (n_items, stored) = (source.n_items(), source.stored_dtype());
        let dtypes = match stored {
            Some(stored) => {
                check_dtype(args.dtype.iter().copied(), stored)?;
                vec![stored]
            }
            None if args.dtype.is_empty() => vec![Dtype::F32],
            None => unique(&args.dtype),
        };
        let items = if args.items.is_empty() { vec![n_items] } else { unique(&args.items) };
        if let Some(&wrong) = items.iter().find(|n| !(1..=n_items).contains(*n)) {
            return Err(Error::argument("items", format!("1 to {n_items} (the items there are)"), wrong));
        }
        let fewest = items.iter().copied().min().unwrap_or(n_items);
        let (rules, names, k, runs, timed_every) = match args.preset {
            None => (Rules::Strict, DEFAULT, 100, source.default_runs(), 1),
            Some(Preset::EvalBatch) => {
                (Rules::EvalBatch { padded_length: source.padded_length() }, EVAL_BATCH, 120.min(fewest), 20, 10)
            }
        };
        let ks = args.k.as_deref().map_or(vec![k], unique);
        for &n in &items {
            if let Some(&wrong) = ks.iter().find(|k| !(1..=n).contains(*k)) {
                let place =
                    if args.items.is_empty() { String::new() } else { format!(" at the grid point --items {n}") };
                return Err(Error::argument("k", format!("1 to {n} (the number of items){place}"), wrong));
            }
        }
        let algorithms = match &args.algorithm {
            Some(given) => unique(given),
            None => names.split(',').map(str::parse).collect::<Result<_>>()?,
        };
        let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
        for wanted in &args.device {
            let backend = select::open(wanted)?;
            if !backends.iter().any(|other| other.info().name == backend.info().name) {
                backends.push(backend);
            }
        }
        Ok(Plan {
            backends,
            items,
            dtypes,
            truth: stored.unwrap_or(Dtype::F32),
            batch_sizes: args.batch_size.as_deref().map_or(vec![32], unique),
            ks,
            algorithms,
            n_lists: args.lists,
            form: args.form.0,
            rules,
            warm_up: args.warm_up,
            runs: args.runs.unwrap_or(runs),
            timed_every,
        })
    }

    /// Name and driver of each device.
    pub fn devices(&self) -> Vec<(String, String)> {
        let info = |backend: &Arc<dyn Backend>| (backend.info().name.clone(), backend.info().driver.clone());
        self.backends.iter().map(info).collect()
    }

    /// How much there is to do with `n_queries`, in pairs of a query and an item.
    pub fn work(&self, n_queries: usize) -> u64 {
        let answered = |&size: &usize| {
            let batches = n_queries.div_ceil(size);
            let timed = batches.div_ceil(self.timed_every);
            size * (timed * self.runs + (batches - timed))
        };
        let answered: usize = self.batch_sizes.iter().map(answered).sum();
        let measured = answered * self.dtypes.len() * self.algorithms.len();
        let per_item = (n_queries + measured) * self.ks.len() * self.backends.len();
        per_item as u64 * self.items.iter().sum::<usize>() as u64
    }
}

/// Each value once, in the order given.
fn unique<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for &value in values {
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    kept
}
