//! How a model gets its tensors: checked reading of a checkpoint, or new ones.

use std::collections::BTreeSet;

use super::Checkpoint;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Hands out the tensors of a checkpoint by name and shape, and knows at the end which ones nobody asked for. Or makes new ones.
pub struct Weights<'a> {
    source: Source<'a>,
    taken: BTreeSet<String>,
}

enum Source<'a> {
    Checkpoint(&'a Checkpoint),
    New { n_rows: usize, make: &'a mut MakeTensor<'a> },
}

/// Makes the tensor of a name and a shape.
pub type MakeTensor<'a> = dyn FnMut(&str, &[usize]) -> Tensor + 'a;

impl<'a> Weights<'a> {
    /// The causal mask, a buffer of the reference's models that every encoder computes itself.
    pub const IGNORED: &'static str = "_attn_mask";

    /// A reader of all tensors of `checkpoint`.
    pub fn new(checkpoint: &'a Checkpoint) -> Weights<'a> {
        Weights { source: Source::Checkpoint(checkpoint), taken: BTreeSet::new() }
    }

    /// New tensors from `make`, which is told names and shapes; [`Weights::rows`] of any is `n_rows`.
    pub fn made(n_rows: usize, make: &'a mut MakeTensor<'a>) -> Weights<'a> {
        Weights { source: Source::New { n_rows, make }, taken: BTreeSet::new() }
    }

    /// The tensor `name`, which must have exactly this `shape`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if it is missing, of another shape, or cannot be read ([`Checkpoint::tensor`]).
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let checkpoint = match &mut self.source {
            Source::Checkpoint(checkpoint) => *checkpoint,
            Source::New { make, .. } => return Ok(make(name, shape)),
        };
        let expected = format!("shape {shape:?}");
        match checkpoint.shape(name) {
            None => Err(checkpoint.tensor_error(name, &expected, checkpoint.near_names(name))),
            Some(found) if found != shape => Err(checkpoint.tensor_error(name, &expected, format!("shape {found:?}"))),
            Some(_) => {
                self.taken.insert(name.to_string());
                checkpoint.tensor(name)
            }
        }
    }

    /// The tensor `name` if there is one; it must then have this `shape`.
    ///
    /// # Errors
    /// As [`Weights::take`], except for a missing tensor.
    pub fn take_optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        if self.has(name) { self.take(name, shape).map(Some) } else { Ok(None) }
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// Shape of the tensor `name`, without reading it.
    pub fn shape(&self, name: &str) -> Option<&'a [usize]> {
        match self.source {
            Source::Checkpoint(checkpoint) => checkpoint.shape(name),
            Source::New { .. } => None,
        }
    }

    /// Extent of the first axis of the tensor `name`: what a table's size is, where only the file knows it.
    ///
    /// # Errors
    /// [`Error::Tensor`] if it is missing or a scalar.
    pub fn rows(&self, name: &str) -> Result<usize> {
        let checkpoint = match self.source {
            Source::Checkpoint(checkpoint) => checkpoint,
            Source::New { n_rows, .. } => return Ok(n_rows),
        };
        let error = |found| checkpoint.tensor_error(name, "a tensor with rows", found);
        match checkpoint.shape(name) {
            None => Err(error(checkpoint.near_names(name))),
            Some([]) => Err(error("a scalar".to_string())),
            Some(shape) => Ok(shape[0]),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming every tensor that was not taken, except the buffer `_attn_mask`: the configuration
    /// describes another model than the file holds.
    pub fn finish(self) -> Result<()> {
        let Source::Checkpoint(checkpoint) = self.source else { return Ok(()) };
        let unread = checkpoint.names().filter(|name| !self.taken.contains(*name) && *name != Weights::IGNORED);
        let unread: Vec<String> = unread.map(|name| format!("`{name}`")).collect();
        if unread.is_empty() {
            return Ok(());
        }
        Err(Error::Checkpoint {
            path: checkpoint.path().to_path_buf(),
            what: format!("{} tensors have no place in the configured model: {}", unread.len(), unread.join(", ")),
            fix: "use the configuration that the model was trained with".to_string(),
        })
    }
}
