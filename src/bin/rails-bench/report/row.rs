//! One line of a benchmark.

use std::time::Duration;

use serde_json::{Value, json};

use crate::measure::Measurement;

/// Cut-offs of the hit rate in JSON and CSV.
pub const HIT_RATE_AT: [usize; 5] = [1, 5, 10, 50, 100];

/// One algorithm at one point of the grid.
#[derive(Clone, Debug)]
pub struct SpeedRow {
    /// Name of the device.
    pub device: String,
    /// Number format of the index.
    pub dtype: String,
    /// Items in the index.
    pub items: usize,
    /// Queries per batch.
    pub batch: usize,
    /// Items per result.
    pub k: usize,
    /// Bytes of the index per item.
    pub bytes_per_item: f64,
    /// Time to build the index.
    pub build: Duration,
    /// What was measured.
    pub measurement: Measurement,
}

/// What tells a point of the grid from others: name and value.
pub type Axis = (&'static str, fn(&SpeedRow) -> String);

pub const AXES: [Axis; 5] = [
    ("device", |row| row.device.clone()),
    ("dtype", |row| row.dtype.clone()),
    ("items", |row| row.items.to_string()),
    ("batch", |row| row.batch.to_string()),
    ("k", |row| row.k.to_string()),
];

impl SpeedRow {
    /// A percentile of the time of a batch, in milliseconds.
    pub fn percentile_ms(&self, p: f64) -> f64 {
        1e3 * self.measurement.percentile(p).as_secs_f64()
    }

    /// The mean time of a batch, in milliseconds.
    pub fn mean_ms(&self) -> f64 {
        1e3 * self.measurement.mean().as_secs_f64()
    }

    /// The hit rate, where there are targets and `n` items.
    pub fn hit_rate(&self, n: usize) -> Option<f64> {
        (self.has_targets() && n <= self.k).then(|| self.measurement.quality.hit_rate(n))
    }

    /// NDCG, as [`SpeedRow::hit_rate`].
    pub fn ndcg(&self, n: usize) -> Option<f64> {
        (self.has_targets() && n <= self.k).then(|| self.measurement.quality.ndcg(n))
    }

    /// MRR, where there are targets.
    pub fn mrr(&self) -> Option<f64> {
        self.has_targets().then(|| self.measurement.quality.mrr())
    }

    fn has_targets(&self) -> bool {
        !self.measurement.quality.is_empty()
    }

    /// Whether `other` is at the same point of the grid.
    pub fn shares_point(&self, other: &SpeedRow) -> bool {
        AXES.iter().all(|(_, value)| value(self) == value(other))
    }

    /// Every number by its name in CSV.
    pub fn fields(&self) -> Vec<(String, Value)> {
        let measurement = &self.measurement;
        let mut fields: Vec<(String, Value)> = [
            ("algorithm", json!(measurement.algorithm.to_string())),
            ("device", json!(self.device)),
            ("dtype", json!(self.dtype)),
            ("items", json!(self.items)),
            ("batch", json!(self.batch)),
            ("k", json!(self.k)),
            ("queries", json!(measurement.queries)),
            ("runs", json!(measurement.times.len())),
            ("recall", json!(measurement.recall)),
            ("agreement", json!(measurement.agreement)),
            ("targets", json!(measurement.quality.len())),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        fields.extend(HIT_RATE_AT.map(|n| (format!("hr@{n}"), json!(self.hit_rate(n)))));
        fields.extend(
            [
                ("ndcg@10", json!(self.ndcg(10))),
                ("mrr", json!(self.mrr())),
                ("ms_per_batch_p50", json!(self.percentile_ms(0.5))),
                ("ms_per_batch_p99", json!(self.percentile_ms(0.99))),
                ("ms_per_batch_mean", json!(self.mean_ms())),
                ("scored_per_query", json!(measurement.scored)),
                ("pruned_share", json!(measurement.pruned)),
                ("bytes_per_item", json!(self.bytes_per_item)),
                ("index_build_s", json!(self.build.as_secs_f64())),
            ]
            .map(|(name, value)| (name.to_string(), value)),
        );
        fields
    }
}
