//! The losses and their gradients against the definition in f64, on the instruction set of this machine.
#![allow(clippy::unwrap_used, reason = "tests")]

mod dot;
mod full;
mod mol;
mod tape;

use rayon::ThreadPoolBuilder;
use tape::Var;

use crate::random::Random;

/// Numbers of the normal distribution times `scale`.
fn numbers(site: u32, n: usize, scale: f64) -> Vec<f32> {
    let stream = Random::new(5).stream(0, site);
    (0..n as u64).map(|i| (stream.normal(i) * scale) as f32).collect()
}

/// `n` indices of `n_items` items.
fn indices(site: u32, n: usize, n_items: usize) -> Vec<u32> {
    let stream = Random::new(6).stream(0, site);
    (0..n as u64).map(|i| stream.below(i, n_items as u32)).collect()
}

/// `-log softmax(logits)[0]`.
fn cross_entropy<'a>(logits: &[Var<'a>]) -> Var<'a> {
    let greatest = logits.iter().map(|logit| logit.value()).fold(f64::NEG_INFINITY, f64::max);
    let total: Var = logits.iter().map(|&logit| (logit + -greatest).exp()).sum();
    total.ln() - (logits[0] + -greatest)
}

/// What `f` returns with pools of 1, 2 and 3 threads.
fn with_threads<T: Send>(f: impl Fn() -> T + Sync) -> [T; 3] {
    [1, 2, 3].map(|n| ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&f))
}
