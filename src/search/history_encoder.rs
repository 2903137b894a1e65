//! The encoder of a whole model on a device.

use crate::Result;
use crate::backend::{Backend, QueryBatch, QueryEncoder};
use crate::config::ModelConfig;
use crate::model::Model;
use crate::sequence::{History, SequenceBatch};
use crate::tensor::Tensor;

/// What turns histories into queries, on a device. A [`Searcher`](super::Searcher) of a whole model has one; it does without
/// items, too.
pub struct HistoryEncoder {
    encoder: Box<dyn QueryEncoder>,
    config: ModelConfig,
    n_item_rows: usize,
}

impl HistoryEncoder {
    /// The encoder of `model`, moved to the device.
    ///
    /// # Errors
    /// If it does not fit, or the device fails.
    pub fn new(backend: &dyn Backend, model: &Model) -> Result<HistoryEncoder> {
        let encoder = backend.encoder(&model.encoder)?;
        Ok(HistoryEncoder { encoder, config: model.config.clone(), n_item_rows: model.n_item_rows() })
    }

    /// One query (B, D) per history, with its user.
    ///
    /// # Errors
    /// If a history is empty, an id is not in the item table, or the device fails.
    pub fn encode(&self, histories: &[History]) -> Result<QueryBatch> {
        let batch = SequenceBatch::new(histories, &self.config, self.n_item_rows)?;
        let embeddings = match batch.is_empty() {
            true => Tensor::trusted(vec![0, self.config.query_embedding_dim()], Vec::new()),
            false => self.encoder.encode(&batch)?,
        };
        Ok(QueryBatch::new(embeddings).with_users(batch.user_ids))
    }

    /// The hyper-parameters of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}
