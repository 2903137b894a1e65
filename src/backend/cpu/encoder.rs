//! A sequence encoder on the CPU.

use super::ops::{CpuOps, Shared};
use crate::Result;
use crate::backend::{QueryEncoder, SearchContext};
use crate::model::Encoder;
use crate::ops::Ops;
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;

/// An encoder whose weights are shared with the model, not copied.
pub struct CpuEncoder {
    encoder: Encoder<Shared>,
}

impl CpuEncoder {
    pub fn new(encoder: &Encoder<Tensor>) -> CpuEncoder {
        CpuEncoder { encoder: encoder.map(&mut |tensor| CpuOps::default().floats(tensor)) }
    }
}

impl QueryEncoder for CpuEncoder {
    fn encode_with(&self, _: &SearchContext, batch: &SequenceBatch) -> Result<Tensor> {
        let queries = self.encoder.forward(&mut CpuOps::default(), batch, &mut |_, _, _| {});
        Ok(Tensor::trusted(vec![batch.len(), self.encoder.query_dim()], CpuOps::default().read(&queries)?))
    }
}
