//! How far the learning from queries has come, and whether somebody still wants it.

use crate::Result;
use crate::context::{Cancel, SearchContext};

/// Shares of the whole that are done with the pairs that a gate is fitted to, and with the gate.
pub(super) const PAIRS_SHARE: f32 = 0.1;
pub(super) const GATE_SHARE: f32 = 0.8;

/// Passed to whatever takes long.
pub(crate) struct Learning<'a> {
    context: SearchContext,
    progress: &'a dyn Fn(f32),
}

impl<'a> Learning<'a> {
    /// `cancel` ends it; `progress` is called with the share that is done, from 0 to 1.
    pub fn new(cancel: &Cancel, progress: &'a dyn Fn(f32)) -> Learning<'a> {
        Learning { context: SearchContext::new(Some(cancel.clone()), false), progress }
    }

    /// For scans, which end when the learning does.
    pub fn context(&self) -> &SearchContext {
        &self.context
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<()> {
        self.context.check()
    }

    /// So much is done.
    ///
    /// # Errors
    /// As [`Learning::check`].
    pub fn reached(&self, share: f32) -> Result<()> {
        (self.progress)(share);
        self.check()
    }
}

#[cfg(test)]
impl Default for Learning<'_> {
    fn default() -> Self {
        Learning::new(&Cancel::new(), &|_| ())
    }
}
