//! The recall and latency table of a benchmark.

use serde_json::{Map, Value, json};

use super::{RunInfo, Table};
use crate::eval::Measurement;

/// Measurements of all algorithms of a run.
#[derive(Clone, Debug)]
pub struct SpeedReport {
    /// Conditions.
    pub run: RunInfo,
    /// Users per batch.
    pub batch: usize,
    /// Bytes of the index per item.
    pub bytes_per_item: f64,
    /// One row per algorithm.
    pub measurements: Vec<Measurement>,
}

impl SpeedReport {
    /// One row per algorithm.
    pub fn table(&self) -> Table {
        let recall = format!("recall@{}", self.run.k);
        let mut table = Table::new(["algorithm", &recall, "HR@10", "NDCG@10", "ms/batch p50", "p99"]);
        for measurement in &self.measurements {
            let ms = |p| format!("{:.2}", 1e3 * measurement.percentile(p).as_secs_f64());
            let quality = &measurement.quality;
            table.row([
                measurement.algorithm.to_string(),
                format!("{:.4}", measurement.recall),
                format!("{:.4}", quality.hit_rate(10)),
                format!("{:.4}", quality.ndcg(10)),
                ms(0.5),
                ms(0.99),
            ]);
        }
        table
    }

    /// The same as one JSON object.
    pub fn json(&self) -> Value {
        let result = |measurement: &Measurement| {
            let ms = |p| json!(1e3 * measurement.percentile(p).as_secs_f64());
            let mut row = Map::new();
            row.insert("algorithm".to_string(), json!(measurement.algorithm.to_string()));
            row.insert("batch".to_string(), json!(self.batch));
            row.insert("k".to_string(), json!(self.run.k));
            row.insert(format!("recall@{}", self.run.k), json!(measurement.recall));
            row.insert("hr@10".to_string(), json!(measurement.quality.hit_rate(10)));
            row.insert("ndcg@10".to_string(), json!(measurement.quality.ndcg(10)));
            row.insert("ms_per_batch_p50".to_string(), ms(0.5));
            row.insert("ms_per_batch_p99".to_string(), ms(0.99));
            row.insert("bytes_per_item".to_string(), json!(self.bytes_per_item));
            Value::Object(row)
        };
        json!({
            "device": self.run.device,
            "dtype": self.run.dtype,
            "users": self.run.users,
            "items": self.run.items,
            "results": self.measurements.iter().map(result).collect::<Vec<_>>(),
        })
    }
}
