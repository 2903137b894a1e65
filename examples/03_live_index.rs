//! Build an index in a folder, change it while it is searched, and open it again.
//! Run it with `cargo run --release --example 03_live_index [FOLDER]`; without a folder it uses a temporary one.

#[path = "../assets/demo.rs"]
mod demo;

use std::path::PathBuf;

use demo::Demo;
use rails_wgpu::backend::{Dtype, QueryBatch, Similarity, select};
use rails_wgpu::index::{IndexModel, ItemIndex, ItemSource};
use rails_wgpu::search::{Algorithm, Searcher};
use rails_wgpu::{Error, Result};

fn main() -> Result<()> {
    let temporary = std::env::temp_dir().join(format!("rails-example-{}", std::process::id()));
    let given = std::env::args().nth(1).map(PathBuf::from);
    let folder = given.clone().unwrap_or_else(|| temporary.clone());
    let demo = Demo::load()?;
    let backend = select::open("auto")?;
    let queries = demo.queries(backend.as_ref())?;

    // 1. Build: 150 of the items, half-precision tables. The folder gets all that a search needs.
    let (first, later) = demo.item_ids.split_at(150);
    let similarity = demo.model.mol.clone().map(|mol| Similarity { mol, distilled: None });
    let model = similarity.map_or_else(|| IndexModel::dot(16), IndexModel::similarity);
    let source = ItemSource::of_model(&demo.model, first);
    let index = ItemIndex::create(&folder, std::slice::from_ref(&backend), model, Dtype::F16.into(), source)?;
    let searcher = Searcher::builder().index(index).build()?;
    show("built", &searcher, &queries)?;

    // 2. Update. Each change is on the disk, whole, when the call returns; the next search sees it, and searches that are
    // under way keep the version they began with.
    let version = searcher.index().snapshot();
    searcher.index().add_all(ItemSource::of_model(&demo.model, later))?;
    show("50 items added", &searcher, &queries)?;
    let best = searcher.search(Algorithm::Exact, &queries, 1, &[])?[0][0].id;
    searcher.index().remove(&[best])?;
    show(&format!("item {best} removed"), &searcher, &queries)?;
    println!("a version held since the beginning still has {} items", version.len());

    // 3. Persist: nothing to do. Another program, or this one tomorrow, opens the folder.
    drop(searcher);
    let reopened = Searcher::builder().folder(&folder).backend(backend).build()?;
    show("opened again", &reopened, &queries)?;
    drop(reopened);
    if given.is_none() {
        std::fs::remove_dir_all(&temporary).map_err(Error::io("remove", &temporary))?;
    }
    Ok(())
}

fn show(what: &str, searcher: &Searcher, queries: &QueryBatch) -> Result<()> {
    let hits = searcher.search(Algorithm::Exact, queries, 3, &[])?;
    let ids: Vec<u64> = hits[0].iter().map(|hit| hit.id).collect();
    println!("{what:18} {:3} items; the first user's best are {ids:?}", searcher.index().len());
    Ok(())
}
