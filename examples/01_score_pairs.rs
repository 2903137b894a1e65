//! Score pairs of two vectors: by their inner product, and by a trained Mixture-of-Logits similarity.
//! Run it with `cargo run --release --example 01_score_pairs`.

#[path = "../assets/demo.rs"]
mod demo;

use demo::Demo;
use rails_wgpu::Result;
use rails_wgpu::backend::{Backend, Dtype, QueryBatch, Scorer, cpu::Cpu};
use rails_wgpu::tensor::Tensor;

fn main() -> Result<()> {
    let Demo { model, .. } = Demo::load()?;
    let backend = Cpu::default();

    // One query and three items, all of them vectors of width D: here rows of the model's item table.
    let query = model.item_embeddings(&[60])?;
    let items = model.item_embeddings(&[60, 61, 140])?;

    // The tables of the items hold what does not depend on the query; then a pair is scored by its position.
    let tables = backend.index(&items, model.mol.as_ref(), Dtype::F32)?;
    let queries = QueryBatch::new(query.clone());
    let scores = tables.rescore(Scorer::Mol, &queries, &[vec![0, 1, 2]])?;

    for (position, name) in ["the same vector", "a neighbour", "a stranger"].iter().enumerate() {
        let dot = inner_product(&query, &items, position);
        println!("{name:16} inner product {dot:7.4}   Mixture-of-Logits {:7.4}", scores[0][position]);
    }
    Ok(())
}

fn inner_product(query: &Tensor, items: &Tensor, item: usize) -> f32 {
    let row = &items.data()[item * items.width()..];
    query.data().iter().zip(row).map(|(q, x)| q * x).sum()
}
