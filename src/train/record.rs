//! What a training run has measured.

use serde::{Deserialize, Serialize};

use super::{Losses, Split};
use crate::metrics::{HIT_RATE_AT, NDCG_AT, Quality};

/// Losses, means over steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanLosses {
    /// Everything, weighted: what training minimises.
    pub total: f64,
    /// The softmax, sampled or over all items.
    pub softmax: f64,
    /// Mutual information, without its weight.
    pub mi_loss: f64,
    /// Squared norm of uid embeddings, without its weight.
    pub uid_embedding_l2_norm: f64,
}

impl From<Losses> for MeanLosses {
    fn from(losses: Losses) -> MeanLosses {
        let Losses { total, main, mi_loss, uid_embedding_l2_norm } = losses;
        MeanLosses { total, softmax: main, mi_loss, uid_embedding_l2_norm }
    }
}

/// An epoch, or the part of one that training ended in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs done; with a fraction where training ended within one.
    pub epoch: f64,
    /// Steps done.
    pub step: u64,
    /// Losses of the epoch.
    pub losses: MeanLosses,
    /// Supervised positions per second of training, evaluation and saving not counted.
    pub positions_per_second: f64,
    /// The evaluation after the epoch, if there was one.
    pub evaluation: Option<EvaluationRecord>,
}

/// An evaluation by exact search in the reference protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// What was predicted.
    pub split: Split,
    /// Users evaluated.
    pub users: usize,
    /// Whether these were all.
    pub is_full: bool,
    /// HR at the cut-offs [`HIT_RATE_AT`].
    pub hit_rate: [f64; HIT_RATE_AT.len()],
    /// NDCG at the cut-offs [`NDCG_AT`].
    pub ndcg: [f64; NDCG_AT.len()],
    /// MRR; a target that was not found has the rank 2501.
    pub mrr: f64,
    /// The metric that the best model is chosen by.
    pub chosen: f64,
}

impl EvaluationRecord {
    pub(super) fn new(split: Split, is_full: bool, quality: &Quality, chosen: f64) -> EvaluationRecord {
        EvaluationRecord {
            split,
            users: quality.len(),
            is_full,
            hit_rate: HIT_RATE_AT.map(|n| quality.hit_rate(n)),
            ndcg: NDCG_AT.map(|n| quality.ndcg(n)),
            mrr: quality.mrr(),
            chosen,
        }
    }

    /// Names of all metrics with their values: `HR@1` and so on.
    pub fn values(&self) -> Vec<(String, f64)> {
        let hit_rates = HIT_RATE_AT.iter().zip(self.hit_rate).map(|(n, value)| (format!("HR@{n}"), value));
        let ndcgs = NDCG_AT.iter().zip(self.ndcg).map(|(n, value)| (format!("NDCG@{n}"), value));
        hit_rates.chain(ndcgs).chain([("MRR".to_string(), self.mrr)]).collect()
    }
}

/// The records as the text of a CSV file, a line each.
pub(super) fn csv(records: &[EpochRecord]) -> String {
    let empty = EvaluationRecord::new(Split::Test, false, &Quality::new(None), 0.0);
    let metrics: Vec<String> = empty.values().into_iter().map(|(name, _)| name.to_lowercase()).collect();
    let mut text = format!(
        "epoch,step,loss,softmax_loss,mi_loss,uid_embedding_l2_norm,positions_per_second,split,users,all_users,{}\n",
        metrics.join(",")
    );
    for record in records {
        let MeanLosses { total, softmax, mi_loss, uid_embedding_l2_norm } = record.losses;
        let evaluation = record.evaluation.as_ref();
        let of_evaluation = match evaluation {
            Some(evaluation) => {
                let values: Vec<String> = evaluation.values().iter().map(|(_, value)| value.to_string()).collect();
                format!("{},{},{},{}", evaluation.split, evaluation.users, evaluation.is_full, values.join(","))
            }
            None => ",".repeat(metrics.len() + 2),
        };
        text.push_str(&format!(
            "{},{},{total},{softmax},{mi_loss},{uid_embedding_l2_norm},{:.0},{of_evaluation}\n",
            record.epoch, record.step, record.positions_per_second
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_field_for_each_column() {
        let mut quality = Quality::new(Some(2501));
        quality.add(Some(1));
        quality.add(Some(20));
        let mut record = EpochRecord {
            epoch: 2.5,
            step: 10,
            losses: MeanLosses { total: 1.5, softmax: 1.25, mi_loss: -0.5, uid_embedding_l2_norm: 0.0 },
            positions_per_second: 1234.4,
            evaluation: None,
        };
        let trained = record.clone();
        record.evaluation = Some(EvaluationRecord::new(Split::Validation, true, &quality, 0.5));
        let text = csv(&[trained, record]);
        let lines: Vec<&str> = text.lines().collect();
        let columns = lines[0].split(',').count();
        assert_eq!(lines.iter().map(|line| line.split(',').count()).collect::<Vec<_>>(), [columns; 3]);
        let field = |line: usize, name: &str| {
            let place = lines[0].split(',').position(|column| column == name);
            place.and_then(|place| lines[line].split(',').nth(place))
        };
        assert_eq!((field(1, "epoch"), field(1, "loss"), field(1, "hr@10")), (Some("2.5"), Some("1.5"), Some("")));
        assert_eq!(
            (field(2, "split"), field(2, "hr@10"), field(2, "hr@50")),
            (Some("validation"), Some("0.5"), Some("1"))
        );
        assert_eq!(field(2, "positions_per_second"), Some("1234"));
    }
}
