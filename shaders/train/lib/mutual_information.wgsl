// mutual_information: p log(p + 1e-6), of which the mutual information loss is made, and its slope.
// twin src/backend/cpu/loss/mutual_information.rs
const INFORMATION_EPS: f32 = 1e-6;

fn information(p: f32) -> f32 {
    return p * log(p + INFORMATION_EPS);
}

fn information_slope(p: f32) -> f32 {
    return log(p + INFORMATION_EPS) + p / (p + INFORMATION_EPS);
}
