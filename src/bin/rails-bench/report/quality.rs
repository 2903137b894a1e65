//! The quality table of an evaluation.

use serde_json::{Map, Value, json};

use super::{Machine, Table};
use rails_wgpu::eval::Evaluation;
use rails_wgpu::metrics::{HIT_RATE_AT, NDCG_AT};

/// The conditions of a run, the same for all its rows.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The model in words.
    pub model: String,
    /// What ran it.
    pub machine: Machine,
    /// Name of the device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// Number format of the index.
    pub dtype: String,
    /// Evaluation protocol.
    pub protocol: String,
    /// Users evaluated.
    pub users: usize,
    /// Users left out because they have fewer than two events.
    pub skipped_users: usize,
    /// Whether it was ended before all users.
    pub interrupted: bool,
    /// Items in the index.
    pub items: usize,
    /// Where they come from.
    pub item_source: String,
    /// Cut-offs beyond this many items are not reported.
    pub k: usize,
}

/// Results of all algorithms of a run.
#[derive(Clone, Debug)]
pub struct QualityReport {
    /// Conditions.
    pub run: RunInfo,
    /// One row per algorithm.
    pub evaluations: Vec<Evaluation>,
}

impl QualityReport {
    /// What holds for all rows, one condition per line.
    pub fn conditions(&self) -> String {
        let RunInfo { model, machine, device, driver, dtype, protocol, users, items, item_source, .. } = &self.run;
        format!(
            "model     {model}\nmachine   {machine}\ndevice    {device} ({driver})   dtype {dtype}\n\
             data      {users} users, {items} items from {item_source}   protocol {protocol}\n"
        )
    }

    /// One row per algorithm: HR, NDCG, MRR and throughput. Cut-offs beyond k show `-`.
    pub fn table(&self) -> Table {
        let k = self.run.k;
        let mut header = vec!["algorithm".to_string()];
        header.extend(HIT_RATE_AT.iter().map(|n| format!("HR@{n}")));
        header.extend(NDCG_AT.iter().map(|n| format!("NDCG@{n}")));
        header.extend(["MRR", "encode q/s", "search q/s"].map(str::to_string));
        let mut table = Table::new(header);
        table.cut_before(1 + HIT_RATE_AT.len());
        let cell = |n: usize, value: f64| if n <= k { format!("{value:.4}") } else { "-".to_string() };
        for evaluation in &self.evaluations {
            let quality = &evaluation.quality;
            let mut row = vec![evaluation.algorithm.to_string()];
            row.extend(HIT_RATE_AT.iter().map(|&n| cell(n, quality.hit_rate(n))));
            row.extend(NDCG_AT.iter().map(|&n| cell(n, quality.ndcg(n))));
            row.push(format!("{:.4}", quality.mrr()));
            row.push(format!("{:.0}", evaluation.encode_qps()));
            row.push(format!("{:.0}", evaluation.search_qps()));
            table.row(row);
        }
        table
    }

    /// The same as one JSON object; cut-offs beyond k are null.
    pub fn json(&self) -> Value {
        let k = self.run.k;
        let number = |n: usize, value: f64| if n <= k { json!(value) } else { Value::Null };
        let result = |evaluation: &Evaluation| {
            let quality = &evaluation.quality;
            let mut row = Map::new();
            row.insert("algorithm".to_string(), json!(evaluation.algorithm.to_string()));
            row.extend(HIT_RATE_AT.iter().map(|&n| (format!("hr@{n}"), number(n, quality.hit_rate(n)))));
            row.extend(NDCG_AT.iter().map(|&n| (format!("ndcg@{n}"), number(n, quality.ndcg(n)))));
            row.insert("mrr".to_string(), json!(quality.mrr()));
            row.insert("encode_qps".to_string(), json!(evaluation.encode_qps()));
            row.insert("search_qps".to_string(), json!(evaluation.search_qps()));
            Value::Object(row)
        };
        json!({
            "device": self.run.device,
            "processor": self.run.machine.processor,
            "threads": self.run.machine.threads,
            "version": self.run.machine.version,
            "interrupted": self.run.interrupted,
            "dtype": self.run.dtype,
            "protocol": self.run.protocol,
            "k": k,
            "users": self.run.users,
            "skipped_users": self.run.skipped_users,
            "items": self.run.items,
            "item_source": self.run.item_source,
            "results": self.evaluations.iter().map(result).collect::<Vec<_>>(),
        })
    }
}
