//! The small trained model of this folder with its data (see `README.md`), for the program, the examples and the tests, each
//! of which takes this file in as a module.
#![allow(dead_code, reason = "each of them uses a part")]

use std::path::Path;

use rails_wgpu::Result;
use rails_wgpu::backend::{Backend, QueryBatch};
use rails_wgpu::checkpoint::Checkpoint;
use rails_wgpu::config::{CONFIG_KEY, ModelConfig};
use rails_wgpu::dataset::{Dataset, ReadOptions, parse_item_ids};
use rails_wgpu::eval::history_of;
use rails_wgpu::model::Model;
use rails_wgpu::sequence::{History, SequenceBatch};
use rails_wgpu::tensor::Tensor;

const CHECKPOINT: &[u8] = include_bytes!("demo.safetensors");
const DATASET: &[u8] = include_bytes!("demo.csv");
const ITEM_IDS: &[u8] = include_bytes!("demo.items.txt");

/// How much items of [`Demo::library`] differ from those of the model: the largest difference of a value, in root mean squares.
const NOISE: f32 = 2.0;

/// An HSTU encoder with a Mixture-of-Logits similarity, trained on synthetic sequences of 96 users.
pub struct Demo {
    /// The trained model.
    pub model: Model,
    /// The items to search.
    pub item_ids: Vec<u32>,
    /// The sequences it was trained on.
    pub dataset: Dataset,
}

impl Demo {
    /// Loads it.
    ///
    /// # Errors
    /// Only if the files were damaged when this was compiled.
    pub fn load() -> Result<Demo> {
        let path = Path::new("assets/demo.safetensors");
        let checkpoint = Checkpoint::embedded(CHECKPOINT, path)?;
        let json = checkpoint.metadata().and_then(|metadata| metadata.get(CONFIG_KEY));
        let config = ModelConfig::from_json(json.map_or("", String::as_str), path)?;
        let (dataset, _) = Dataset::parse(&mut &*DATASET, Path::new("assets/demo.csv"), ReadOptions::default())?;
        Ok(Demo {
            model: Model::load(&checkpoint, config)?,
            item_ids: parse_item_ids(&mut &*ITEM_IDS, Path::new("assets/demo.items.txt"))?,
            dataset,
        })
    }

    /// (96, 16): all users, each encoded from all events but the last.
    ///
    /// # Errors
    /// If the device fails.
    pub fn queries(&self, backend: &dyn Backend) -> Result<QueryBatch> {
        let histories: Vec<History> = self.dataset.sequences.iter().map(history_of).collect();
        let batch = SequenceBatch::new(&histories, &self.model.config, self.model.n_item_rows())?;
        let embeddings = backend.encoder(&self.model.encoder)?.encode(&batch)?;
        Ok(QueryBatch::new(embeddings).with_users(batch.user_ids))
    }

    /// A library of `n` items: those of the model, and as many as are missing that differ a little from one of them each, the
    /// same ones at every call. Item `id` is like item `(id - 1) % 220 + 1`.
    ///
    /// # Errors
    /// Only if the files were damaged when this was compiled.
    pub fn library(&self, n: usize) -> Result<(Vec<u64>, Tensor)> {
        let table = self.model.item_embeddings(&self.item_ids)?;
        let rows = self.model.n_item_rows() as u64 - 1;
        let mean_square = table.data().iter().map(|x| x * x).sum::<f32>() / table.data().len() as f32;
        let mut state = 1u64;
        // Uniform in -1..1, by a linear congruential generator.
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        let (mut ids, mut data) = (Vec::with_capacity(n), Vec::with_capacity(n * table.width()));
        for i in 0..n {
            let (copy, like) = (i / self.item_ids.len(), i % self.item_ids.len());
            ids.push(u64::from(self.item_ids[like]) + rows * copy as u64);
            let noise = if copy == 0 { 0.0 } else { NOISE * mean_square.sqrt() };
            data.extend(table.row(like).iter().map(|value| value + noise * draw()));
        }
        Ok((ids, Tensor::new(vec![n, table.width()], data)?))
    }
}
