// Two queries per thread: one load of an item or of a weight serves them all.
const LANES: u32 = 2u;
alias Lanes = vec2f;
fn lane_of(values: Lanes, lane: u32) -> f32 { return values[lane]; }
