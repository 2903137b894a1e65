//! The search, on a thread of its own: the window never waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rails_wgpu::backend::{Backend, QueryBatch};
use rails_wgpu::search::{Algorithm, Hit, Request, Searcher};
use rails_wgpu::sequence::History;
use rails_wgpu::{Attributes, Condition, Result};

use crate::catalog::film;
use crate::demo::Demo;

/// Recommendations per question, and the k of recall.
pub const K: usize = 10;

/// Films, most of them made up from the model's items.
pub const LIBRARY: usize = 20_000;

/// Users whose queries, one at a time, measure an algorithm.
const MEASURED: usize = 32;

/// The algorithms that can be chosen.
pub const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::Exact,
    Algorithm::Tangent { candidates: 1000 },
    Algorithm::Avg { candidates: 1000 },
    Algorithm::Naive { per_group: 100 },
    Algorithm::Comb { per_group: 50, candidates: 500 },
    Algorithm::Distilled { candidates: 100 },
    Algorithm::Mips,
];

/// What the user likes, oldest first, and how to search.
#[derive(Clone, PartialEq)]
pub struct Question {
    /// Items; at least one.
    pub likes: Vec<u32>,
    /// How.
    pub algorithm: Algorithm,
    /// The genre of what may be found; `None`: any.
    pub genre: Option<&'static str>,
    /// The first year of what may be found.
    pub since: u32,
    /// Whether every algorithm has run already, so that the times are not those of compiling kernels.
    pub is_warm: bool,
}

/// An answered [`Question`].
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// The best items that are not liked already.
    pub hits: Vec<Hit>,
    /// Time of the encoder.
    pub encoding: Duration,
    /// Time of the search.
    pub searching: Duration,
    /// Items scored with the full similarity.
    pub scored: u64,
}

/// What one algorithm is good for on this device.
#[derive(Clone, Copy)]
pub struct Point {
    /// Which.
    pub algorithm: Algorithm,
    /// Share of the exact best [`K`] that it finds.
    pub recall: f64,
    /// Median time of a search for one user.
    pub latency: Duration,
}

/// What the thread has to say.
pub enum Event {
    /// The newest question is answered.
    Answered(Answer),
    /// An algorithm was measured.
    Measured(Point),
    /// All were.
    Idle,
    /// Something went wrong.
    Failed(String),
}

/// The window's end of the thread.
pub struct Engine {
    questions: Sender<Question>,
    /// What has happened, in order.
    pub events: Receiver<Event>,
}

impl Engine {
    /// Starts the thread; `wake` is called after each event.
    pub fn start(backend: Arc<dyn Backend>, wake: impl Fn() + Send + 'static) -> Engine {
        let (questions, asked) = channel();
        let (tell, events) = channel();
        std::thread::spawn(move || {
            let say = |event| {
                // The window may be closed already.
                let _ = tell.send(event);
                wake();
            };
            if let Err(error) = Worker::new(backend).and_then(|worker| worker.run(&asked, &say)) {
                say(Event::Failed(error.to_string()));
            }
        });
        Engine { questions, events }
    }

    /// Asks; an earlier question that is not answered yet is dropped.
    pub fn ask(&self, question: Question) {
        // The thread has said why if it has ended.
        let _ = self.questions.send(question);
    }
}

struct Worker {
    demo: Demo,
    searcher: Searcher,
    users: QueryBatch,
}

impl Worker {
    fn new(backend: Arc<dyn Backend>) -> Result<Worker> {
        let demo = Demo::load()?;
        let (ids, embeddings) = demo.library(LIBRARY)?;
        let films = || ids.iter().map(|&id| film(id as u32));
        let attributes = Attributes::new(ids.clone())
            .with_column("year", films().map(|film| film.year).collect::<Vec<u32>>())?
            .with_column("genre", films().map(|film| film.genre).collect::<Vec<&str>>())?;
        let builder = Searcher::builder().embeddings(&ids, &embeddings).attributes(attributes);
        let builder = builder.encoder(&demo.model).backend(backend.clone());
        let searcher = match &demo.model.mol {
            Some(mol) => builder.mol(mol).build()?,
            None => builder.build()?,
        };
        let users = demo.queries(backend.as_ref())?;
        searcher.index().distill(&users)?;
        Ok(Worker { demo, searcher, users })
    }

    /// Answers questions, and measures an algorithm whenever there is none.
    fn run(&self, asked: &Receiver<Question>, say: &dyn Fn(Event)) -> Result<()> {
        let mut exact = Vec::new();
        let mut left = ALGORITHMS.iter();
        loop {
            match asked.try_recv() {
                Ok(question) => {
                    let newest = asked.try_iter().last().unwrap_or(question);
                    say(Event::Answered(self.answer(newest)?));
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => match left.next() {
                    Some(&algorithm) => say(Event::Measured(self.measure(algorithm, &mut exact)?)),
                    None => {
                        say(Event::Idle);
                        let Ok(question) = asked.recv() else { return Ok(()) };
                        let newest = asked.try_iter().last().unwrap_or(question);
                        say(Event::Answered(self.answer(newest)?));
                    }
                },
            }
        }
    }

    fn answer(&self, question: Question) -> Result<Answer> {
        // As if they had been watched evening after evening.
        let day = 86_400;
        let timestamps: Vec<i64> = (1..=question.likes.len() as i64).map(|evening| evening * day).collect();
        let now = (timestamps.len() as i64 + 1) * day;
        // The encoder knows the model's own items: a film that is like one of them counts as that one.
        let rows = self.demo.model.n_item_rows() as u32 - 1;
        let item_ids: Vec<u32> = question.likes.iter().map(|id| (id - 1) % rows + 1).collect();
        let history = History { user_id: 1, item_ids: &item_ids, timestamps: &timestamps, now };
        let started = Instant::now();
        let queries = self.searcher.encode(&[history])?;
        let encoding = started.elapsed();
        let seen: Vec<u64> = question.likes.iter().map(|&id| id.into()).collect();
        let excluded: [&[u64]; 1] = [&seen];
        let conditions = [Condition::new("year >= ?1 AND (?2 IS NULL OR genre = ?2)")?
            .with_params([question.since.into(), question.genre.into()])];
        let request = Request::new(question.algorithm, K).with_excluded(&excluded).with_conditions(&conditions);
        let started = Instant::now();
        let mut answer = self.searcher.answer(&queries, &request)?;
        let searching = started.elapsed();
        let hits = answer.hits.pop().unwrap_or_default();
        Ok(Answer { question, hits, encoding, searching, scored: answer.stats.pairs })
    }

    /// `exact` is filled by the first algorithm, which is exact, and read by the others.
    fn measure(&self, algorithm: Algorithm, exact: &mut Vec<Vec<Hit>>) -> Result<Point> {
        let user = |row: usize| self.users.select(&[row]);
        let rows = 0..MEASURED.min(self.users.len());
        // The first search compiles kernels.
        self.searcher.search(algorithm, &user(0), K, &[])?;
        let (mut times, mut found) = (Vec::new(), Vec::new());
        for row in rows {
            let query = user(row);
            let started = Instant::now();
            found.extend(self.searcher.search(algorithm, &query, K, &[])?);
            times.push(started.elapsed());
        }
        if exact.is_empty() {
            exact.clone_from(&found);
        }
        let total: usize = exact.iter().map(Vec::len).sum();
        let hit = |(exact, found): (&Vec<Hit>, &Vec<Hit>)| {
            exact.iter().filter(|hit| found.iter().any(|other| other.id == hit.id)).count()
        };
        let recall = exact.iter().zip(&found).map(hit).sum::<usize>() as f64 / total.max(1) as f64;
        times.sort_unstable();
        Ok(Point { algorithm, recall, latency: times[times.len() / 2] })
    }
}
