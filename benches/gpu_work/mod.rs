//! What the GPU benchmark measures: every kernel of the wgpu backend at named shapes, on seeded random weights and items.

mod encoders;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/common/models.rs"]
mod models;
pub mod peak;

use std::sync::Arc;

use models::{Random, Shape};
use peak::Unit;
use rails_wgpu::Result;
use rails_wgpu::backend::gpu::{Gpu, GpuBackend, GpuIndex, ScanLimits};
use rails_wgpu::backend::{Columns, DeviceIndex, Dtype, Exclusions, QueryBatch, Scorer, SearchContext, Similarity};
use rails_wgpu::index::item_tables;
use rails_wgpu::ops::Linear;
use rails_wgpu::tables::Form;

/// K of every scan whose name does not say otherwise.
const K: usize = 100;

/// What the dispatches of one kernel compute and read in one run of a work, as far as it says something.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Products and sums of dots and of layers, nothing else.
    pub flops: f64,
    /// Bytes of tables or arrays, each counted once.
    pub bytes: f64,
    /// Where the operations are done.
    pub unit: Unit,
}

/// In a context that measures it.
pub type Run = dyn Fn(&SearchContext) -> Result<()>;

/// One thing to time.
pub struct Work {
    /// Its sizes in words.
    pub shape: String,
    /// Number format of the tables.
    pub dtype: &'static str,
    /// The kernels whose costs are known.
    pub costs: Vec<(&'static str, Cost)>,
    /// Shows those kernels only: the others are measured by other works.
    pub only: bool,
    /// One run.
    pub run: Box<Run>,
}

/// Works that share an index, which is made when they are due and dropped after them.
pub struct Group {
    pub name: &'static str,
    /// Takes the most items that there may be.
    make: fn(&Arc<Gpu>, usize) -> Result<Vec<Work>>,
}

impl Group {
    /// Makes its works; `quick`: with few items.
    ///
    /// # Errors
    /// If the device fails.
    pub fn works(&self, gpu: &Arc<Gpu>, quick: bool) -> Result<Vec<Work>> {
        (self.make)(gpu, if quick { 600 } else { usize::MAX })
    }
}

/// Every group.
pub const GROUPS: &[Group] = &[
    Group {
        name: "mol 8x4x64",
        make: |gpu, most| mixtures(gpu, 100_000.min(most), (8, 4, 64), 50, &batches(most, &[1, 32, 256])),
    },
    Group {
        name: "mol 8x4x128",
        make: |gpu, most| mixtures(gpu, 26_744.min(most), (8, 4, 128), 256, &batches(most, &[32])),
    },
    Group {
        name: "mol 8x8x32",
        make: |gpu, most| mixtures(gpu, 200_000.min(most), (8, 8, 32), 64, &batches(most, &[32])),
    },
    Group { name: "first stages", make: |gpu, most| first_stages(gpu, 1_000_000.min(most), &batches(most, &[1, 32])) },
    Group { name: "mips", make: |gpu, most| flat(gpu, 1_000_000.min(most), &batches(most, &[1, 32, 256])) },
    Group { name: "top-k", make: |gpu, most| top_k(gpu, 200_000.min(most), &batches(most, &[1, 32])) },
    Group { name: "encoders", make: |gpu, most| encoders::works(gpu, 128.min(most / 600)) },
];

/// These numbers, none above `most`, each once.
fn capped(numbers: &[usize], most: usize) -> Vec<usize> {
    let mut capped: Vec<usize> = numbers.iter().map(|&n| n.min(most)).collect();
    capped.dedup();
    capped
}

/// Sizes of batches that suit the most items that there may be.
fn batches(most: usize, sizes: &[usize]) -> Vec<usize> {
    capped(sizes, most / 50)
}

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::I8];

/// Bytes of `width` numbers of an item, which are so many vectors.
fn row_bytes(dtype: Dtype, width: usize, vectors: usize) -> usize {
    width * dtype.bytes() + if dtype == Dtype::I8 { 4 * vectors } else { 0 }
}

fn batch(random: &mut Random, n: usize, dim: usize) -> QueryBatch {
    QueryBatch::new(random.tensor(&[n, dim], 1.0))
}

/// Random items with a random similarity of P_Q x P_X x D_P components and 128 hidden units.
fn mol_index(
    gpu: &Arc<Gpu>,
    random: &mut Random,
    (n, dim): (usize, usize),
    (p_q, p_x, d_p): (usize, usize, usize),
    (dtype, form): (Dtype, Form),
) -> Result<Arc<GpuIndex>> {
    let gates = Some(128);
    let shape = Shape { p_q, p_x, d_p, query_gate: gates, item_gate: gates, hidden: gates, ..Shape::default() };
    let mut mol = Shape { uid_sizes: Vec::new(), ..shape }.mol(random, dim);
    let weight = random.tensor(&[p_x * d_p, 64], 0.1);
    mol.principal = Some(Linear { weight, bias: None, n_in: p_x * d_p, n_out: 64 });
    let items = random.tensor(&[n, dim], 1.0);
    let tables = item_tables(&GpuBackend::new(gpu.clone()), &items, Some(&mol), dtype, form)?;
    let similarity = Similarity { mol, distilled: None };
    Ok(Arc::new(GpuIndex::new(
        &SearchContext::default(),
        gpu,
        Arc::new(tables),
        Some(&similarity),
        ScanLimits::default(),
    )?))
}

/// The full similarity: scans of both forms of the tables, and rescoring.
fn mixtures(
    gpu: &Arc<Gpu>,
    n: usize,
    (p_q, p_x, d_p): (usize, usize, usize),
    dim: usize,
    batches: &[usize],
) -> Result<Vec<Work>> {
    let mut random = Random::new(1);
    let n_logits = p_q * p_x;
    let mut works = Vec::new();
    for (form, words) in [(Form::Components, "components"), (Form::Raw, "raw form")] {
        let dots = if form == Form::Raw { n_logits * dim } else { n_logits * d_p };
        let flops = (2 * dots + 4 * n_logits * 128) as f64;
        for dtype in DTYPES {
            let bytes = match form == Form::Raw {
                true => row_bytes(dtype, dim + n_logits, 2) + 4 * p_x,
                false => row_bytes(dtype, p_x * d_p + n_logits, p_x + 1),
            } as f64;
            let index = mol_index(gpu, &mut random, (n, dim), (p_q, p_x, d_p), (dtype, form))?;
            for &n_queries in batches {
                let (of_scan, queries) = (index.clone(), batch(&mut random, n_queries, dim));
                works.push(Work {
                    shape: format!("{words}: N={n} {p_q}x{p_x}x{d_p} H=128 D={dim} B={n_queries} k={K}"),
                    dtype: dtype.name(),
                    costs: vec![("mol_scan", cost(flops * (n * n_queries) as f64, bytes * n as f64))],
                    only: true,
                    run: Box::new(move |context| {
                        of_scan.scan(context, Scorer::Mol, &queries.prepared(), K, &Exclusions::default()).map(drop)
                    }),
                });
            }
            let mut position = || ((random.number() + 1.0) / 2.0 * (n - 1) as f32) as u32;
            let candidates: Vec<Vec<u32>> = (0..32).map(|_| (0..1000).map(|_| position()).collect()).collect();
            let queries = batch(&mut random, 32, dim);
            let pairs = 32_000.0;
            works.push(Work {
                shape: format!("{words}: 1000 random candidates of N={n}, {p_q}x{p_x}x{d_p} H=128 D={dim} B=32"),
                dtype: dtype.name(),
                costs: vec![("mol_rescore", cost(flops * pairs, bytes * pairs))],
                only: true,
                run: Box::new(move |context| {
                    index.rescore(context, Scorer::Mol, &queries.prepared(), &candidates).map(drop)
                }),
            });
        }
    }
    Ok(works)
}

fn cost(flops: f64, bytes: f64) -> Cost {
    Cost { flops, bytes, unit: Unit::F32 }
}

/// Inner products of 8-bit items are in integers, and with both bytes of a query's numbers.
fn dot_cost(dtype: Dtype, flops: f64, bytes: f64) -> Cost {
    match dtype {
        Dtype::I8 => Cost { flops: 2.0 * flops, bytes, unit: Unit::I8 },
        _ => cost(flops, bytes),
    }
}

/// The scans that first stages are made of, and what they select: 1,000 candidates.
fn first_stages(gpu: &Arc<Gpu>, n: usize, batches: &[usize]) -> Result<Vec<Work>> {
    let mut random = Random::new(2);
    let mut works = Vec::new();
    for dtype in DTYPES {
        let form = (dtype, Form::Components);
        let index = mol_index(gpu, &mut random, (n, 50), (8, 4, 64), form)?;
        for (words, columns, width, groups) in [
            ("mean", Columns::Mean, 64, 1),
            ("principal", Columns::Principal, 64, 1),
            ("all components", Columns::All, 256, 4),
        ] {
            for &n_queries in batches {
                let (index, vectors) = (index.clone(), random.tensor(&[n_queries, width], 1.0));
                let (flops, bytes) = ((2 * n * width * n_queries) as f64, (n * row_bytes(dtype, width, groups)) as f64);
                let k = 1000.min(n);
                works.push(Work {
                    shape: format!("{words}: N={n} W={width} B={n_queries} k={k}"),
                    dtype: dtype.name(),
                    costs: vec![("dot_scan", dot_cost(dtype, flops, bytes))],
                    only: false,
                    run: Box::new(move |context| {
                        index.scan_components(context, &vectors, columns, k, &Exclusions::default()).map(drop)
                    }),
                });
            }
        }
    }
    Ok(works)
}

/// A flat index without any similarity of its own.
fn plain(
    gpu: &Arc<Gpu>,
    random: &mut Random,
    (n, dim): (usize, usize),
    dtype: Dtype,
    limits: ScanLimits,
) -> Result<Arc<GpuIndex>> {
    let items = random.tensor(&[n, dim], 1.0);
    let tables = item_tables(&GpuBackend::new(gpu.clone()), &items, None, dtype, Form::Components)?;
    Ok(Arc::new(GpuIndex::new(&SearchContext::default(), gpu, Arc::new(tables), None, limits)?))
}

fn flat(gpu: &Arc<Gpu>, n: usize, batches: &[usize]) -> Result<Vec<Work>> {
    const DIM: usize = 64;
    let mut random = Random::new(3);
    let mut works = Vec::new();
    for dtype in DTYPES {
        let index = plain(gpu, &mut random, (n, DIM), dtype, ScanLimits::default())?;
        for &n_queries in batches {
            let (index, queries) = (index.clone(), batch(&mut random, n_queries, DIM));
            let (flops, bytes) = ((2 * n * DIM * n_queries) as f64, (n * row_bytes(dtype, DIM, 1)) as f64);
            works.push(Work {
                shape: format!("flat: N={n} D={DIM} B={n_queries} k={K}"),
                dtype: dtype.name(),
                costs: vec![("dot_scan", dot_cost(dtype, flops, bytes))],
                only: false,
                run: Box::new(move |context| {
                    index.scan(context, Scorer::Dot, &queries.prepared(), K, &Exclusions::default()).map(drop)
                }),
            });
        }
    }
    Ok(works)
}

/// Selecting and sorting: in chunks, as a scan does, and of one list of all N at once. The scan itself is next to nothing.
fn top_k(gpu: &Arc<Gpu>, n: usize, batches: &[usize]) -> Result<Vec<Work>> {
    const DIM: usize = 4;
    let mut random = Random::new(4);
    let whole = ScanLimits { first_chunk: n, sampled_items: usize::MAX, ..ScanLimits::default() };
    let mut works = Vec::new();
    for (words, limits) in [("in chunks", ScanLimits::default()), ("of one list", whole)] {
        let index = plain(gpu, &mut random, (n, DIM), Dtype::F32, limits)?;
        for &n_queries in batches {
            for k in capped(&[10, 100, 1000, 2048, 10_000], n) {
                let (index, queries) = (index.clone(), batch(&mut random, n_queries, DIM));
                works.push(Work {
                    shape: format!("{words}: n={n} B={n_queries} k={k}"),
                    dtype: "f32",
                    costs: Vec::new(),
                    only: false,
                    run: Box::new(move |context| {
                        index.scan(context, Scorer::Dot, &queries.prepared(), k, &Exclusions::default()).map(drop)
                    }),
                });
            }
        }
    }
    Ok(works)
}
