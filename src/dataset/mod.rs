//! Data sets.
#![allow(missing_docs, reason = "placeholder")]
pub struct Sequence {
    pub user_id: i64,
    pub item_ids: Vec<u32>,
    pub ratings: Vec<f32>,
    pub timestamps: Vec<i64>,
}
