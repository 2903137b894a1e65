//! Columns of the table of a benchmark.

use super::row::SpeedRow;

/// A column of the table: its name, its cell by row and speed-up, and what it means.
pub struct Column {
    pub name: &'static str,
    pub cell: fn(&SpeedRow, Option<f64>) -> String,
    pub meaning: &'static str,
}

/// Columns; those in which no row has a value are left out.
pub const COLUMNS: [Column; 10] = [
    Column {
        name: "recall",
        cell: |row, _| format!("{:.4}", row.measurement.recall),
        meaning: "share of the exact results that were found",
    },
    Column {
        name: "agreement",
        cell: |row, _| cell(row.measurement.agreement),
        meaning: "share of the results that the bench file expects",
    },
    Column {
        name: "HR@10",
        cell: |row, _| cell(row.hit_rate(10)),
        meaning: "hit rate: share of users whose next item is among the first 10",
    },
    Column { name: "NDCG@10", cell: |row, _| cell(row.ndcg(10)), meaning: "the same, weighted by 1 / log2(rank + 1)" },
    Column { name: "MRR", cell: |row, _| cell(row.mrr()), meaning: "mean of 1 / rank of the next item" },
    Column {
        name: "scored",
        cell: |row, _| format!("{:.0}", row.measurement.scored),
        meaning: "items per query that were scored with the full similarity, after the first stage",
    },
    Column {
        name: "pruned",
        cell: |row, _| cell(Some(row.measurement.pruned).filter(|&share| share > 0.0)),
        meaning: "share of the pairs that bounds ruled out",
    },
    Column {
        name: "ms p50",
        cell: |row, _| significant(row.percentile_ms(0.5)),
        meaning: "median time of a batch, in milliseconds",
    },
    Column {
        name: "p99",
        cell: |row, _| significant(row.percentile_ms(0.99)),
        meaning: "time that 99 % of the batches stay within",
    },
    Column {
        name: "speedup",
        cell: |_, speedup| speedup.map_or("-".to_string(), |times| format!("{}x", significant(times))),
        meaning: "how many times as fast as exact, by median times",
    },
];

/// A number with three digits that count, and no fewer than all before the point.
pub fn significant(value: f64) -> String {
    let magnitude = if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    format!("{value:.*}", (2 - magnitude).clamp(0, 6) as usize)
}

/// What the reference's own report has, and the recall.
pub const EVAL_BATCH: [Column; 8] = [
    Column {
        name: "recall",
        cell: |row, _| format!("{:.4}", row.measurement.recall),
        meaning: "share of the exact results that were found",
    },
    Column {
        name: "HR@1",
        cell: |row, _| cell(row.hit_rate(1)),
        meaning: "share of users whose first item of the exact list comes first",
    },
    Column { name: "HR@5", cell: |row, _| cell(row.hit_rate(5)), meaning: "the same, among the first 5" },
    Column { name: "HR@10", cell: |row, _| cell(row.hit_rate(10)), meaning: "among the first 10" },
    Column { name: "HR@50", cell: |row, _| cell(row.hit_rate(50)), meaning: "among the first 50" },
    Column { name: "HR@100", cell: |row, _| cell(row.hit_rate(100)), meaning: "among the first 100" },
    Column {
        name: "mean ms",
        cell: |row, _| format!("{:.2}", row.mean_ms()),
        meaning: "mean time of a batch, in milliseconds",
    },
    Column {
        name: "speedup",
        cell: |_, speedup| speedup.map_or("-".to_string(), |speedup| format!("{speedup:.2}x")),
        meaning: "how many times as fast as MoLBruteForceTopK",
    },
];

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_say_enough() {
        assert_eq!([0.01234, 1.234, 174.41, 12_345.6].map(significant), ["0.0123", "1.23", "174", "12346"]);
    }
}
