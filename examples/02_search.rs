//! Load a model, index its items, and recommend to one user. Run it with `cargo run --release --example 02_search`.

#[path = "../assets/demo.rs"]
mod demo;

use demo::Demo;
use rails_wgpu::Result;
use rails_wgpu::backend::select;
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::sequence::History;

fn main() -> Result<()> {
    // 1. A trained model. For your own: `ModelFile::open(path, None)?`, and `model_file` in place of `model` below.
    let Demo { model, item_ids, dataset } = Demo::load()?;

    // 2. A device, and the items on it.
    let backend = select::open("auto")?;
    let searcher = Searcher::builder().model(&model, &item_ids).backend(backend.clone()).build()?;
    let index = searcher.index();
    println!("{} items on `{}`, {} bytes", index.len(), backend.info().name, index.bytes());

    // 3. A user's history, encoded.
    let user = &dataset.sequences[0];
    let now = user.timestamps.last().copied().unwrap_or(0) + 3600;
    let history = History { user_id: user.user_id, item_ids: &user.item_ids, timestamps: &user.timestamps, now };
    let queries = searcher.encode(&[history])?;

    // 4. The best items that the user has not seen: exactly, and by a cheap first stage.
    let seen: Vec<u64> = user.item_ids.iter().map(|&id| id.into()).collect();
    for algorithm in [Algorithm::Exact, Algorithm::Tangent { candidates: 20 }] {
        let hits = searcher.search(algorithm, &queries, 5, &[&seen])?;
        println!("{algorithm}: {:?}", hits[0].iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>());
    }
    Ok(())
}
