//! Tiers of the scan by Mixture-of-Logits: which kernels may compute it, and who decides.

use std::fmt;

use crate::error::Parameter;
use crate::names::names;

/// A kernel that scans by Mixture-of-Logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Sums in registers; a thread serves up to so many queries: 1, 2 or 4, by inner products 8 or 16, too. All of these give the
    /// same bits.
    Registers(usize),
    /// As in registers, with the weights of the gate in a uniform buffer, which some devices read by another unit.
    Uniform(usize),
    /// Products by cooperative matrices; a workgroup serves up to so many queries: 1 or 2.
    Cooperative(usize),
}

impl Tier {
    /// Queries that a thread, or a workgroup, serves together.
    pub fn queries(self) -> usize {
        match self {
            Tier::Registers(queries) | Tier::Uniform(queries) | Tier::Cooperative(queries) => queries,
        }
    }

    /// Queries that lie side by side in the packed table.
    pub fn queries_per_thread(self) -> usize {
        match self {
            Tier::Registers(queries) | Tier::Uniform(queries) => queries.min(4),
            Tier::Cooperative(_) => 1,
        }
    }

    /// The tier of that name, as it is displayed.
    pub fn named(name: &str) -> Option<Tier> {
        [1, 2, 4]
            .into_iter()
            .flat_map(|n| [Tier::Registers(n), Tier::Uniform(n), Tier::Cooperative(n)])
            .find(|tier| tier.to_string() == name)
    }

    pub fn is_cooperative(self) -> bool {
        matches!(self, Tier::Cooperative(_))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Tier::Registers(queries) => write!(f, "registers-{queries}"),
            Tier::Uniform(queries) => write!(f, "uniform-{queries}"),
            Tier::Cooperative(queries) => write!(f, "cooperative-{queries}"),
        }
    }
}

/// How a device chooses among the kernels that can scan by Mixture-of-Logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanTier {
    /// A GPU times the kernels on the first large table, and remembers the fastest; small tables are scanned in registers. A
    /// software driver never times anything. Cooperative matrices multiply halves; for tables of 32 bits a number is the sum of
    /// two, nearly an f32: off by 2^-22 of itself.
    #[default]
    Auto,
    /// In registers, by the number of queries: the same bits everywhere, as far as a driver can promise.
    Registers,
    /// By cooperative matrices, for tables of any size, where the device has them.
    Cooperative,
    /// As `Auto`, for tables of any size and on software drivers, too.
    Timed,
}

names!(ScanTier, Parameter::ScanTier, {
    Auto: "auto",
    Registers: "registers",
    Cooperative: "cooperative",
    Timed: "timed",
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn tiers_have_names() {
        for (tier, name) in [
            (Tier::Registers(4), "registers-4"),
            (Tier::Uniform(1), "uniform-1"),
            (Tier::Cooperative(2), "cooperative-2"),
        ] {
            assert_eq!((tier.to_string().as_str(), Tier::named(name)), (name, Some(tier)));
        }
        assert_eq!(Tier::named("registers-3"), None);
        assert_eq!("cooperative".parse::<ScanTier>().unwrap(), ScanTier::Cooperative);
        assert!("fast".parse::<ScanTier>().unwrap_err().to_string().contains("auto, registers, cooperative or timed"));
    }
}
