//! When something that may be in vain is worth another try.

/// Steps before the second try, if the first was in vain.
const LEAST: usize = 64;

/// Steps between two tries at most: what they cost in vain is little beside so many.
const MOST: usize = 1024;

/// Counts steps between tries: the more, the more tries have been in vain one after the other.
#[derive(Default)]
pub struct Patience {
    left: usize,
    wait: usize,
}

impl Patience {
    /// Whether the next `steps` are to be tried.
    pub fn is_over(&mut self, steps: usize) -> bool {
        let over = self.left == 0;
        self.left = self.left.saturating_sub(steps);
        over
    }

    /// Takes note of what a try was worth.
    pub fn learn(&mut self, in_vain: bool) {
        self.wait = if in_vain { (2 * self.wait).clamp(LEAST, MOST) } else { 0 };
        self.left = self.wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_in_vain_become_rarer_until_one_is_not() {
        let mut patience = Patience::default();
        let mut wait = |in_vain: bool| {
            patience.learn(in_vain);
            let steps = (0..).find(|_| patience.is_over(32)).map(|times| 32 * times);
            steps.expect("the end of a wait")
        };
        assert_eq!([true, true, true].map(&mut wait), [64, 128, 256]);
        assert_eq!([true; 4].map(&mut wait), [512, 1024, 1024, 1024]);
        assert_eq!([false, false, true].map(&mut wait), [0, 0, 64]);
    }
}
