//! Compare algorithms: how much of the exact result each finds, and how long it takes.
//! Run it with `cargo run --release --example 05_compare`; `rails-bench bench` does the same for your own model.

#[path = "../assets/demo.rs"]
mod demo;

use std::time::Instant;

use demo::Demo;
use rails_wgpu::Result;
use rails_wgpu::backend::select;
use rails_wgpu::search::{Algorithm, Hit, Searcher};

const K: usize = 10;
/// Runs of each algorithm; the fastest counts.
const RUNS: usize = 20;

fn main() -> Result<()> {
    let demo = Demo::load()?;
    let backend = select::open("auto")?;
    let searcher = Searcher::builder().model(&demo.model, &demo.item_ids).backend(backend.clone()).build()?;
    let queries = demo.queries(backend.as_ref())?;

    // What `distilled` and `cascade` need, and `tangent` is better with, is learned from some typical queries.
    searcher.index().distill(&queries)?;

    let exact = searcher.search(Algorithm::Exact, &queries, K, &[])?;
    println!("{:<16} recall@10  us per query", "algorithm");
    for name in ["exact", "mips", "naive:10", "avg:50", "comb:10_50", "tangent:50", "distilled:50", "cascade:80_40"] {
        let algorithm: Algorithm = name.parse()?;
        let mut fastest = f64::INFINITY;
        let mut found = Vec::new();
        for _ in 0..RUNS {
            let started = Instant::now();
            found = searcher.search(algorithm, &queries, K, &[])?;
            fastest = fastest.min(started.elapsed().as_secs_f64());
        }
        let micros = fastest * 1e6 / queries.embeddings.rows() as f64;
        println!("{name:<16} {:>9.3}  {micros:>12.1}", recall(&exact, &found));
    }
    println!("{} items are few: first stages pay from some ten thousand on", searcher.index().len());
    Ok(())
}

/// The share of the exact hits that were found.
fn recall(exact: &[Vec<Hit>], found: &[Vec<Hit>]) -> f64 {
    let total: usize = exact.iter().map(Vec::len).sum();
    let is_found = |(exact, found): (&Vec<Hit>, &Vec<Hit>)| {
        exact.iter().filter(|hit| found.iter().any(|other| other.id == hit.id)).count()
    };
    exact.iter().zip(found).map(is_found).sum::<usize>() as f64 / total as f64
}
