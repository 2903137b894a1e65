// Four queries per thread: one load of an item or of a weight serves them all.
const LANES: u32 = 4u;
alias Lanes = vec4f;
fn lane_of(values: Lanes, lane: u32) -> f32 { return values[lane]; }
