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

const CHECKPOINT: &[u8] = include_bytes!("demo.safetensors");
const DATASET: &[u8] = include_bytes!("demo.csv");
const ITEM_IDS: &[u8] = include_bytes!("demo.items.txt");

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
}
