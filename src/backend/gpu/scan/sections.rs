//! The division of the logits of a pair among threads: those of one thread, or of several where its registers do not hold them all.

use super::plan::TILE;

/// Values in registers that a thread of the scan may hold as logits, and again as many as gate values.
pub(super) const REGISTER_LOGITS: usize = 64;

/// Threads of a workgroup on every device.
const THREADS: usize = 256;

/// Sections of the P_Q x P_X logits of a pair, one for each of its threads. Those that do not come out even overlap; a logit belongs to the
/// first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sections {
    groups: (usize, usize),
    /// Query components and item components of a section.
    pub own: (usize, usize),
}

impl Sections {
    /// One section.
    pub fn whole(groups: (usize, usize)) -> Sections {
        Sections { groups, own: groups }
    }

    /// As few sections as bring their logits down to `thread_logits`; as many as a workgroup has room for, where none does.
    pub fn new(groups: (usize, usize), thread_logits: usize) -> Sections {
        let most = THREADS / TILE;
        let cut = |along_q: usize| {
            (1..=most / along_q).map(move |along_x| (groups.0.div_ceil(along_q), groups.1.div_ceil(along_x)))
        };
        let all = (1..=most).rev().flat_map(cut).map(|own| Sections { groups, own });
        all.min_by_key(|sections| (sections.n_own().max(thread_logits), sections.count()))
            .unwrap_or(Sections::whole(groups))
    }

    /// Sections beside each other, along query components and along item components.
    fn counts(&self) -> (usize, usize) {
        (self.groups.0.div_ceil(self.own.0), self.groups.1.div_ceil(self.own.1))
    }

    pub fn count(&self) -> usize {
        self.counts().0 * self.counts().1
    }

    /// Logits of a section.
    pub fn n_own(&self) -> usize {
        self.own.0 * self.own.1
    }

    /// Hidden units, or logits, that sections exchange at a time: `UNITS` of the shaders.
    pub fn units(&self) -> usize {
        if self.count() == 1 { 1 } else { 4 }
    }

    /// The logits of a section, in its order; `None` for those that belong to another one.
    pub fn logits(&self, section: usize) -> Vec<Option<usize>> {
        let along_x = self.counts().1;
        let wanted = (section / along_x * self.own.0, section % along_x * self.own.1);
        let first = (wanted.0.min(self.groups.0 - self.own.0), wanted.1.min(self.groups.1 - self.own.1));
        let logit = |j: usize| {
            let (n, m) = (first.0 + j / self.own.1, first.1 + j % self.own.1);
            (n >= wanted.0 && m >= wanted.1).then_some(n * self.groups.1 + m)
        };
        (0..self.n_own()).map(logit).collect()
    }

    /// As constants of the shaders.
    pub fn constants(&self) -> [(&'static str, usize); 7] {
        [
            ("SECTIONS", self.count()),
            ("SECTIONS_X", self.counts().1),
            ("P_Q", self.groups.0),
            ("OWN_Q", self.own.0),
            ("OWN_X", self.own.1),
            ("OWN", self.n_own()),
            ("OWN4", self.n_own().div_ceil(4)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(groups: (usize, usize)) -> ((usize, usize), usize) {
        let sections = Sections::new(groups, REGISTER_LOGITS);
        (sections.own, sections.count())
    }

    #[test]
    fn there_are_as_few_sections_as_registers_allow() {
        assert_eq!([cut((8, 4)), cut((8, 8)), cut((1, 64))], [((8, 4), 1), ((8, 8), 1), ((1, 64), 1)]);
        assert_eq!([cut((16, 8)), cut((16, 16)), cut((7, 11))], [((8, 8), 2), ((4, 16), 4), ((4, 11), 2)]);
        assert_eq!([cut((1, 100)), cut((3, 65))], [((1, 50), 2), ((3, 17), 4)]);
        assert_eq!(Sections::new((2, 3), 2).own, (2, 1));
        // More than a workgroup can hold.
        assert_eq!(cut((20, 15)), ((5, 15), 4));
        assert_eq!(Sections::new((16, 8), usize::MAX), Sections::whole((16, 8)));
    }

    #[test]
    fn every_logit_belongs_to_one_section() {
        for groups in [(8, 4), (16, 8), (7, 11), (1, 100), (3, 65), (20, 15), (9, 9)] {
            let sections = Sections::new(groups, REGISTER_LOGITS);
            let mut all: Vec<usize> =
                (0..sections.count()).flat_map(|section| sections.logits(section)).flatten().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..groups.0 * groups.1), "{groups:?}");
        }
        let uneven = Sections::new((7, 11), REGISTER_LOGITS);
        assert_eq!(uneven.logits(1)[10..12], [None, Some(44)], "component 3 is that of the first section");
    }
}
