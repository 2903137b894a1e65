//! A small trained model with its data, inside the library: see `assets/README.md`.

use std::path::Path;

use crate::Result;
use crate::backend::{Backend, QueryBatch};
use crate::checkpoint::Checkpoint;
use crate::config::{CONFIG_KEY, ModelConfig};
use crate::dataset::{Dataset, ReadOptions, parse_item_ids};
use crate::eval::history_of;
use crate::model::Model;
use crate::sequence::{History, SequenceBatch};

const CHECKPOINT: &[u8] = include_bytes!("../assets/demo.safetensors");
const DATASET: &[u8] = include_bytes!("../assets/demo.csv");
const ITEM_IDS: &[u8] = include_bytes!("../assets/demo.items.txt");

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
    /// Only if the library was built from damaged assets.
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
        Ok(QueryBatch { embeddings, user_ids: batch.user_ids })
    }
}
