// reduction: what all threads of a workgroup have found, as one number in each of them, in a fixed order of pairs.
// the loop over halves of the workgroup ends after log2(WORKGROUP) turns
const WORKGROUP: u32 = 64u;   // a power of two

var<workgroup> partial: array<f32, WORKGROUP>;

fn sum_of_threads(thread: u32, value: f32) -> f32 {
    partial[thread] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if thread < half {
            partial[thread] += partial[thread + half];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

fn greatest_of_threads(thread: u32, value: f32) -> f32 {
    partial[thread] = value;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if thread < half {
            partial[thread] = max(partial[thread], partial[thread + half]);
        }
        workgroupBarrier();
    }
    let greatest = partial[0];
    workgroupBarrier();
    return greatest;
}
