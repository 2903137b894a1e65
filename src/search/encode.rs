//! Queries from histories, for searchers that know a whole model.

use super::Searcher;
use super::history_encoder::HistoryEncoder;
use crate::backend::QueryBatch;
use crate::error::Parameter;
use crate::sequence::History;
use crate::{Error, Result};

impl Searcher {
    /// One query per history, with its user.
    ///
    /// # Errors
    /// As [`Searcher::encoder`] and [`HistoryEncoder::encode`].
    pub fn encode(&self, histories: &[History]) -> Result<QueryBatch> {
        self.encoder()?.encode(histories)
    }

    /// The encoder of the model that the searcher was made of. An index folder has it with it, and it is read when it is
    /// needed first.
    ///
    /// # Errors
    /// If there is none, it cannot be read, or the device fails.
    pub fn encoder(&self) -> Result<&HistoryEncoder> {
        match self.encoder.get() {
            Some(encoder) => Ok(encoder),
            None => {
                let encoder = self.stored_encoder()?;
                Ok(self.encoder.get_or_init(|| encoder))
            }
        }
    }

    /// Whether it has an encoder in memory: that of the model that it was made of.
    pub fn encodes(&self) -> bool {
        self.encoder.get().is_some()
    }

    fn stored_encoder(&self) -> Result<HistoryEncoder> {
        let missing = || Error::argument(Parameter::Encoder, "a searcher made of a whole model", "one of embeddings");
        let model = self.index.model()?.ok_or_else(missing)?;
        let backend = self.index.backends().into_iter().next().ok_or_else(missing)?;
        HistoryEncoder::new(backend.as_ref(), &model)
    }
}
