//! A server in small: many tasks ask for one user each, and a batcher answers them together. A scan of the items costs
//! little more for 32 queries than for one, so waiting a millisecond for company pays.
//! Run it with `cargo run --release --example 04_batching`.

#[path = "../assets/demo.rs"]
mod demo;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use demo::Demo;
use futures::channel::oneshot;
use futures::future::join_all;
use rails_wgpu::backend::{QueryBatch, select};
use rails_wgpu::search::{Algorithm, Hit, Searcher};
use rails_wgpu::tensor::Tensor;
use rails_wgpu::{Error, Result};

/// Most queries of a batch.
const MOST: usize = 32;
/// Longest wait of a query for others.
const BUDGET: Duration = Duration::from_millis(1);

/// One query, and who waits for its answer. An error of a batch is everybody's.
struct Question {
    embedding: Vec<f32>,
    user_id: i64,
    seen: Vec<u64>,
    answer: oneshot::Sender<Result<Vec<Hit>, Arc<Error>>>,
}

/// The asynchronous side. Clone it into every task.
#[derive(Clone)]
struct Recommender {
    questions: Sender<Question>,
}

impl Recommender {
    async fn recommend(&self, embedding: Vec<f32>, user_id: i64, seen: Vec<u64>) -> Result<Vec<Hit>, Arc<Error>> {
        let (answer, waiting) = oneshot::channel();
        let ended = || Arc::new(Error::Device { device: "batcher".into(), what: "has ended".into() });
        self.questions.send(Question { embedding, user_id, seen, answer }).map_err(|_| ended())?;
        waiting.await.map_err(|_| ended())?
    }
}

/// The thread that searches: takes a question, then others until the batch is full or the first has waited long enough.
fn serve(searcher: &Searcher, questions: &Receiver<Question>, sizes: &Mutex<Vec<usize>>) {
    while let Ok(first) = questions.recv() {
        let deadline = Instant::now() + BUDGET;
        let mut batch = vec![first];
        while batch.len() < MOST
            && let Ok(next) = questions.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            batch.push(next);
        }
        if let Ok(mut sizes) = sizes.lock() {
            sizes.push(batch.len());
        }
        answer(searcher, batch);
    }
}

fn answer(searcher: &Searcher, batch: Vec<Question>) {
    let embeddings: Vec<f32> = batch.iter().flat_map(|question| &question.embedding).copied().collect();
    let users: Vec<i64> = batch.iter().map(|question| question.user_id).collect();
    let seen: Vec<&[u64]> = batch.iter().map(|question| question.seen.as_slice()).collect();
    let found = Tensor::new([batch.len(), embeddings.len() / batch.len()], embeddings)
        .and_then(|embeddings| {
            searcher.search(Algorithm::Exact, &QueryBatch::new(embeddings).with_users(users), 5, &seen)
        })
        .map_err(Arc::new);
    for (i, question) in batch.into_iter().enumerate() {
        // Nobody waits any more where the task was dropped.
        let _ = question.answer.send(found.as_ref().map(|hits| hits[i].clone()).map_err(Arc::clone));
    }
}

fn main() -> Result<()> {
    let demo = Demo::load()?;
    let backend = select::open("auto")?;
    let searcher = Searcher::builder().model(&demo.model, &demo.item_ids).backend(backend.clone()).build()?;
    let queries = demo.queries(backend.as_ref())?;

    let (sender, receiver) = channel();
    let sizes = Mutex::new(Vec::new());
    let (answers, took) = std::thread::scope(|scope| {
        let (searcher, sizes) = (&searcher, &sizes);
        scope.spawn(move || serve(searcher, &receiver, sizes));
        let recommender = Recommender { questions: sender };
        // Ten rounds of a task for every user. With an executor of several threads, spawn them there.
        let tasks = (0..10).flat_map(|_| demo.dataset.sequences.iter().enumerate()).map(|(row, user)| {
            let recommender = recommender.clone();
            let embedding = queries.embeddings.row(row).to_vec();
            let seen = user.item_ids.iter().map(|&id| id.into()).collect();
            async move { recommender.recommend(embedding, user.user_id, seen).await }
        });
        let started = Instant::now();
        let answers = futures::executor::block_on(join_all(tasks));
        (answers, started.elapsed())
    });

    let good = answers.iter().filter(|answer| answer.as_ref().is_ok_and(|hits| hits.len() == 5)).count();
    let sizes = sizes.into_inner().unwrap_or_default();
    let largest = sizes.iter().max().copied().unwrap_or(0);
    println!("{good} of {} questions answered in {} batches of at most {largest}", answers.len(), sizes.len());
    println!("{:.0} answers per second", good as f64 / took.as_secs_f64());
    Ok(())
}
