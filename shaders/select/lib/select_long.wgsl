// select_long: what the kernels share that keep the best k hits of long hit lists, by many workgroups for each.
//
// The radix select of select.wgsl, cut where all workgroups of a list have to know what the others found:
//
//     select_count, COUNTED times   histogram of the next digit of the key; the digits before follow from earlier ones
//     select_gather                 the hits with the prefix that these leave, which are few, to a list of their own
//     select_finish                 one workgroup per query: the other digits of the pivot, and the new threshold
//     select_compact                the best k to the list that takes the place of this one
//
// Nothing waits for another workgroup: the order of dispatches is all there is. What counts is zero before and after.
const COUNTED: u32 = 3u;
const ROOM: u32 = 4096u;   // hits that the list of those with the prefix has room for

struct Progress {
    pivot_key: u32,
    pivot_place: u32,
    n: u32,                  // hits of the list before
    gathered: atomic<u32>,   // hits with the prefix, whether there was room or not
    kept: atomic<u32>,
}
