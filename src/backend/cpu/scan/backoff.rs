//! Exponential backoff: when something that failed is worth another try.

/// Steps before the next try after a first failure.
const MIN_WAIT: usize = 64;

/// Most steps between two tries. A failed try costs little beside so many.
const MAX_WAIT: usize = 1024;

/// Counts steps between tries. The wait doubles with each failure and ends with a success.
#[derive(Default)]
pub struct Backoff {
    left: usize,
    wait: usize,
}

impl Backoff {
    /// Whether to try the next `steps`. If not, they count as waiting.
    pub fn should_try(&mut self, steps: usize) -> bool {
        let now = self.left == 0;
        self.left = self.left.saturating_sub(steps);
        now
    }

    /// Records how a try went.
    pub fn record(&mut self, success: bool) {
        self.wait = if success { 0 } else { (2 * self.wait).clamp(MIN_WAIT, MAX_WAIT) };
        self.left = self.wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_the_wait_and_a_success_ends_it() {
        let mut backoff = Backoff::default();
        let mut wait = |success: bool| {
            backoff.record(success);
            let steps = (0..).find(|_| backoff.should_try(32)).map(|times| 32 * times);
            steps.expect("the end of a wait")
        };
        assert_eq!([false, false, false].map(&mut wait), [64, 128, 256]);
        assert_eq!([false; 4].map(&mut wait), [512, 1024, 1024, 1024]);
        assert_eq!([true, true, false].map(&mut wait), [0, 0, 64]);
    }
}
