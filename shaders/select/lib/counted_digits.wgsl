// counted_digits: the digits of the k-th best hit that select_count has counted.
// loops end after COUNTED turns
// needs lib/radix.wgsl, lib/select_long.wgsl; of the kernel: bindings params, with k, and counts
struct Prefix {
    pivot: vec2u,
    wanted: u32,
}

// By all threads of a workgroup: the first `digits` digits of the pivot of a list of at least k hits.
fn counted_prefix(query: u32, digits: u32, thread: u32) -> Prefix {
    var prefix = Prefix(vec2u(0u), params.k);
    for (var digit = 0u; digit < digits; digit++) {
        let own = atomicLoad(&counts[(query * COUNTED + digit) * WIDTH + thread]);
        let chosen = chosen_digit(thread, own, prefix.wanted);
        prefix = Prefix(extended(prefix.pivot, digit, chosen.digit), chosen.wanted);
    }
    return prefix;
}
