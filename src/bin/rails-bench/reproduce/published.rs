//! The published tables: arXiv 2407.15462, table 3, and the README of its code, which takes the rows of GRU4Rec and BERT4Rec from
//! arXiv 2309.07602.

/// Columns of a row: HR and NDCG at 10, 50 and 200.
pub const COLUMNS: [&str; 6] = ["HR@10", "NDCG@10", "HR@50", "NDCG@50", "HR@200", "NDCG@200"];

/// A row of a table; some have been published at 10 only.
pub struct Published {
    /// `DATA/MODEL`, as presets are called.
    pub preset: &'static str,
    /// Values in the order of [`COLUMNS`].
    pub values: [Option<f64>; 6],
}

const fn all(preset: &'static str, values: [f64; 6]) -> Published {
    let [a, b, c, d, e, f] = values;
    Published { preset, values: [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] }
}

const fn at_10(preset: &'static str, hit_rate: f64, ndcg: f64) -> Published {
    Published { preset, values: [Some(hit_rate), Some(ndcg), None, None, None, None] }
}

const PUBLISHED: [Published; 16] = [
    all("ml-1m/sasrec", [0.2853, 0.1603, 0.5474, 0.2185, 0.7528, 0.2498]),
    at_10("ml-1m/gru4rec", 0.2811, 0.1648),
    at_10("ml-1m/bert4rec", 0.2843, 0.1537),
    all("ml-1m/hstu", [0.3097, 0.1720, 0.5754, 0.2307, 0.7716, 0.2606]),
    all("ml-1m/hstu-large", [0.3294, 0.1893, 0.5935, 0.2481, 0.7839, 0.2771]),
    all("ml-1m/hstu-mol", [0.3412, 0.1979, 0.6013, 0.2556, 0.7877, 0.2840]),
    all("ml-20m/sasrec", [0.2889, 0.1621, 0.5503, 0.2199, 0.7661, 0.2527]),
    at_10("ml-20m/gru4rec", 0.2813, 0.1730),
    at_10("ml-20m/bert4rec", 0.2816, 0.1703),
    all("ml-20m/hstu", [0.3273, 0.1895, 0.5889, 0.2473, 0.7952, 0.2787]),
    all("ml-20m/hstu-large", [0.3556, 0.2098, 0.6143, 0.2671, 0.8074, 0.2965]),
    all("ml-20m/hstu-mol", [0.3661, 0.2181, 0.6234, 0.2753, 0.8116, 0.3039]),
    all("amzn-books/sasrec", [0.0306, 0.0164, 0.0754, 0.0260, 0.1431, 0.0362]),
    all("amzn-books/hstu", [0.0416, 0.0227, 0.0957, 0.0344, 0.1735, 0.0461]),
    all("amzn-books/hstu-large", [0.0478, 0.0262, 0.1082, 0.0393, 0.1908, 0.0517]),
    all("amzn-books/hstu-mol", [0.0613, 0.0350, 0.1292, 0.0498, 0.2167, 0.0629]),
];

/// What was published of a preset on the data set it is for.
pub fn published(preset: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|row| row.preset == preset)
}
