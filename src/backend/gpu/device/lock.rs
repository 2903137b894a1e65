//! Mutexes that a panic elsewhere does not close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The value of a mutex, even after another thread panicked: all values here are valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
