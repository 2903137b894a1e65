//! Batches to train on: histories of users, each position supervised by the event after it, or masks by the events they stand for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::sites;
use crate::config::{ModelConfig, TrainConfig};
use crate::dataset::Sequence;
use crate::error::Parameter;
use crate::random::Random;
use crate::sequence::{History, SequenceBatch};
use crate::{Error, Result};

/// What is left out of training, to be predicted: the split that results are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Split {
    /// The last event of each user is the target of the test; training sees all before it. As in the reference.
    Test,
    /// The event before that is the target of the validation; training sees all before the two.
    Validation,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Split::Test => "test",
            Split::Validation => "validation",
        })
    }
}

impl Split {
    /// Events at the end of each user's sequence that training does not see.
    pub(super) fn held_out(self) -> usize {
        match self {
            Split::Test => 1,
            Split::Validation => 2,
        }
    }
}

/// Some users' sequences: R supervised positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainBatch {
    /// What the encoder sees. The last position of each user is that before the last event, or the mask in the place of that.
    pub sequences: SequenceBatch,
    /// (R): the item of the event after each position, or that a mask stands for; 0 where nothing is to be predicted.
    pub targets: Vec<u32>,
}

impl TrainBatch {
    /// The positions, that is rows, with a target.
    pub fn supervised(&self) -> Vec<u32> {
        (0..).zip(&self.targets).filter(|(_, target)| **target > 0).map(|(row, _)| row).collect()
    }
}

/// The users of a data set as training sees them.
#[derive(Clone, Debug)]
pub struct TrainData {
    users: Vec<Sequence>,
    config: ModelConfig,
    n_item_rows: usize,
    batch_size: usize,
    seed: u64,
    mask_probability: f32,
}

impl TrainData {
    /// Takes of each sequence what is before the events that `split` holds out, and of that the last L + 1 events, where L is
    /// `config.max_sequence_length`. Users of whom fewer than two events are left have nothing to learn from and are passed
    /// over.
    ///
    /// # Errors
    /// If no user is left, or an item id is not a row 1..`n_item_rows` of the item table.
    pub fn new(
        sequences: &[Sequence],
        split: Split,
        config: &ModelConfig,
        n_item_rows: usize,
        batch_size: usize,
        seed: u64,
    ) -> Result<TrainData> {
        let mut users = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let end = sequence.len().saturating_sub(split.held_out());
            let events = end.saturating_sub(config.max_sequence_length + 1)..end;
            if let Some(&id) = sequence.item_ids.iter().find(|&&id| id == 0 || id as usize >= n_item_rows) {
                let expected = format!("item ids from 1 to {} (rows of the item table)", n_item_rows.saturating_sub(1));
                let found = format!("item id {id} of user {}", sequence.user_id);
                return Err(Error::argument(Parameter::Dataset, expected, found));
            }
            if events.len() >= 2 {
                users.push(Sequence {
                    user_id: sequence.user_id,
                    item_ids: sequence.item_ids[events.clone()].to_vec(),
                    ratings: Vec::new(),
                    timestamps: sequence.timestamps[events].to_vec(),
                });
            }
        }
        if users.is_empty() {
            let held_out = split.held_out();
            let expected =
                format!("users with at least {} events: two to train on and {held_out} held out", held_out + 2);
            return Err(Error::argument(
                Parameter::Dataset,
                expected,
                format!("{} users, all with fewer", sequences.len()),
            ));
        }
        Ok(TrainData {
            users,
            config: config.clone(),
            n_item_rows,
            batch_size: batch_size.max(1),
            seed,
            mask_probability: TrainConfig::default().mask_probability,
        })
    }

    /// For encoders that append a mask: masks this share of the other events, too, 0.2 by default. Which ones is drawn in each epoch.
    #[must_use]
    pub fn with_mask_probability(self, mask_probability: f32) -> TrainData {
        TrainData { mask_probability, ..self }
    }

    /// Rows of the item table; ids run from 1 to one less than this.
    pub fn n_item_rows(&self) -> usize {
        self.n_item_rows
    }

    /// Users with something to learn from.
    pub fn n_users(&self) -> usize {
        self.users.len()
    }

    /// Supervised positions of all users, which an epoch sees once each.
    pub fn n_positions(&self) -> usize {
        self.users.iter().map(|user| user.len() - 1).sum()
    }

    /// Batches of an epoch; the last one may be smaller.
    pub fn n_batches(&self) -> usize {
        self.users.len().div_ceil(self.batch_size)
    }

    /// (item rows): how often each item is a target.
    pub fn target_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.n_item_rows];
        self.users.iter().flat_map(|user| &user.item_ids[1..]).for_each(|&id| counts[id as usize] += 1);
        counts
    }

    /// The order in which an epoch sees the users.
    pub fn epoch(&self, epoch: u32) -> Epoch<'_> {
        let mut order: Vec<u32> = (0..self.users.len() as u32).collect();
        Random::new(self.seed).stream(epoch, sites::ORDER).shuffle(&mut order);
        Epoch { data: self, number: epoch, order }
    }
}

/// One pass over all users.
pub struct Epoch<'a> {
    data: &'a TrainData,
    number: u32,
    order: Vec<u32>,
}

impl Epoch<'_> {
    /// Batch number `index`, from 0; empty if the epoch has no such batch.
    ///
    /// # Errors
    /// As [`SequenceBatch::new`].
    pub fn batch(&self, index: usize) -> Result<TrainBatch> {
        let data = self.data;
        let users = self.order.chunks(data.batch_size).nth(index).unwrap_or_default();
        let (mut histories, mut targets) = (Vec::new(), Vec::new());
        for user in users.iter().map(|&user| &data.users[user as usize]) {
            let n = user.len() - 1;
            targets.extend_from_slice(&user.item_ids[1..]);
            histories.push(History {
                user_id: user.user_id,
                item_ids: &user.item_ids[..n],
                timestamps: &user.timestamps[..n],
                now: user.timestamps[n],
            });
        }
        let mut sequences = SequenceBatch::new(&histories, &data.config, data.n_item_rows)?;
        if data.config.encoder.appends_mask() {
            targets = self.mask(&mut sequences, users);
        }
        Ok(TrainBatch { sequences, targets })
    }

    /// Masks some events of `sequences`, those of `users`, and says what each mask stands for; the one that is there already stands
    /// for the event after the history.
    fn mask(&self, sequences: &mut SequenceBatch, users: &[u32]) -> Vec<u32> {
        let stream = Random::new(self.data.seed).stream(self.number, sites::MASKS);
        let mut targets = vec![0; sequences.n_rows()];
        for (&user, &first) in users.iter().zip(&sequences.offsets) {
            let events = &self.data.users[user as usize].item_ids;
            for (i, &event) in events.iter().enumerate() {
                let drawn = stream.uniform(u64::from(user) << 32 | i as u64) < self.data.mask_probability;
                if drawn || i + 1 == events.len() {
                    targets[first as usize + i] = event;
                    sequences.item_ids[first as usize + i] = self.data.n_item_rows as u32;
                }
            }
        }
        targets
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::config::{
        Bert4recConfig, EmbeddingNorm, EncoderConfig, FfnActivation, OutputConfig, PositionOrder, SasrecConfig,
        SimilarityConfig,
    };

    fn config(max_sequence_length: usize) -> ModelConfig {
        let (num_blocks, num_heads, ffn_hidden_dim) = (1, 1, 4);
        let sasrec = SasrecConfig { num_blocks, num_heads, ffn_hidden_dim, ffn_activation: FfnActivation::Relu };
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

    /// A user with events 1, 2, ... at times 10, 20, ...
    fn user(user_id: i64, n: u32) -> Sequence {
        let (item_ids, timestamps) = ((1..=n).collect(), (1..=n).map(|i| 10 * i64::from(i)).collect());
        Sequence { user_id, item_ids, ratings: vec![1.0; n as usize], timestamps }
    }

    fn data(users: &[Sequence], split: Split, length: usize, batch_size: usize) -> Result<TrainData> {
        TrainData::new(users, split, &config(length), 10, batch_size, 5)
    }

    #[test]
    fn positions_are_supervised_by_the_event_after_them() {
        let batch = |split, length| {
            let data = data(&[user(7, 6)], split, length, 2).unwrap();
            assert_eq!(data.n_positions(), data.epoch(0).batch(0).unwrap().targets.len());
            data.epoch(0).batch(0).unwrap()
        };
        // 6 is the target of the test; of 1 to 5 the last four.
        let TrainBatch { sequences, targets } = batch(Split::Test, 3);
        assert_eq!((sequences.user_ids, sequences.item_ids, targets), (vec![7], vec![2, 3, 4], vec![3, 4, 5]));
        assert_eq!((sequences.timestamps, sequences.next_timestamps), (vec![20, 30, 40], vec![30, 40, 50]));
        let TrainBatch { sequences, targets } = batch(Split::Validation, 9);
        assert_eq!((sequences.item_ids, targets), (vec![1, 2, 3], vec![2, 3, 4]));
    }

    #[test]
    fn masks_stand_for_events_and_the_last_one_always() {
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
            positions: PositionOrder::FromFirst,
            output_head: false,
        };
        let config = ModelConfig { encoder: EncoderConfig::Bert4rec(bert), ..config(5) };
        let users: Vec<Sequence> = (0..400).map(|id| user(id, 3 + id as u32 % 6)).collect();
        let data = TrainData::new(&users, Split::Test, &config, 10, 400, 5).unwrap();
        let masks = |data: &TrainData, epoch| {
            let batch = data.epoch(epoch).batch(0).unwrap();
            let (ids, targets) = (&batch.sequences.item_ids, &batch.targets);
            let last_rows = batch.sequences.last_rows();
            assert!(last_rows.iter().all(|&row| ids[row as usize] == 10 && targets[row as usize] > 0));
            // Unmasked, the events are there: consecutive numbers.
            let events: Vec<u32> =
                ids.iter().zip(targets).map(|(&id, &target)| if id == 10 { target } else { id }).collect();
            for pair in batch.sequences.offsets.windows(2) {
                let events = &events[pair[0] as usize..pair[1] as usize];
                assert!(events.len() <= 6 && events.windows(2).all(|pair| pair[1] == pair[0] + 1), "{events:?}");
            }
            assert!(ids.iter().zip(targets).all(|(&id, &target)| (id == 10) == (target > 0)));
            assert_eq!(batch.supervised().len(), targets.iter().filter(|&&target| target > 0).count());
            (batch.supervised().len() - 400) as f64 / (targets.len() - 400) as f64
        };
        // About 1,000 events beside the last ones: five standard deviations are .063.
        assert!((masks(&data, 0) - 0.2).abs() < 0.07 && masks(&data, 0) != masks(&data, 1));
        assert_eq!(masks(&data.clone().with_mask_probability(0.0), 0), 0.0);
        assert_eq!(masks(&data.with_mask_probability(1.0), 0), 1.0);
    }

    #[test]
    fn every_epoch_sees_every_user_once_in_an_order_of_its_own() {
        let users: Vec<Sequence> = (0..25).map(|id| user(id, 3 + id as u32 % 4)).collect();
        let data = data(&users, Split::Test, 9, 10).unwrap();
        let epoch = |n| {
            let batches = (0..data.n_batches()).map(|i| data.epoch(n).batch(i).unwrap().sequences.user_ids);
            batches.collect::<Vec<_>>()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!((&epoch(0), first == second), (&first, false));
        for order in [first.concat(), second.concat()] {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!((sorted, order.is_sorted()), ((0..25).collect(), false));
        }
        assert_eq!(data.epoch(0).batch(3).unwrap().targets.len(), 0);
        // Targets are 2 and up; item 5 is one of the users with six events.
        assert_eq!(data.target_counts(), [0, 0, 25, 18, 12, 6, 0, 0, 0, 0]);
    }

    #[test]
    fn users_with_nothing_to_learn_from_are_passed_over_and_bad_data_are_named() {
        let with_short = data(&[user(1, 2), user(2, 3)], Split::Test, 9, 9).unwrap();
        assert_eq!((with_short.n_users(), with_short.n_positions()), (1, 1));
        let says = |users: &[Sequence], split| data(users, split, 9, 9).unwrap_err().to_string();
        let expected = "dataset: expected users with at least 4 events: two to train on and 2 held out, found 1 users, all with fewer";
        assert_eq!(says(&[user(1, 3)], Split::Validation), expected);
        let expected = "dataset: expected item ids from 1 to 9 (rows of the item table), found item id 10 of user 3";
        assert_eq!(says(&[user(1, 3), user(3, 10)], Split::Test), expected);
    }
}
