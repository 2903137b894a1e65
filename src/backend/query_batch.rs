//! A batch of queries.

use crate::tensor::Tensor;
use crate::token_embeddings::TokenEmbeddings;

/// A batch of B queries: embeddings as an encoder yields them, and who asks, where the model wants to know.
///
/// ```
/// use rails_wgpu::{QueryBatch, Tensor};
///
/// let embeddings = Tensor::from_rows([[1.0, 0.0], [0.6, 0.8]]);
/// let queries = QueryBatch::new(embeddings).with_users([17, 4]);
/// assert_eq!(queries.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueryBatch {
    /// (B, D): raw query embeddings; the sum of its token embeddings where a query has such.
    pub embeddings: Tensor,
    /// (B): the user of each query. Only models with uid embeddings need them.
    pub user_ids: Option<Vec<i64>>,
    /// The token embeddings of each query, for an index of token embeddings.
    pub token_embeddings: Option<TokenEmbeddings>,
}

impl QueryBatch {
    /// Queries (B, D) of unknown users. Shape and values are checked by each search.
    pub fn new(embeddings: Tensor) -> QueryBatch {
        QueryBatch { embeddings, user_ids: None, token_embeddings: None }
    }

    /// Queries of several vectors each, for late interaction. Values are checked by each search.
    pub fn of_tokens(token_embeddings: TokenEmbeddings) -> QueryBatch {
        let embeddings = token_embeddings.sums();
        QueryBatch { token_embeddings: Some(token_embeddings), ..QueryBatch::new(embeddings) }
    }

    /// The same queries, of these users: one id per query.
    pub fn with_users(self, user_ids: impl Into<Vec<i64>>) -> QueryBatch {
        QueryBatch { user_ids: Some(user_ids.into()), ..self }
    }

    /// B.
    pub fn len(&self) -> usize {
        self.embeddings.rows()
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the queries, in this order.
    ///
    /// # Panics
    /// If there is no such query.
    pub fn select(&self, rows: &[usize]) -> QueryBatch {
        QueryBatch {
            embeddings: self.embeddings.select_rows(rows),
            user_ids: self.user_ids.as_ref().map(|users| rows.iter().map(|&row| users[row]).collect()),
            token_embeddings: self.token_embeddings.as_ref().map(|tokens| tokens.select(rows)),
        }
    }
}
