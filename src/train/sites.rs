//! Where a run draws random numbers beside dropout, whose sites are below 2^25: no two of them share theirs.

/// Negatives of a step.
pub const NEGATIVES: u32 = 1 << 31;

/// Places of masks, drawn once per epoch.
pub const MASKS: u32 = u32::MAX - 2;

/// Users of an evaluation on some of them, drawn once per epoch.
pub const EVALUATED_USERS: u32 = u32::MAX - 1;

/// Order of users, drawn once per epoch.
pub const ORDER: u32 = u32::MAX;
