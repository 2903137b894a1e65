//! A host application that draws with wgpu itself: it lends its device, and takes results without their leaving it.

use crate::common::gpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::demo::Demo;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::gpu::{GpuBackend, GpuIndex, ScanLimits, device_descriptor};
use rails_wgpu::backend::{
    Backend, DeviceIndex, DeviceOutput, Dtype, Exclusions, GpuQueries, QueryBatch, Scorer, SearchContext, Similarity,
};
use rails_wgpu::index::{IndexOptions, ItemIndex, ListOptions, item_tables};
use rails_wgpu::search::{Algorithm, GpuAnswer, Hit, Searcher};
use rails_wgpu::tables::Form;
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, wgpu};

/// A device as a host opens it: from wgpu, with the features and limits that it is told.
fn host(change: impl Fn(&mut wgpu::Limits)) -> Option<(wgpu::Device, wgpu::Queue)> {
    let name = gpu::adapter()?.info.name;
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name).unwrap();
    let mut descriptor = device_descriptor(&adapter);
    change(&mut descriptor.required_limits);
    Some(pollster::block_on(adapter.request_device(&descriptor)).unwrap())
}

/// Queries like those of the demo's encoder, from its own item table.
fn queries(demo: &Demo, n: usize) -> QueryBatch {
    let embeddings = demo.model.item_embeddings(&demo.item_ids[..n]).unwrap();
    QueryBatch::new(embeddings).with_users((0..n as i64).collect::<Vec<i64>>())
}

fn demo_searcher(backend: &dyn Backend, demo: &Demo, options: IndexOptions) -> Searcher {
    Searcher::new(ItemIndex::from_model(backend, &demo.model, &demo.item_ids, options).unwrap())
}

/// What the host itself reads from one of its buffers.
fn read<T: bytemuck::Pod>((device, queue): &(wgpu::Device, wgpu::Queue), buffer: &wgpu::Buffer, n: usize) -> Vec<T> {
    let bytes = (n * size_of::<T>()) as u64;
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let landing =
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &landing, 0, bytes);
    queue.submit([encoder.finish()]);
    landing.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    bytemuck::pod_collect_to_vec(&landing.slice(..).get_mapped_range().unwrap())
}

/// The answer as a host with the buffers sees it.
fn named(host: &(wgpu::Device, wgpu::Queue), answer: &GpuAnswer) -> Vec<Vec<Hit>> {
    let (k, n) = (answer.hits.k, answer.hits.n_queries * answer.hits.k);
    let positions: Vec<u32> = read(host, &answer.hits.positions, n);
    let scores: Vec<f32> = read(host, &answer.hits.scores, n);
    let row = |(positions, scores): (&[u32], &[f32])| {
        let found = positions.iter().take_while(|&&position| position != u32::MAX).count();
        assert!(positions[found..].iter().all(|&position| position == u32::MAX));
        assert!(scores[found..].iter().all(|&score| score == f32::NEG_INFINITY));
        let hit = |i: usize| Hit { id: answer.ids()[positions[i] as usize], score: scores[i] };
        (0..found).map(hit).collect()
    };
    positions.chunks(k).zip(scores.chunks(k)).map(row).collect()
}

#[test]
fn a_host_device_gives_the_results_of_our_own_and_keeps_its_callbacks() {
    let Some((device, queue)) = host(|_| ()) else { return };
    let lost = Arc::new(AtomicU32::new(0));
    let uncaptured = Arc::new(AtomicU32::new(0));
    let (lost_too, uncaptured_too) = (lost.clone(), uncaptured.clone());
    device.set_device_lost_callback(move |_, _| _ = lost_too.fetch_add(1, Ordering::SeqCst));
    device.on_uncaptured_error(Arc::new(move |_| _ = uncaptured_too.fetch_add(1, Ordering::SeqCst)));

    let demo = Demo::load().unwrap();
    let batch = queries(&demo, 5);
    let shared = GpuBackend::from_device(device.clone(), queue).unwrap();
    let own = GpuBackend::new(gpu::shared().unwrap());
    assert_eq!(shared.info().features, own.info().features);
    assert_eq!(shared.gpu().limits(), own.gpu().limits());
    let [found, expected] = [&shared, &own].map(|backend| {
        let searcher = demo_searcher(backend, &demo, IndexOptions::default());
        [Algorithm::Exact, Algorithm::Mips, Algorithm::Tangent { candidates: 40 }]
            .map(|algorithm| searcher.search(algorithm, &batch, 10, &[]).unwrap())
    });
    assert_eq!(found, expected);

    // An error that we cause is ours.
    assert!(shared.gpu().buffer(shared.gpu().limits().max_buffer_size + 4).is_err());
    let searcher = demo_searcher(&shared, &demo, IndexOptions::default());
    device.destroy();
    let error = searcher.search(Algorithm::Exact, &batch, 10, &[]).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert_eq!((lost.load(Ordering::SeqCst), uncaptured.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn the_limits_of_a_default_device_suffice_and_lower_ones_are_named() {
    let Some((device, queue)) = host(|limits| *limits = wgpu::Limits::default()) else { return };
    let demo = Demo::load().unwrap();
    let batch = queries(&demo, 3);
    let backend = GpuBackend::from_device(device, queue).unwrap();
    let found = demo_searcher(&backend, &demo, Dtype::F16.into()).search(Algorithm::Exact, &batch, 7, &[]).unwrap();
    let own = GpuBackend::new(gpu::shared().unwrap());
    let expected = demo_searcher(&own, &demo, Dtype::F16.into()).search(Algorithm::Exact, &batch, 7, &[]).unwrap();
    assert_eq!(found, expected);

    let few = |limits: &mut wgpu::Limits| limits.max_storage_buffers_per_shader_stage = 5;
    let (device, queue) = host(few).unwrap();
    let error = GpuBackend::from_device(device, queue).unwrap_err();
    assert!(matches!(error, Error::Limit { what: "storage buffers per shader stage", need: 8, have: 5 }), "{error}");
}

#[test]
fn a_destroyed_device_is_an_error_and_no_panic() {
    let Some((device, queue)) = host(|_| ()) else { return };
    device.destroy();
    let demo = Demo::load().unwrap();
    let indexed = GpuBackend::from_device(device, queue)
        .and_then(|backend| ItemIndex::from_model(&backend, &demo.model, &demo.item_ids, Dtype::F32));
    assert!(matches!(indexed, Err(Error::Device { .. })));
}

#[test]
fn results_left_on_the_device_are_those_of_the_host() {
    let Some(host) = host(|_| ()) else { return };
    let demo = Demo::load().unwrap();
    let batch = queries(&demo, 6);
    let backend = GpuBackend::from_device(host.0.clone(), host.1.clone()).unwrap();
    let raw = IndexOptions::from(Dtype::I8).with_form(Form::Raw);
    for options in [IndexOptions::default(), Dtype::F16.into(), raw] {
        let searcher = demo_searcher(&backend, &demo, options);
        let seen: Vec<Vec<u64>> = (0..6).map(|i| (1..=150 + 10 * i).collect()).collect();
        let seen: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
        for (algorithm, k, excluded) in
            [(Algorithm::Exact, 10, &[][..]), (Algorithm::Mips, 200, &[]), (Algorithm::Exact, 150, &seen)]
        {
            let expected = searcher.search(algorithm, &batch, k, excluded).unwrap();
            let answer = searcher.search_on_gpu(algorithm, &batch, k, excluded).unwrap();
            assert_eq!((answer.hits.n_queries, answer.hits.k), (6, k));
            assert_eq!(named(&host, &answer), expected);
            assert!(excluded.is_empty() || expected.iter().all(|hits| hits.len() < k), "rows that are not full");

            // Queries that are on the device already.
            let buffer = device_buffer(&host, batch.embeddings.data(), wgpu::BufferUsages::COPY_SRC);
            let on_device =
                GpuQueries::Device { embeddings: &buffer, n_queries: batch.len(), user_ids: batch.user_ids.as_deref() };
            let answer = searcher.search_on_gpu(algorithm, on_device, k, excluded).unwrap();
            assert_eq!(named(&host, &answer), expected);
        }
    }
}

#[test]
fn approximate_results_left_on_the_device_are_those_of_the_host() {
    let Some(host) = host(|_| ()) else { return };
    let demo = Demo::load().unwrap();
    let batch = queries(&demo, 6);
    let backend = GpuBackend::from_device(host.0.clone(), host.1.clone()).unwrap();
    let lists = ListOptions::new(7);
    let searcher = demo_searcher(&backend, &demo, IndexOptions::default().with_lists(lists));
    searcher.index().distill(&batch).unwrap();
    let buffer = device_buffer(&host, batch.embeddings.data(), wgpu::BufferUsages::COPY_SRC);
    let on_device =
        GpuQueries::Device { embeddings: &buffer, n_queries: batch.len(), user_ids: batch.user_ids.as_deref() };
    let seen: Vec<Vec<u64>> = (0..6).map(|i| (1..=20 * i).collect()).collect();
    let seen: Vec<&[u64]> = seen.iter().map(Vec::as_slice).collect();
    for name in [
        "naive:20",
        "naive-ivf:20@7",
        "avg:20",
        "comb:5_20",
        "tangent:40",
        "tangent-sampled:40",
        "tangent-ivf:40@2",
        "distilled:20",
        "cascade:60_20",
    ] {
        let algorithm = name.parse().unwrap();
        let expected = searcher.search(algorithm, &batch, 20, &seen).unwrap();
        let answer = searcher.search_on_gpu(algorithm, &batch, 20, &seen).unwrap();
        assert_eq!(named(&host, &answer), expected, "{name}");
        let answer = searcher.search_on_gpu(algorithm, on_device, 20, &seen).unwrap();
        assert_eq!(named(&host, &answer), expected, "{name}, queries on the device");
    }
}

fn device_buffer(
    (device, queue): &(wgpu::Device, wgpu::Queue),
    data: &[f32],
    usage: wgpu::BufferUsages,
) -> wgpu::Buffer {
    let data: &[u8] = bytemuck::cast_slice(data);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("the host's"),
        size: data.len() as u64,
        usage: usage | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, data);
    buffer
}

/// Batches that are cut into slices go to the rows where they belong; a later search does not touch an earlier answer.
#[test]
fn slices_of_a_batch_meet_in_the_same_buffers() {
    let Some(host) = host(|_| ()) else { return };
    let demo = Demo::load().unwrap();
    let backend = GpuBackend::from_device(host.0.clone(), host.1.clone()).unwrap();
    let batch = queries(&demo, 9);
    let items = demo.model.item_embeddings(&demo.item_ids).unwrap();
    let mol = demo.model.mol.as_ref().unwrap();
    let tables = Arc::new(item_tables(&backend, &items, Some(mol), Dtype::F32, Form::Components).unwrap());
    let similarity = Similarity { mol: mol.clone(), distilled: None };
    // Room for the lists of two queries at a time.
    let limits = ScanLimits { hit_list_bytes: 2 * 8 * 80, first_chunk: 64, ..ScanLimits::default() };
    let index = GpuIndex::new(&SearchContext::default(), backend.gpu(), tables, Some(&similarity), limits).unwrap();
    let scan = |scorer, k| {
        index.scan_to_buffers(&SearchContext::default(), scorer, (&batch).into(), k, &Exclusions::default()).unwrap()
    };
    let first = scan(Scorer::Mol, 11);
    let second = scan(Scorer::Dot, 5);
    for (scorer, k, hits) in [(Scorer::Mol, 11, first), (Scorer::Dot, 5, second)] {
        let expected =
            index.scan(&SearchContext::default(), scorer, &batch.prepared(), k, &Exclusions::default()).unwrap();
        let expected: Vec<_> = expected.iter().flatten().collect();
        let positions: Vec<u32> = read(&host, &hits.positions, 9 * k);
        let scores: Vec<f32> = read(&host, &hits.scores, 9 * k);
        assert!(positions.iter().zip(&expected).all(|(position, hit)| *position == hit.position));
        assert!(scores.iter().zip(&expected).all(|(score, hit)| score.to_bits() == hit.score.to_bits()));
    }
}

#[test]
fn what_cannot_stay_on_the_device_is_an_error() {
    let Some(host) = host(|_| ()) else { return };
    let demo = Demo::load().unwrap();
    let batch = queries(&demo, 2);
    let backend = GpuBackend::from_device(host.0.clone(), host.1.clone()).unwrap();
    let says = |searcher: &Searcher, algorithm, queries: GpuQueries, k| {
        searcher.search_on_gpu(algorithm, queries, k, &[]).map(|_| ()).unwrap_err().to_string()
    };
    let on_cpu = demo_searcher(&Cpu::default(), &demo, IndexOptions::default());
    assert!(says(&on_cpu, Algorithm::Exact, (&batch).into(), 3).contains("one segment on one GPU"));
    let cut = IndexOptions::default().with_segment_items(100);
    let cut = demo_searcher(&backend, &demo, cut);
    assert!(says(&cut, Algorithm::Exact, (&batch).into(), 3).contains("2 segments"));
    let whole = demo_searcher(&backend, &demo, IndexOptions::default());
    let h_indexer = Algorithm::HIndexer { candidates: 20 };
    assert!(says(&whole, h_indexer, (&batch).into(), 3).contains("known number of candidates"));
    let tangent = Algorithm::Tangent { candidates: 20 };
    let error = says(&whole, tangent, (&batch).into(), 21);
    assert!(error.contains("21 candidates or more") && error.contains("`tangent:20`"), "{error}");
    assert!(says(&whole, Algorithm::Exact, (&batch).into(), 0).contains("k"));
    let narrow = QueryBatch::new(Tensor::new(vec![2, 3], vec![0.0; 6]).unwrap());
    assert!(says(&whole, Algorithm::Exact, (&narrow).into(), 3).contains("query embeddings"));
    let short = device_buffer(&host, &[0.0; 31], wgpu::BufferUsages::COPY_SRC);
    let short = GpuQueries::Device { embeddings: &short, n_queries: 2, user_ids: None };
    assert!(says(&whole, Algorithm::Exact, short, 3).contains("128 bytes or more"));
    let sealed = device_buffer(&host, &[0.0; 32], wgpu::BufferUsages::STORAGE);
    let sealed = GpuQueries::Device { embeddings: &sealed, n_queries: 2, user_ids: None };
    assert!(says(&whole, Algorithm::Exact, sealed, 3).contains("COPY_SRC"));
}
