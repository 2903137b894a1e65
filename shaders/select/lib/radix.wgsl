// radix: digits of hits, 8 bits each from the top of (key, ~position), and which one the k-th best hit has. Functions for
// workgroups of WIDTH threads.
// needs lib/query_state.wgsl
// loops end after log2(WIDTH) turns
struct Choice {
    digit: u32,    // of the k-th best hit
    wanted: u32,   // hits that are still to be found below the prefix
    complete: u32, // 1: every hit with the prefix is one of the best k
}

var<workgroup> histogram: array<atomic<u32>, WIDTH>;
var<workgroup> at_least: array<u32, WIDTH>;
var<workgroup> choice: Choice;

// Digit 0 is the most significant byte of the key, digit 7 the least significant byte of ~position.
fn digit_of(hit: vec2u, digit: u32) -> u32 {
    return (hit[digit / 4u] >> (24u - digit % 4u * 8u)) & 0xffu;
}

// The pivot with its next digit.
fn extended(pivot: vec2u, digit: u32, value: u32) -> vec2u {
    var longer = pivot;
    longer[digit / 4u] |= value << (24u - digit % 4u * 8u);
    return longer;
}

fn shares_prefix(hit: vec2u, pivot: vec2u, digits: u32) -> bool {
    let differs = hit ^ pivot;
    if digits < 4u { return (differs.x & ~(0xffffffffu >> (digits * 8u))) == 0u; }
    return differs.x == 0u && (differs.y & ~(0xffffffffu >> (digits % 4u * 8u))) == 0u;
}

// By all threads of a workgroup: the digit of the hit number `wanted`, counted from the greatest digit on, where `own` hits
// have the digit `thread`. There are that many hits.
fn chosen_digit(thread: u32, own: u32, wanted: u32) -> Choice {
    var sum = own;
    at_least[thread] = sum;
    for (var stride = 1u; stride < WIDTH; stride *= 2u) {
        workgroupBarrier();
        if thread + stride < WIDTH { sum += at_least[thread + stride]; }
        workgroupBarrier();
        at_least[thread] = sum;
    }
    if sum >= wanted && sum - own < wanted {
        choice = Choice(thread, wanted - (sum - own), select(0u, 1u, sum == wanted));
    }
    return workgroupUniformLoad(&choice);
}
