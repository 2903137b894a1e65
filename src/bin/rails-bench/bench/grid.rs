//! Measuring the points of a grid one after the other.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::measure::{Bencher, Measurement, QuerySet, Truth};
use crate::report::{SpeedReport, SpeedRow};
use rails_wgpu::backend::{Backend, Dtype};
use rails_wgpu::index::IndexOptions;
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::{Cancel, Error, Result};

use super::outputs::Outputs;
use super::plan::Plan;
use super::source::Source;
use crate::progress::{self, Bar};

/// Queries that an index learns from.
const LEARNED_FROM: usize = 256;

/// A grid, and what it is measured with.
pub struct Grid<'a> {
    pub source: &'a Source,
    pub plan: &'a Plan,
    /// Cancelled when the user wants it to end.
    pub cancel: &'a Cancel,
}

/// An index that was just built, or opened.
struct Built {
    searcher: Searcher,
    time: Duration,
}

impl Grid<'_> {
    /// Adds all rows to `report`, saving it after each point. Returns early, with `report.interrupted`, once the user wants
    /// it to end.
    pub fn run(&self, report: &mut SpeedReport, outputs: &Outputs) -> Result<()> {
        let bar = progress::share(self.plan.work(self.source.n_queries()));
        let mut all = || {
            for backend in &self.plan.backends {
                bar.say(format!("{}: encoding", backend.info().name));
                let queries = self.source.queries(backend.as_ref(), self.plan.rules, &mut |_| self.flow())?;
                let Some(queries) = queries else { return Ok(ControlFlow::Break(())) };
                for &n in &self.plan.items {
                    if self.items(backend.as_ref(), &queries, n, &bar, report, outputs)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        let ended = all();
        drop(bar);
        report.interrupted = match ended {
            Err(Error::Cancelled) => true,
            ended => ended?.is_break(),
        };
        Ok(())
    }

    /// All points with `n` items on one device.
    fn items(
        &self,
        backend: &dyn Backend,
        queries: &QuerySet,
        n: usize,
        bar: &Bar,
        report: &mut SpeedReport,
        outputs: &Outputs,
    ) -> Result<ControlFlow<()>> {
        bar.say(format!("{}, {n} items: exact lists", backend.info().name));
        let exact = self.build(backend, queries, n, self.plan.truth, bar)?;
        let mut truths = Vec::new();
        for &k in &self.plan.ks {
            let mut done = 0;
            let mut progress = |answered: usize| {
                bar.add(((answered - done) * n) as u64);
                done = answered;
                self.flow()
            };
            match Truth::compute(&exact.searcher, queries, self.plan.rules, k, &mut progress)? {
                Some(truth) => truths.push((k, truth)),
                None => return Ok(ControlFlow::Break(())),
            }
        }
        // That index serves its own rows too, and is gone before another one is built where it is not needed any more.
        let truth = self.plan.truth;
        let mut exact = self.plan.dtypes.contains(&truth).then_some(exact);
        for dtype in &self.plan.dtypes {
            let built = match (*dtype, exact.take()) {
                (dtype, Some(exact)) if dtype == truth => exact,
                (other, kept) => {
                    exact = kept;
                    self.build(backend, queries, n, other, bar)?
                }
            };
            for &batch in &self.plan.batch_sizes {
                for (k, truth) in &truths {
                    let (device, dtype) = (backend.info().name.clone(), dtype.to_string());
                    bar.say(format!("{device} {dtype}, {n} items, batches of {batch}, k = {k}"));
                    let bencher = Bencher {
                        searcher: &built.searcher,
                        queries,
                        truth,
                        expected: self.source.expected(n),
                        rules: self.plan.rules,
                        count_absent_targets: n == self.source.n_items(),
                        k: *k,
                        batch_size: batch,
                        warm_up: self.plan.warm_up,
                        runs: self.plan.runs,
                        timed_every: self.plan.timed_every,
                    };
                    let ended = self.point(&bencher, bar, |measurement| {
                        let bytes_per_item = built.searcher.index().bytes() as f64 / n as f64;
                        let (device, dtype) = (device.clone(), dtype.clone());
                        report.rows.push(SpeedRow {
                            device,
                            dtype,
                            items: n,
                            batch,
                            k: *k,
                            bytes_per_item,
                            build: built.time,
                            measurement,
                        });
                    })?;
                    report.interrupted = ended.is_break();
                    outputs.save(report);
                    if ended.is_break() {
                        return Ok(ended);
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One point of the grid: passes on the measurement of each algorithm, of part of the batches if the user wants it to
    /// end.
    fn point(&self, bencher: &Bencher, bar: &Bar, add: impl FnMut(Measurement)) -> Result<ControlFlow<()>> {
        let mut ended = ControlFlow::Continue(());
        let measurements = bencher.run(&self.plan.algorithms, &mut |answered| {
            bar.add((answered * self.plan.algorithms.len() * bencher.searcher.index().len()) as u64);
            ended = self.flow();
            ended
        })?;
        measurements.into_iter().for_each(add);
        Ok(ended)
    }

    fn build(&self, backend: &dyn Backend, queries: &QuerySet, n: usize, dtype: Dtype, bar: &Bar) -> Result<Built> {
        let started = Instant::now();
        let lists = Algorithm::lists_of(&self.plan.algorithms, self.plan.n_lists);
        let options = IndexOptions::default().with_dtype(dtype).with_form(self.plan.form).with_lists(lists);
        let searcher = self.source.searcher(backend, n, options)?;
        let learns = self.plan.algorithms.iter().any(|algorithm| algorithm.learns());
        if learns && self.source.stored_dtype().is_none() {
            bar.say(format!("{}, {n} items: learning", backend.info().name));
            searcher.index().distill_with(&queries.spread(LEARNED_FROM), self.cancel, &|_| ())?;
        }
        Ok(Built { time: started.elapsed(), searcher })
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
