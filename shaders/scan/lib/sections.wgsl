// sections: the logits of a pair are divided among SECTIONS threads, each with a section of OWN_Q query components by OWN_X item
// components; more logits than that do not fit into the registers of a thread. All threads of a subgroup have the same section, so that they
// share their weights and queries, which are then loaded once for all of them. The last sections overlap those before them
// where sections do not come out even; a logit belongs to the first one.
//
// The item of a thread, and its section, follow from the number of its subgroup: subgroups are taken to be full, and no larger than TILE.
// loops end after OWN4, SECTIONS and 4 turns
// needs constants TILE, SECTIONS, SECTIONS_X (of these, beside each other along the item components), OWN_Q, OWN_X, OWN, OWN4, P_Q, P_X, L,
// ITEM_GATES, TRANSFORMED; lib/items.wgsl; lib/per_query_1.wgsl; lib/pair.wgsl; lib/mol.wgsl
struct Thread {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

const THREADS: u32 = TILE * SECTIONS;

// Values that a thread passes to the other sections at a time.
const UNITS: u32 = 4u;

alias Values = array<PerQuery, UNITS>;

var<private> section: u32;
var<private> own_item: u32;
var<private> turn: u32;

// Two turns: who writes for the next one does not wait for who still reads of this one.
var<workgroup> passed: array<array<array<vec4f, TILE>, SECTIONS>, 2>;
var<workgroup> objections: atomic<u32>;

fn item_of_thread(thread: Thread) -> u32 {
    let first = thread.subgroup * (THREADS / thread.subgroups);
    section = first / TILE;
    own_item = first % TILE + thread.lane;
    return own_item;
}

// Whether this thread is the one that has the scores of its item to pass on; all sections know them.
fn has_scores() -> bool { return section == 0u; }

// Where the section should begin, and where it does.
fn wanted_q() -> u32 { return section / SECTIONS_X * OWN_Q; }
fn wanted_x() -> u32 { return section % SECTIONS_X * OWN_X; }
fn first_q() -> u32 { return min(wanted_q(), P_Q - OWN_Q); }
fn first_x() -> u32 {
    if SECTIONS_X == 1u { return 0u; }
    return min(wanted_x(), P_X - OWN_X);
}

fn first_query_vector() -> u32 {
    if TRANSFORMED { return first_q() * P_X + first_x(); }
    return first_q();
}

fn first_item_vector() -> u32 {
    if TRANSFORMED { return 0u; }
    return first_x();
}

fn first_norm() -> u32 { return first_x(); }
fn first_weight() -> u32 { return section * SECTION_QUADS; }

fn is_own(j: u32) -> bool {
    if j >= OWN { return false; }
    if P_Q % OWN_Q != 0u && first_q() + j / OWN_X < wanted_q() { return false; }
    return P_X % OWN_X == 0u || first_x() + j % OWN_X >= wanted_x();
}

// The logit that number j of the section is; of padding, any.
fn logit_of(j: u32) -> u32 { return min((first_q() + j / OWN_X) * P_X + first_x() + j % OWN_X, L - 1u); }

// The item-only gate part of four logits of the section.
fn item_gates(item_base: u32, i: u32) -> vec4f {
    if OWN_X == P_X && OWN_Q * P_X % 4u == 0u && P_Q % OWN_Q == 0u {
        return unpacked(items[quad_of(item_base, ITEM_GATES + first_q() * P_X / 4u + i)]);
    }
    var values: vec4f;
    for (var c = 0u; c < 4u; c++) {
        let l = logit_of(i * 4u + c);
        values[c] = unpacked(items[quad_of(item_base, ITEM_GATES + l / 4u)])[l % 4u];
    }
    return values;
}

// Those from j on, a multiple of UNITS. Selected, not indexed: an index would keep arrays out of registers, or loops from being loops.
fn values_of(z: ptr<function, Logits>, j: u32) -> Values {
    var values: Values;
    for (var i = 0u; i < OWN4; i++) {
        for (var u = 0u; u < UNITS; u++) { values[u] = select(values[u], (*z)[i * UNITS + u], i * UNITS == j); }
    }
    return values;
}

// By all threads of a workgroup: what the sections of the item passed.
fn exchanged(values: Values) -> array<Values, SECTIONS> {
    passed[turn][section][own_item] = vec4f(values[0], values[1], values[2], values[3]);
    workgroupBarrier();
    var all: array<Values, SECTIONS>;
    for (var s = 0u; s < SECTIONS; s++) {
        let of_section = passed[turn][s][own_item];
        all[s] = Values(of_section.x, of_section.y, of_section.z, of_section.w);
    }
    turn = 1u - turn;
    return all;
}

// By all threads of a workgroup, once: whether x holds for all of them. Barriers are for all or none.
fn of_all_threads(x: bool) -> bool {
    if own_item == 0u && section == 0u { atomicStore(&objections, 0u); }
    workgroupBarrier();
    if !x { atomicAdd(&objections, 1u); }
    workgroupBarrier();
    return atomicLoad(&objections) == 0u;
}
