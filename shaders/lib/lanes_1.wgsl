// One query per thread.
const LANES: u32 = 1u;
alias Lanes = f32;
fn lane_of(values: Lanes, lane: u32) -> f32 { return values; }
