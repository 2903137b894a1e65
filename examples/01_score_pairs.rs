//! Score pairs of two vectors: by their inner product, and by a trained Mixture-of-Logits similarity.
//! Run it with `cargo run --release --example 01_score_pairs`.

#[path = "../assets/demo.rs"]
mod demo;

use demo::Demo;
use rails_wgpu::{QueryBatch, Result, Searcher, Tensor};

fn main() -> Result<()> {
    let Demo { model, .. } = Demo::load()?;

    // One query and three items, all of them vectors of width D: here rows of the model's item table.
    let (names, ids) = (["the same vector", "a neighbour", "a stranger"], [60u32, 61, 140]);
    let query = model.item_embeddings(&ids[..1])?;
    let items = model.item_embeddings(&ids)?;

    // An index holds what does not depend on the query; `rescore` scores the items that it is given, the best one first.
    let searcher = Searcher::builder().model(&model, &ids).device("cpu").build()?;
    // The model has an embedding for each user, too: this query is user 0's.
    let queries = QueryBatch::new(query.clone()).with_users([0]);
    let hits = searcher.rescore(&queries, &[&ids.map(u64::from)[..]])?;

    for (position, name) in names.iter().enumerate() {
        let dot = inner_product(&query, &items, position);
        let score = hits[0].iter().find(|hit| hit.id == u64::from(ids[position])).map_or(f32::NAN, |hit| hit.score);
        println!("{name:16} inner product {dot:7.4}   Mixture-of-Logits {score:7.4}");
    }
    Ok(())
}

fn inner_product(query: &Tensor, items: &Tensor, item: usize) -> f32 {
    query.row(0).iter().zip(items.row(item)).map(|(q, x)| q * x).sum()
}
