//! Histories on their way into an encoder: checked, truncated and packed row after row.

use crate::config::ModelConfig;
use crate::error::Parameter;
use crate::{Error, Result};

/// What one user has done so far, in chronological order.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The user; only models with uid embeddings look at it.
    pub user_id: i64,
    /// Ids (rows of the item table) of the events, oldest first.
    pub item_ids: &'a [u32],
    /// Unix times of the events, in seconds.
    pub timestamps: &'a [i64],
    /// The time of the request: in evaluation, that of the target.
    pub now: i64,
}

/// Histories packed for an encoder: R rows of B sequences, one sequence after the other. There is no padding, save for encoders that
/// attend to it, as some programs train them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceBatch {
    /// (B): user of each sequence.
    pub user_ids: Vec<i64>,
    /// (B + 1): first row of each sequence, and R at the end.
    pub offsets: Vec<u32>,
    /// (R): item of each row; that of a mask is the row after the last item's, that of padding is 0.
    pub item_ids: Vec<u32>,
    /// (R): time of each row's event.
    pub timestamps: Vec<i64>,
    /// (R): time of the event after each row's; the time of the request for the last.
    pub next_timestamps: Vec<i64>,
}

impl SequenceBatch {
    /// Packs `histories`, each truncated to its last `config.max_sequence_length` events. Where the encoder wants a mask after them
    /// ([`EncoderConfig::appends_mask`](crate::config::EncoderConfig::appends_mask)), it gets the row `n_item_rows` of the item table.
    ///
    /// # Errors
    /// If a history is empty, its lists differ in length, or an id is not a row 1..`n_item_rows` of the table.
    pub fn new(histories: &[History], config: &ModelConfig, n_item_rows: usize) -> Result<SequenceBatch> {
        let mut batch = SequenceBatch { offsets: vec![0], ..SequenceBatch::default() };
        for history in histories {
            let user = history.user_id;
            if history.item_ids.is_empty() {
                let expected = "at least one event before the target";
                return Err(Error::argument(Parameter::History, expected, format!("none for user {user}")));
            }
            if history.item_ids.len() != history.timestamps.len() {
                let found = format!("{} timestamps for user {user}", history.timestamps.len());
                return Err(Error::argument(
                    Parameter::History,
                    format!("{} timestamps", history.item_ids.len()),
                    found,
                ));
            }
            let dropped = usize::from(config.encoder.drops_first_event());
            let first = history.item_ids.len().saturating_sub(config.max_sequence_length).max(dropped);
            for &id in &history.item_ids[first..] {
                if id == 0 || id as usize >= n_item_rows {
                    let expected =
                        format!("item ids from 1 to {} (rows of the item table)", n_item_rows.saturating_sub(1));
                    return Err(Error::argument(Parameter::History, expected, format!("item id {id} of user {user}")));
                }
            }
            batch.user_ids.push(user);
            if config.encoder.pads_histories() {
                let length = config.max_sequence_length + first;
                batch.item_ids.resize(batch.item_ids.len() + length - history.item_ids.len(), 0);
                batch.timestamps.resize(batch.item_ids.len(), history.timestamps[first]);
                batch.next_timestamps.resize(batch.item_ids.len(), history.timestamps[first]);
            }
            batch.item_ids.extend_from_slice(&history.item_ids[first..]);
            batch.timestamps.extend_from_slice(&history.timestamps[first..]);
            if first < history.timestamps.len() {
                batch.next_timestamps.extend_from_slice(&history.timestamps[first + 1..]);
                batch.next_timestamps.push(history.now);
            }
            if config.encoder.appends_mask() {
                batch.item_ids.push(n_item_rows as u32);
                batch.timestamps.push(history.now);
                batch.next_timestamps.push(history.now);
            }
            batch.offsets.push(batch.item_ids.len() as u32);
        }
        Ok(batch)
    }

    /// B: number of sequences.
    pub fn len(&self) -> usize {
        self.user_ids.len()
    }

    /// Whether there is no sequence at all.
    pub fn is_empty(&self) -> bool {
        self.user_ids.is_empty()
    }

    /// R: rows of all sequences together.
    pub fn n_rows(&self) -> usize {
        self.item_ids.len()
    }

    /// Rows of the longest sequence.
    pub fn max_length(&self) -> usize {
        self.offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0)
    }

    /// (R): first row of each row's sequence.
    pub fn row_starts(&self) -> Vec<u32> {
        self.offsets.windows(2).flat_map(|pair| std::iter::repeat_n(pair[0], (pair[1] - pair[0]) as usize)).collect()
    }

    /// (R): how many rows of its sequence follow each row.
    pub fn rows_to_last(&self) -> Vec<u32> {
        self.offsets.windows(2).flat_map(|pair| (0..pair[1] - pair[0]).rev()).collect()
    }

    /// (B): last row of each sequence, whose encoding stands for the user.
    pub fn last_rows(&self) -> Vec<u32> {
        self.offsets[1..].iter().map(|&end| end - 1).collect()
    }
}

/// Largest relative time bucket; HSTU's time table has one entry more.
pub const MAX_TIME_BUCKET: u32 = 128;

/// HSTU's bucket of a time difference in seconds: `min(trunc(ln(max(|x|, 1)) / 0.301), 128)`, evaluated in f32
/// as the reference does.
pub fn time_bucket(difference: u64) -> u32 {
    let ln = (difference.max(1) as f32 as f64).ln() as f32;
    ((ln / 0.301) as u32).min(MAX_TIME_BUCKET)
}

/// The smallest difference of each bucket 1..=128: `time_bucket(x)` is the number of bounds that are <= x.
/// Comparing integers keeps devices without exact logarithms, or without 64-bit integers, exact.
pub fn time_bucket_bounds() -> Vec<u64> {
    (1..=MAX_TIME_BUCKET)
        .map(|bucket| {
            let (mut below, mut reached) = (0u64, 1 << 62);
            while reached - below > 1 {
                let middle = below + (reached - below) / 2;
                if time_bucket(middle) >= bucket { reached = middle } else { below = middle }
            }
            reached
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Bert4recConfig, BlockNorm, EmbeddingNorm, EncoderConfig, FfnActivation, OutputConfig, Padding, PositionOrder,
        SasrecConfig, SimilarityConfig, TransformerConfig,
    };

    fn config(max_sequence_length: usize) -> ModelConfig {
        let sasrec =
            SasrecConfig { num_blocks: 1, num_heads: 1, ffn_hidden_dim: 4, ffn_activation: FfnActivation::Relu };
        ModelConfig {
            item_embedding_dim: 4,
            max_sequence_length,
            gr_output_length: 10,
            user_embedding_norm: EmbeddingNorm::L2Norm,
            item_l2_norm: true,
            l2_norm_eps: 1e-6,
            encoder: EncoderConfig::Sasrec(sasrec),
            similarity: SimilarityConfig::DotProduct,
            output: OutputConfig::default(),
        }
    }

    fn history<'a>(item_ids: &'a [u32], timestamps: &'a [i64]) -> History<'a> {
        History { user_id: 8, item_ids, timestamps, now: 99 }
    }

    #[test]
    fn histories_are_truncated_to_their_last_events_and_packed() {
        let histories = [history(&[4, 5, 6], &[10, 20, 30]), history(&[7], &[40])];
        let batch = SequenceBatch::new(&histories, &config(2), 10).unwrap_or_default();
        assert_eq!(batch.item_ids, [5, 6, 7]);
        assert_eq!(batch.timestamps, [20, 30, 40]);
        assert_eq!(batch.next_timestamps, [30, 99, 99]);
        assert_eq!((batch.offsets.as_slice(), batch.max_length()), (&[0, 2, 3][..], 2));
        assert_eq!((batch.row_starts(), batch.last_rows()), (vec![0, 0, 2], vec![1, 2]));
    }

    #[test]
    fn a_mask_follows_the_events() {
        let bert = Bert4recConfig {
            num_blocks: 1,
            num_heads: 1,
            ffn_hidden_dim: 4,
            ffn_activation: FfnActivation::Gelu,
            norm_first: false,
            embedding_norm: false,
            final_norm: false,
            layer_norm_eps: 1e-5,
            layer_norm_unbiased: false,
            item_scale: 1.0,
            positions: PositionOrder::FromLast,
            output_head: false,
        };
        let config = ModelConfig { encoder: EncoderConfig::Bert4rec(bert), ..config(2) };
        let histories = [history(&[4, 5, 6], &[10, 20, 30]), history(&[7], &[40])];
        let batch = SequenceBatch::new(&histories, &config, 10).unwrap_or_default();
        assert_eq!(batch.item_ids, [5, 6, 10, 7, 10]);
        assert_eq!(batch.rows_to_last(), [2, 1, 0, 1, 0]);
        assert_eq!((batch.timestamps, batch.next_timestamps), (vec![20, 30, 99, 40, 99], vec![30, 99, 99, 99, 99]));
        assert!(SequenceBatch::new(&[history(&[10], &[1])], &config, 10).is_err(), "the mask is no item");
    }

    #[test]
    fn histories_are_filled_up_or_lose_their_first_event_where_a_program_does_so() {
        let transformer = TransformerConfig {
            num_blocks: 1,
            num_heads: 1,
            ffn_hidden_dim: 4,
            ffn_activation: FfnActivation::Relu,
            block_norm: BlockNorm::Query,
            causal: true,
            mask_token: false,
            drops_first_event: false,
            padding: Padding::Zeros,
            embedding_norm: false,
            final_norm: true,
            layer_norm_eps: 1e-8,
            final_norm_eps: 1e-8,
            layer_norm_unbiased: false,
            item_scale: 2.0,
            positions: PositionOrder::FromLast,
            output_head: false,
        };
        let histories = [history(&[4, 5, 6, 7], &[10, 20, 30, 40]), history(&[8], &[50])];
        let of = |transformer: TransformerConfig| {
            let config = ModelConfig { encoder: EncoderConfig::Transformer(transformer), ..config(3) };
            let valid = config.validate().is_ok();
            (valid, SequenceBatch::new(&histories, &config, 10).unwrap_or_default())
        };
        let (valid, batch) = of(transformer.clone());
        assert!(valid);
        assert_eq!((batch.item_ids, batch.offsets), (vec![5, 6, 7, 0, 0, 8], vec![0, 3, 6]));
        assert_eq!(
            (batch.timestamps, batch.next_timestamps),
            (vec![20, 30, 40, 50, 50, 50], vec![30, 40, 99, 50, 50, 99])
        );

        let none = TransformerConfig { padding: Padding::None, drops_first_event: true, ..transformer };
        let (valid, batch) = of(TransformerConfig { mask_token: true, ..none.clone() });
        assert!(valid);
        assert_eq!((batch.item_ids, batch.offsets), (vec![5, 6, 7, 10, 10], vec![0, 4, 5]));
        assert_eq!(batch.next_timestamps, [30, 40, 99, 99, 99]);
        assert!(!of(none.clone()).0, "a history of one event would be empty");
        assert!(
            !of(TransformerConfig { drops_first_event: false, padding: Padding::Embedded, causal: false, ..none }).0
        );
    }

    #[test]
    fn bad_histories_are_named() {
        let error = |history: History| SequenceBatch::new(&[history], &config(5), 10).err().map(|e| e.to_string());
        let contains = |found: Option<String>, words: &str| found.is_some_and(|message| message.contains(words));
        assert!(contains(error(history(&[], &[])), "none for user 8"));
        assert!(contains(
            error(history(&[1, 10], &[1, 2])),
            "1 to 9 (rows of the item table), found item id 10 of user 8"
        ));
        assert!(contains(error(history(&[0], &[1])), "item id 0"));
        assert!(contains(error(history(&[1, 2], &[1])), "1 timestamps for user 8"));
        assert!(error(history(&[1, 9], &[1, 2])).is_none());
    }

    #[test]
    fn bucket_bounds_are_the_exact_steps_of_the_formula() {
        let bounds = time_bucket_bounds();
        assert_eq!(bounds.len(), 128);
        assert!(bounds.is_sorted());
        let by_bounds = |x: u64| bounds.iter().filter(|&&bound| bound <= x).count() as u32;
        let around = bounds.iter().flat_map(|&bound| [bound.saturating_sub(1), bound, bound + 1]);
        for x in (0..5000).chain(around).chain([u32::MAX.into(), 1 << 40, 1 << 61]) {
            assert_eq!(by_bounds(x), time_bucket(x), "difference {x}");
        }
        // ln(1) = 0; ln(2) / 0.301 = 2.30; ln(60) / 0.301 = 13.6; ln(86400) / 0.301 = 37.8.
        assert_eq!([0, 1, 2, 60, 86_400].map(time_bucket), [0, 0, 2, 13, 37]);
    }
}
