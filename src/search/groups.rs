//! The queries of a batch by their conditions.

use crate::attributes::Condition;
use crate::error::Parameter;
use crate::{Error, Result};

/// Queries that are under the same condition.
pub(super) enum Groups<'a> {
    /// All of them.
    One(Option<&'a Condition>),
    /// Those of each condition: their rows in the batch, ascending.
    Several(Vec<(&'a Condition, Vec<usize>)>),
}

impl<'a> Groups<'a> {
    /// Of `n_queries` queries, for which there is one condition, one for each, or none.
    ///
    /// # Errors
    /// If there is another number of conditions.
    pub fn new(conditions: &'a [Condition], n_queries: usize) -> Result<Groups<'a>> {
        match conditions {
            [] => Ok(Groups::One(None)),
            [condition] => Ok(Groups::One(Some(condition))),
            _ if conditions.len() != n_queries => {
                let expected = format!("one for all queries, or {n_queries}, one per query");
                Err(Error::argument(Parameter::Condition, expected, conditions.len()))
            }
            [first, ..] if conditions.iter().all(|condition| condition == first) => Ok(Groups::One(Some(first))),
            _ => {
                let mut groups: Vec<(&Condition, Vec<usize>)> = Vec::new();
                for (row, condition) in conditions.iter().enumerate() {
                    match groups.iter_mut().find(|(other, _)| *other == condition) {
                        Some((_, rows)) => rows.push(row),
                        None => groups.push((condition, vec![row])),
                    }
                }
                Ok(Groups::Several(groups))
            }
        }
    }
}

/// An error of a search for the queries `rows` of a batch, as one of that batch.
pub(super) fn in_batch(error: Error, rows: &[usize]) -> Error {
    match error {
        Error::NotScored { query, expected, found } => Error::NotScored { query: rows[query], expected, found },
        other => other,
    }
}
