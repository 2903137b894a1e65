//! A sequence encoder on a device: weights uploaded once, one submission and one read per part of a batch.

use std::ops::Range;
use std::sync::Arc;

use super::ops::{GRU_STATE_BYTES, bucket_words};
use super::recorder::Recorder;
use crate::backend::gpu::device::{Buffer, Gpu};
use crate::backend::{QueryEncoder, SearchContext};
use crate::model::{Encoder, EncoderLayers};
use crate::ops::Ops;
use crate::sequence::SequenceBatch;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Most bytes of one intermediate array; a handful of them are alive at a time.
const ARRAY_BYTES: u64 = 128 << 20;

/// An encoder whose weights are on a device.
#[derive(Debug)]
pub struct GpuEncoder {
    gpu: Arc<Gpu>,
    encoder: Encoder<Buffer>,
    /// (item rows, D): the item table, where the device cannot bind it; batches then bring their rows along.
    items: Option<Tensor>,
}

impl GpuEncoder {
    /// Uploads the weights.
    ///
    /// # Errors
    /// If one of them does not fit, or the device fails.
    pub fn new(gpu: &Arc<Gpu>, encoder: &Encoder<Tensor>) -> Result<GpuEncoder> {
        let most = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
        let bytes = |tensor: &Tensor| 4 * tensor.data().len() as u64;
        let mut encoder = encoder.clone();
        let items = (bytes(&encoder.items) > most).then(|| {
            let none = Tensor::trusted(vec![0, encoder.dim], Vec::new());
            std::mem::replace(&mut encoder.items, none)
        });
        if let EncoderLayers::Gru4rec(gru) = &encoder.layers {
            let widest = gru.layers.iter().map(|layer| layer.recurrent.n_in).max().unwrap_or(0);
            let (need, have) =
                ((GRU_STATE_BYTES * widest) as u64, gpu.limits().max_compute_workgroup_storage_size.into());
            if need > have {
                return Err(Error::Limit { what: "the state of a GRU in workgroup memory", need, have });
            }
        }
        let mut failed = None;
        let encoder = encoder.map(&mut |tensor: &Tensor| {
            let uploaded = match bytes(tensor) {
                need if need > most => Err(Error::Limit { what: "a weight of the encoder", need, have: most }),
                _ => gpu.upload(tensor.data()),
            };
            uploaded.unwrap_or_else(|error| {
                failed.get_or_insert(error);
                gpu.placeholder().clone()
            })
        });
        match failed {
            None => Ok(GpuEncoder { gpu: gpu.clone(), encoder, items }),
            Some(error) => Err(error),
        }
    }

    fn encode_part(&self, context: &SearchContext, batch: &SequenceBatch) -> Result<Vec<f32>> {
        let mut recorder = Recorder::with_context(context, &self.gpu);
        let queries = match &self.items {
            None => self.encoder.forward(&mut recorder, batch, &mut |_, _, _| {}),
            Some(table) => {
                let rows: Vec<f32> = batch.item_ids.iter().flat_map(|&id| table.row(id as usize)).copied().collect();
                let encoder = Encoder { items: recorder.upload(&rows), ..self.encoder.clone() };
                let renumbered = SequenceBatch { item_ids: (0..batch.n_rows() as u32).collect(), ..batch.clone() };
                encoder.forward(&mut recorder, &renumbered, &mut |_, _, _| {})
            }
        };
        recorder.read(&queries)
    }
}

impl QueryEncoder for GpuEncoder {
    fn encode_with(&self, context: &SearchContext, batch: &SequenceBatch) -> Result<Tensor> {
        let most = ARRAY_BYTES.min(self.gpu.limits().max_storage_buffer_binding_size);
        let max_rows = most as usize / (4 * widest(&self.encoder, batch.max_length()));
        let mut data = Vec::with_capacity(batch.len() * self.encoder.query_dim());
        for part in parts(batch, max_rows) {
            data.extend(self.encode_part(context, &sequences(batch, part))?);
        }
        Ok(Tensor::trusted(vec![batch.len(), self.encoder.query_dim()], data))
    }
}

/// Values in one row of the widest intermediate array.
fn widest(encoder: &Encoder<Buffer>, max_length: usize) -> usize {
    let widths = match &encoder.layers {
        EncoderLayers::Hstu(hstu) => [hstu.shape.uvqk(), 3 * hstu.shape.attended(), bucket_words(max_length)],
        EncoderLayers::Sasrec(sasrec) => {
            [2 * encoder.dim, sasrec.layers.iter().map(|layer| layer.ffn_in.n_out).max().unwrap_or(0), 0]
        }
        EncoderLayers::Gru4rec(gru) => [gru.layers.iter().map(|layer| layer.input.n_out).max().unwrap_or(0), 0, 0],
        EncoderLayers::Transformer(transformer) => {
            [2 * encoder.dim, transformer.blocks.iter().map(|block| block.ffn_in.n_out).max().unwrap_or(0), 0]
        }
    };
    widths.into_iter().fold(encoder.dim.max(1), usize::max)
}

/// Cuts a batch between sequences so that no part has more than `max_rows` rows, save for a single longer sequence.
fn parts(batch: &SequenceBatch, max_rows: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for sequence in 0..batch.len() {
        let rows_from = |first: usize| (batch.offsets[sequence + 1] - batch.offsets[first]) as usize;
        match parts.last_mut() {
            Some(part) if rows_from(part.start) <= max_rows => part.end = sequence + 1,
            _ => parts.push(sequence..sequence + 1),
        }
    }
    parts
}

/// Some sequences of a batch.
fn sequences(batch: &SequenceBatch, range: Range<usize>) -> SequenceBatch {
    let offsets = &batch.offsets[range.start..=range.end];
    let rows = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
    SequenceBatch {
        user_ids: batch.user_ids[range].to_vec(),
        offsets: offsets.iter().map(|offset| offset - offsets[0]).collect(),
        item_ids: batch.item_ids[rows.clone()].to_vec(),
        timestamps: batch.timestamps[rows.clone()].to_vec(),
        next_timestamps: batch.next_timestamps[rows].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::{parts, sequences};
    use crate::sequence::SequenceBatch;

    fn batch(lengths: &[u32]) -> SequenceBatch {
        let mut offsets = vec![0];
        lengths.iter().for_each(|length| offsets.push(offsets[offsets.len() - 1] + length));
        let n = offsets[lengths.len()];
        SequenceBatch {
            user_ids: (0..lengths.len() as i64).collect(),
            offsets,
            item_ids: (1..=n).collect(),
            timestamps: (0..n.into()).collect(),
            next_timestamps: (1..=n.into()).collect(),
        }
    }

    #[test]
    fn batches_are_cut_between_sequences() {
        let batch = batch(&[3, 2, 6, 1, 1]);
        assert_eq!(parts(&batch, 100), vec![0..5; 1]);
        assert_eq!(parts(&batch, 5), [0..2, 2..3, 3..5]);
        assert_eq!(parts(&batch, 0), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(sequences(&batch, 0..5), batch);
        let part = sequences(&batch, 1..3);
        assert_eq!((part.offsets, part.user_ids), (vec![0, 2, 8], vec![1, 2]));
        assert_eq!((part.item_ids, part.timestamps[0], part.next_timestamps[7]), ((4..=11).collect(), 3, 11));
        assert!(parts(&SequenceBatch { offsets: vec![0], ..Default::default() }, 5).is_empty());
    }
}
