//! A search needs memory for its batch and its results, whatever the number of items. `benches/memory.rs` measures the same
//! at a million items.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/counting.rs"]
mod counting;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "common/models.rs"]
mod models;

use counting::Counting;
use models::{Random, Shape};
use rails_wgpu::backend::cpu::{Cpu, CpuOps};
use rails_wgpu::backend::{Dtype, QueryBatch};
use rails_wgpu::config::{
    EmbeddingNorm, EncoderConfig, HstuConfig, LinearActivation, ModelConfig, OutputConfig, SimilarityConfig,
    TrainConfig,
};
use rails_wgpu::index::{ItemIndex, ItemSource, Items};
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::sequence::{History, SequenceBatch};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::train::{TrainBatch, Trainer, fresh_model};

#[global_allocator]
static MEMORY: Counting = Counting::new();

const DIM: usize = 6;
const B: usize = 32;
const K: usize = 100;
const THREADS: usize = 2;

/// Bytes that a search may need: for each query the hits that every thread holds and that are merged, of 8 bytes, those of
/// the result, and the query side; and for each thread some tiles.
fn allowed(candidates: usize) -> usize {
    let of_query = (THREADS + 1) * 2 * K.max(candidates).max(64) * 8 + K * 32 + 16 * candidates + 4096;
    2 * (B * of_query + THREADS * (64 << 10))
}

/// One test, because all tests of a program share its memory.
#[test]
fn the_memory_of_a_search_does_not_depend_on_the_number_of_items() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
    let mut random = Random::new(4);
    let mol = Shape { uid_sizes: Vec::new(), ..Shape::default() }.mol(&mut random, DIM);
    let queries = QueryBatch::new(random.tensor(&[B, DIM], 1.0));
    let items = random.tensor(&[100_000, DIM], 1.0);
    let searcher = |n: usize| {
        let ids: Vec<u64> = (0..n as u64).collect();
        let items = Tensor::new(vec![n, DIM], items.data()[..n * DIM].to_vec()).unwrap();
        Searcher::new(ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, Some(&mol), Dtype::F32).unwrap())
    };
    let (small, large) = (searcher(10_000), searcher(100_000));
    let algorithms = [
        (Algorithm::Exact, 0),
        (Algorithm::Mips, 0),
        (Algorithm::Avg { candidates: 500 }, 500),
        (Algorithm::Tangent { candidates: 500 }, 500),
    ];
    for (algorithm, candidates) in algorithms {
        let peak = |searcher: &Searcher| {
            let search = || pool.install(|| searcher.search(algorithm, &queries, K, &[]).unwrap());
            // Threads keep what they need to begin with.
            search();
            (0..3).map(|_| MEMORY.peak_of(search).1).max().unwrap()
        };
        let allowed = allowed(candidates);
        for searcher in [&small, &large] {
            let (n, peak) = (searcher.index().len(), peak(searcher));
            assert!(peak < allowed, "{algorithm}: {peak} bytes for {n} items, {allowed} are enough");
        }
        // What must not happen: one number for each pair.
        let pairs = MEMORY.peak_of(|| (vec![0u32; B * large.index().len()], peak(&large))).1;
        assert!(pairs > allowed, "{algorithm}: scores of all pairs, in {pairs} bytes, would not have been noticed");
    }
    assert!(allowed(0) < 64 << 20);

    // An index of f16 takes half the memory of the items, and building it no copy of them.
    let items = random.tensor(&[20_000, 64], 1.0);
    let ids: Vec<u64> = (0..items.rows() as u64).collect();
    let build = || ItemIndex::from_embeddings(&Cpu::default(), &ids, &items, None, Dtype::F16).unwrap();
    let (index, peak) = MEMORY.peak_of(build);
    let copy = size_of_val(items.data());
    assert!(peak < copy, "{peak} bytes to build an index of {} items, a copy of which takes {copy}", index.len());
    drop(index);

    // What comes a chunk at a time, in whatever order, takes as much as the tables, and a chunk: no more at any time.
    const CHUNK: usize = 1000;
    let order: Vec<usize> = (0..items.rows()).map(|row| row * 7919 % items.rows()).collect();
    let chunk = |rows: &[usize]| Ok(Items::new(rows.iter().map(|&row| row as u64).collect(), items.select_rows(rows)));
    let source = || ItemSource::new(items.rows(), order.chunks(CHUNK).map(chunk));
    let build = || Searcher::builder().items(source()).dtype(Dtype::F16).device("cpu").build().unwrap();
    let (searcher, peak) = MEMORY.peak_of(build);
    // Ids, in chunks and of all, and their order take three words an item; rows that are read one by one take some too.
    let most = copy / 2 + 2 * CHUNK * 64 * 4 + 3 * 8 * items.rows() + (64 << 10);
    assert!(peak < most, "{peak} bytes for {} items that come in chunks, {most} are enough", searcher.index().len());
    let table = copy / 2;
    assert!(peak > table, "{peak} bytes cannot hold a table of {table}");

    pool.install(later_steps_of_a_training_use_the_memory_of_the_first);
}

/// The arrays of a step lie where those of the step before lay; what is drawn, and the sums of the loss, are new.
fn later_steps_of_a_training_use_the_memory_of_the_first() {
    let hstu = HstuConfig {
        num_blocks: 4,
        num_heads: 2,
        dqk: 8,
        dv: 8,
        linear_activation: LinearActivation::Silu,
        concat_ua: false,
    };
    let config = ModelConfig {
        item_embedding_dim: 16,
        max_sequence_length: 100,
        gr_output_length: 10,
        user_embedding_norm: EmbeddingNorm::L2Norm,
        item_l2_norm: true,
        l2_norm_eps: 1e-6,
        encoder: EncoderConfig::Hstu(hstu),
        similarity: SimilarityConfig::DotProduct,
        output: OutputConfig::default(),
    };
    let ids: Vec<u32> = (0..101).map(|i| 1 + 37 * i % 500).collect();
    let times: Vec<i64> = (0..101).map(|i| 1000 * i).collect();
    let history = |user_id| History { user_id, item_ids: &ids[..100], timestamps: &times[..100], now: times[100] };
    let histories: Vec<History> = (0..40).map(history).collect();
    let sequences = SequenceBatch::new(&histories, &config, 501).unwrap();
    let batch = TrainBatch { sequences, targets: ids[1..].repeat(40) };
    let model = fresh_model(&config, 501, 1).unwrap();
    let train = TrainConfig::default().with_negatives(4);
    let mut trainer = Trainer::new(CpuOps::pooled(), &model, &train, None).unwrap();
    let mut peak = || MEMORY.peak_of(|| trainer.step(&batch, None).unwrap()).1;
    let (first, later) = (peak(), [(); 3].map(|()| peak()));
    let live = MEMORY.live();
    assert!(later.iter().all(|&later| later * 3 < first), "{first} bytes, later {later:?}");
    peak();
    assert!(MEMORY.live() < live + (64 << 10), "{live} bytes, later {}", MEMORY.live());
}
