//! The memory of exact search: the index, and what a search needs beyond it.
//!
//! ```text
//! cargo bench --bench memory [-- N...]
//! ```
//!
//! f32, 8x4x64 components, D = 50, H = 128, B = 32, k = 100; N = 1,000,000 unless numbers are given.
#![allow(clippy::expect_used, reason = "a benchmark of inputs that are known to be right")]

#[path = "../tests/common/counting.rs"]
mod counting;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../tests/common/models.rs"]
mod models;

use counting::Counting;
use models::{Random, Shape};
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Dtype, QueryBatch};
use rails_wgpu::index::ItemIndex;
use rails_wgpu::search::{Algorithm, Searcher};

#[global_allocator]
static MEMORY: Counting = Counting::new();

const DIM: usize = 50;
const B: usize = 32;

/// What a search may need beyond the index.
const ALLOWED: usize = 64 << 20;

fn main() {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if sizes.is_empty() {
        sizes.push(1_000_000);
    }
    let hidden = Some(128);
    let shape = Shape { p_q: 8, p_x: 4, d_p: 64, query_gate: hidden, item_gate: hidden, hidden, ..Shape::default() };
    let mol = Shape { uid_sizes: Vec::new(), ..shape }.mol(&mut Random::new(1), DIM);
    println!("items,threads,index bytes,heap bytes with it,heap bytes of a search beyond it,allowed");
    for n in sizes {
        let before = MEMORY.live();
        let mut random = Random::new(2);
        let queries = QueryBatch::new(random.tensor(&[B, DIM], 1.0));
        let index = {
            let (ids, items): (Vec<u64>, _) = ((0..n as u64).collect(), random.tensor(&[n, DIM], 1.0));
            ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).expect("valid items")
        };
        let searcher = Searcher::new(index);
        let live = MEMORY.live() - before;
        let search = || searcher.search(Algorithm::Exact, &queries, 100.min(n), &[]).expect("a valid search");
        let (_, peak) = MEMORY.peak_of(search);
        println!("{n},{},{},{live},{peak},{ALLOWED}", rayon::current_num_threads(), searcher.index().bytes());
        assert!(peak <= ALLOWED, "a search takes {peak} bytes beyond the index, {ALLOWED} are allowed");
    }
}
