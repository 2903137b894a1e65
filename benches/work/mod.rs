//! What the kernel benchmarks measure: the stages of the CPU backend at named shapes, on seeded random weights and items.

mod losses;
pub mod machine;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/common/models.rs"]
mod models;

use std::hint::black_box;
use std::sync::Arc;

use models::{Random, Shape};
use rails_wgpu::backend::cpu::{Cpu, CpuIndex};
use rails_wgpu::backend::{Columns, DeviceIndex, Dtype, Exclusions, QueryBatch, Scorer, SearchContext, Similarity};
use rails_wgpu::index::item_tables;
use rails_wgpu::ops::Linear;
use rails_wgpu::tables::{Form, MolTables, Table, Tables};
use rails_wgpu::tensor::Tensor;

/// K of every scan whose name does not say otherwise.
const K: usize = 100;

/// One thing to time.
pub struct Work {
    /// The stage.
    pub kernel: &'static str,
    /// Its sizes in words.
    pub shape: String,
    /// Number format of the tables.
    pub dtype: &'static str,
    /// Floating-point operations of one run: products and sums of the dots and of the gate's layers, nothing else.
    pub flops: f64,
    /// Bytes of the tables that one run reads.
    pub bytes: f64,
    /// One run.
    pub run: Box<dyn Fn() + Send + Sync>,
}

/// Works that share an index, which is made when they are due and dropped after them.
pub struct Group {
    /// Beginning of the names of its works.
    pub name: &'static str,
    /// Takes the most items that there may be.
    make: fn(usize) -> Vec<Work>,
    /// Only for those who ask for it: takes too much memory to be measured along with the others.
    large: bool,
}

impl Group {
    const fn new(name: &'static str, make: fn(usize) -> Vec<Work>) -> Group {
        Group { name, make, large: false }
    }

    const fn large(name: &'static str, make: fn(usize) -> Vec<Work>) -> Group {
        Group { name, make, large: true }
    }

    /// Makes its works; `quick`: with few items.
    pub fn works(&self, quick: bool) -> Vec<Work> {
        (self.make)(if quick { 2000 } else { usize::MAX })
    }
}

/// Every group, the smallest first.
const GROUPS: &[Group] = &[
    Group::new("mol ml-1m", |most| exact("ml-1m", 3_706.min(most), (8, 4, 64), 50, 32)),
    Group::new("mol ml-20m", |most| exact("ml-20m", 26_744.min(most), (8, 4, 128), 256, 32)),
    Group::new("mol books", |most| exact("books", 695_762.min(most), (8, 8, 32), 64, 2)),
    Group::new("losses", losses::losses),
    Group::new("stages", |most| stages(100_000.min(most))),
    Group::new("mips", |most| flat(1_000_000.min(most))),
    Group::new("top-k", |most| top_k(1_000_000.min(most))),
    Group::new("first stage 4M", |most| first_stage(4_000_000.min(most))),
    Group::large(LARGE, |most| first_stage_curve(100_000_000.min(most))),
];

/// Its tables are 8 GB, and grow by being copied.
const LARGE: &str = "first stage 100M";

/// The groups with `filter` in their names; large ones only where `filter` is the whole name.
pub fn groups(filter: &str) -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().filter(move |group| if group.large { group.name == filter } else { group.name.contains(filter) })
}

fn batch(random: &mut Random, n: usize, dim: usize) -> QueryBatch {
    QueryBatch::new(random.tensor(&[n, dim], 1.0))
}

/// An index of random items with a random similarity of P_Q x P_X x D_P components and 128 hidden units, its 64 principal
/// directions included.
fn index(random: &mut Random, n: usize, (p_q, p_x, d_p): (usize, usize, usize), dim: usize) -> CpuIndex {
    let gates = Some(128);
    let shape = Shape { p_q, p_x, d_p, query_gate: gates, item_gate: gates, hidden: gates, ..Shape::default() };
    let mut mol = Shape { uid_sizes: Vec::new(), ..shape }.mol(random, dim);
    let weight = random.tensor(&[p_x * d_p, 64], 0.1);
    mol.principal = Some(Linear { weight, bias: None, n_in: p_x * d_p, n_out: 64 });
    let items = random.tensor(&[n, dim], 1.0);
    let tables = item_tables(&Cpu::default(), &items, Some(&mol), Dtype::F32, Form::Components).expect("valid items");
    CpuIndex::new(Arc::new(tables), Some(&Similarity { mol, distilled: None }))
}

/// (operations, bytes) of one pair of a query and an item.
fn pair((p_q, p_x, d_p): (usize, usize, usize)) -> (f64, f64) {
    let n_logits = p_q * p_x;
    ((2 * n_logits * d_p + 4 * n_logits * 128) as f64, (4 * (p_x * d_p + n_logits)) as f64)
}

fn exact(data: &str, n: usize, (p_q, p_x, d_p): (usize, usize, usize), dim: usize, n_queries: usize) -> Vec<Work> {
    let mut random = Random::new(1);
    let index = index(&mut random, n, (p_q, p_x, d_p), dim);
    let queries = batch(&mut random, n_queries, dim);
    let (flops, bytes) = pair((p_q, p_x, d_p));
    vec![Work {
        kernel: "mol_scan",
        shape: format!("{data}: N={n} {p_q}x{p_x}x{d_p} H=128 D={dim} B={n_queries} k={K}"),
        dtype: "f32",
        flops: flops * (n * n_queries) as f64,
        bytes: bytes * n as f64,
        run: Box::new(move || {
            black_box(
                index
                    .scan(&SearchContext::default(), Scorer::Mol, &queries.prepared(), K, &Exclusions::default())
                    .expect("valid scan"),
            );
        }),
    }]
}

/// First stages, rescoring and gradients on one index of 8x4x64 components.
fn stages(n: usize) -> Vec<Work> {
    const SHAPE: (usize, usize, usize) = (8, 4, 64);
    const B: usize = 32;
    let mut random = Random::new(2);
    let index = Arc::new(index(&mut random, n, SHAPE, 50));
    let queries = Arc::new(batch(&mut random, B, 50));
    let mut works = Vec::new();
    for (what, columns, width, vectors) in [
        ("mean", Columns::Mean, 64, B),
        ("principal", Columns::Principal, 64, B),
        ("all components", Columns::All, 256, B),
        ("one component, 8 vectors a query", Columns::Group(1), 64, 8 * B),
    ] {
        let (index, tensor) = (index.clone(), random.tensor(&[vectors, width], 1.0));
        works.push(Work {
            kernel: "first_stage",
            shape: format!("{what}: N={n} W={width} V={vectors} k=1000"),
            dtype: "f32",
            flops: 2.0 * (n * width * vectors) as f64,
            bytes: 4.0 * (n * width) as f64,
            run: Box::new(move || {
                let k = 1000.min(n);
                black_box(
                    index
                        .scan_components(&SearchContext::default(), &tensor, columns, k, &Exclusions::default())
                        .expect("valid scan"),
                );
            }),
        });
    }
    let (flops, bytes) = pair(SHAPE);
    let mut positions = |count: usize| -> Vec<Vec<u32>> {
        let mut position = || ((random.number() + 1.0) / 2.0 * (n - 1) as f32) as u32;
        (0..B).map(|_| (0..count).map(|_| position()).collect()).collect()
    };
    let (candidates, best) = (positions(1000), positions(64));
    let (of_rescore, of_gradient) = ((index.clone(), queries.clone()), (index.clone(), queries));
    works.push(Work {
        kernel: "mol_rescore",
        shape: format!("1000 random candidates of N={n}, 8x4x64 H=128 B={B}"),
        dtype: "f32",
        flops: flops * (1000 * B) as f64,
        bytes: bytes * (1000 * B) as f64,
        run: Box::new(move || {
            black_box(
                of_rescore
                    .0
                    .rescore(&SearchContext::default(), Scorer::Mol, &of_rescore.1.prepared(), &candidates)
                    .expect("valid candidates"),
            );
        }),
    });
    works.push(Work {
        kernel: "mol_gradient",
        shape: format!("64 items each, 8x4x64 H=128 B={B}"),
        dtype: "f32",
        // The gate's layers are run through forwards and backwards.
        flops: (flops + (4 * 32 * 128) as f64) * (64 * B) as f64,
        bytes: bytes * (64 * B) as f64,
        run: Box::new(move || {
            black_box(of_gradient.0.gradient(&of_gradient.1.prepared(), &best).expect("valid candidates"));
        }),
    });
    let sums = random.tensor(&[B, 64], 1.0);
    let sampled = 8192.min(n);
    works.push(Work {
        kernel: "tangent_sample",
        shape: format!("mean of {sampled} sampled items, B={B} k=256"),
        dtype: "f32",
        flops: 2.0 * (sampled * 64 * B) as f64,
        bytes: 4.0 * (sampled * 64) as f64,
        run: Box::new(move || {
            black_box(
                index.scan_first(&SearchContext::default(), &sums, sampled, 256.min(sampled)).expect("valid scan"),
            );
        }),
    });
    works
}

/// A flat index without any similarity of its own.
fn plain(random: &mut Random, n: usize, dim: usize, dtype: Dtype) -> CpuIndex {
    let items = random.tensor(&[n, dim], 1.0);
    let tables = item_tables(&Cpu::default(), &items, None, dtype, Form::Components).expect("valid items");
    CpuIndex::new(Arc::new(tables), None)
}

fn flat(n: usize) -> Vec<Work> {
    const DIM: usize = 64;
    let mut random = Random::new(3);
    let mut works = Vec::new();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::I8] {
        let (name, size) = (dtype.name(), dtype.bytes());
        let index = Arc::new(plain(&mut random, n, DIM, dtype));
        for n_queries in [1, 32] {
            let (index, queries) = (index.clone(), batch(&mut random, n_queries, DIM));
            works.push(Work {
                kernel: "dot_scan",
                shape: format!("flat mips: N={n} D={DIM} B={n_queries} k={K}"),
                dtype: name,
                flops: 2.0 * (n * DIM * n_queries) as f64,
                bytes: (n * (DIM * size + if dtype == Dtype::I8 { 4 } else { 0 })) as f64,
                run: Box::new(move || {
                    black_box(
                        index
                            .scan(
                                &SearchContext::default(),
                                Scorer::Dot,
                                &queries.prepared(),
                                K,
                                &Exclusions::default(),
                            )
                            .expect("valid scan"),
                    );
                }),
            });
        }
    }
    works
}

/// Scans whose inner products are so short that filtering and selecting take most of the time.
fn top_k(n: usize) -> Vec<Work> {
    const DIM: usize = 8;
    let mut random = Random::new(4);
    let index = Arc::new(plain(&mut random, n, DIM, Dtype::F32));
    let queries = Arc::new(batch(&mut random, 32, DIM));
    let work = |k: usize| {
        let (index, queries, k) = (index.clone(), queries.clone(), k.min(n));
        Work {
            kernel: "top_k",
            shape: format!("over products of {DIM}: N={n} B=32 k={k}"),
            dtype: "f32",
            flops: 2.0 * (n * DIM * 32) as f64,
            bytes: 4.0 * (n * DIM) as f64,
            run: Box::new(move || {
                black_box(
                    index
                        .scan(&SearchContext::default(), Scorer::Dot, &queries.prepared(), k, &Exclusions::default())
                        .expect("valid scan"),
                );
            }),
        }
    };
    [1, 10, 100, 1000, 10_000].into_iter().map(work).collect()
}

/// Numbers of the mean of an item.
const MEAN_WIDTH: usize = 64;

/// Items of which only means of int8 numbers are of interest, as in the first stage of an index of 100 million; everything
/// else about them is left out.
fn means(random: &mut Random, n: usize) -> CpuIndex {
    let shape =
        Shape { p_q: 1, p_x: 1, d_p: MEAN_WIDTH, query_gate: None, item_gate: None, hidden: None, ..Shape::default() };
    let mol = Shape { uid_sizes: Vec::new(), ..shape }.mol(random, 1);
    let (mut raw, mut mean) = (Table::new(1, 1, Dtype::I8), Table::new(1, MEAN_WIDTH, Dtype::I8));
    let mut norms = Table::new(1, 1, Dtype::F32);
    for from in (0..n).step_by(1 << 16) {
        let rows = (n - from).min(1 << 16);
        mean.append(random.tensor(&[rows, MEAN_WIDTH], 1.0).data());
        raw.append(&vec![1.0; rows]);
        norms.append(&vec![1.0; rows]);
    }
    let side = MolTables { components: None, inverse_norms: Some(norms), mean, principal: None, gate: None };
    let tables = Arc::new(Tables { raw, mol: Some(side), tokens: None, lists: Vec::new() });
    CpuIndex::new(tables, Some(&Similarity { mol, distilled: None }))
}

/// The first stage of an index of 100 million items, on 4 million.
fn first_stage(n: usize) -> Vec<Work> {
    let mut random = Random::new(5);
    let index = Arc::new(means(&mut random, n));
    let mut works = Vec::new();
    for n_queries in [1, 32] {
        let vectors: Tensor = random.tensor(&[n_queries, MEAN_WIDTH], 1.0);
        let flops = 2.0 * (n * MEAN_WIDTH * n_queries) as f64;
        let bytes = (n * (MEAN_WIDTH + 4)) as f64;
        let best = (index.clone(), vectors.clone());
        let k = 1000.min(n);
        works.push(Work {
            kernel: "first_stage",
            shape: format!("100M style, here N={n}: mean W={MEAN_WIDTH} B={n_queries} k={k}"),
            dtype: "int8",
            flops,
            bytes,
            run: Box::new(move || {
                let (index, vectors) = &best;
                black_box(
                    index
                        .scan_components(&SearchContext::default(), vectors, Columns::Mean, k, &Exclusions::default())
                        .expect("valid"),
                );
            }),
        });
        // About one item of a thousand passes: the products have a standard deviation of sqrt(MEAN_WIDTH) / 3.
        let thresholds = vec![3.09 * (MEAN_WIDTH as f32).sqrt() / 3.0; n_queries];
        let index = index.clone();
        works.push(Work {
            kernel: "threshold",
            shape: format!("100M style, here N={n}: mean W={MEAN_WIDTH} B={n_queries}, 1 of 1000 passes"),
            dtype: "int8",
            flops,
            bytes,
            run: Box::new(move || {
                black_box(
                    index
                        .above(&SearchContext::default(), &vectors, Columns::Mean, &thresholds, &Exclusions::default())
                        .expect("valid"),
                );
            }),
        });
    }
    works
}

/// How the time of a first stage grows up to 100 million items: scans of the first items of one table.
fn first_stage_curve(most: usize) -> Vec<Work> {
    let mut random = Random::new(6);
    let index = Arc::new(means(&mut random, most));
    let mut works = Vec::new();
    for n_queries in [1, 32] {
        let vectors = random.tensor(&[n_queries, MEAN_WIDTH], 1.0);
        for n in [1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000] {
            let (index, vectors, n) = (index.clone(), vectors.clone(), most.min(n));
            let k = 1000.min(n);
            works.push(Work {
                kernel: "first_stage",
                shape: format!("mean: N={n} W={MEAN_WIDTH} B={n_queries} k={k}"),
                dtype: "int8",
                flops: 2.0 * (n * MEAN_WIDTH * n_queries) as f64,
                bytes: (n * (MEAN_WIDTH + 4)) as f64,
                run: Box::new(move || {
                    black_box(index.scan_first(&SearchContext::default(), &vectors, n, k).expect("valid scan"));
                }),
            });
        }
    }
    works
}
