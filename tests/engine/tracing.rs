//! Spans of searches, as a subscriber sees them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use crate::common::demo::Demo;
use rails_wgpu::backend::cpu::Cpu;
use rails_wgpu::backend::{Dtype, QueryBatch};
use rails_wgpu::index::ItemIndex;
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::tensor::Tensor;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// A span: its name, the span that it began in, and its fields.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<usize>,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Keeps all spans of one thread. It is the subscriber of the whole program: where it is one thread's only, spans that another thread
/// meets first are left out for good.
#[derive(Clone)]
struct Spans {
    thread: ThreadId,
    all: Arc<Mutex<Vec<Seen>>>,
    entered: Arc<Mutex<Vec<usize>>>,
}

impl Subscriber for Spans {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target() == "rails_wgpu::search" && thread::current().id() == self.thread
    }

    fn new_span(&self, span: &Attributes) -> Id {
        let parent = self.entered.lock().unwrap().last().copied();
        let mut seen = Seen { name: span.metadata().name(), parent, ..Seen::default() };
        span.record(&mut seen);
        let mut all = self.all.lock().unwrap();
        all.push(seen);
        Id::from_u64(all.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record) {
        values.record(&mut self.all.lock().unwrap()[span.into_u64() as usize - 1]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event) {}

    fn enter(&self, span: &Id) {
        self.entered.lock().unwrap().push(span.into_u64() as usize - 1);
    }

    fn exit(&self, _: &Id) {
        self.entered.lock().unwrap().pop();
    }
}

#[test]
fn a_search_is_a_span_and_so_is_each_of_its_stages() {
    let Demo { model, item_ids, .. } = Demo::load().unwrap();
    let index = ItemIndex::from_model(&Cpu::default(), &model, &item_ids, Dtype::F32).unwrap();
    let searcher = Searcher::new(index);
    let queries = QueryBatch::new(Tensor::new(vec![2, 16], vec![0.5; 32]).unwrap()).with_users([1, 2]);
    let spans = Spans { thread: thread::current().id(), all: Arc::default(), entered: Arc::default() };
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    searcher.search(Algorithm::Avg { candidates: 40 }, &queries, 10, &[]).unwrap();
    searcher.search(Algorithm::Exact, &queries, 0, &[]).unwrap_err();
    let all = spans.all.lock().unwrap().clone();
    let names: Vec<&str> = all.iter().map(|span| span.name).collect();
    assert_eq!(names, ["search", "stage", "stage", "stage", "stage", "search"]);
    let fields = |span: &Seen, names: &[&str]| -> Vec<String> {
        names.iter().map(|name| span.fields.get(name).cloned().unwrap_or_default()).collect()
    };
    assert_eq!(fields(&all[0], &["algorithm", "batch", "k", "pairs", "error"]), ["avg:40", "2", "10", "80", ""]);
    for (span, stage) in all[1..5].iter().zip(["query-side", "first-stage", "scoring", "selection"]) {
        assert_eq!((span.parent, span.fields["stage"].as_str()), (Some(0), stage));
    }
    for span in &all {
        assert!(span.fields["ms"].parse::<f64>().unwrap() >= 0.0, "{span:?}");
    }
    assert!(all[5].fields["error"].contains("k: expected at least 1"), "{:?}", all[5]);
    assert_eq!(all[5].parent, None);
}
