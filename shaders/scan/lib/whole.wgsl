// whole: a thread has all logits of its pairs, in their order.
// needs constants TILE, SECTIONS = 1, L, ITEM_GATES; lib/items.wgsl; lib/per_query_*.wgsl; lib/pair.wgsl
struct Thread {
    @builtin(local_invocation_index) index: u32,
}

const THREADS: u32 = TILE;
const UNITS: u32 = 1u;

alias Values = array<PerQuery, UNITS>;

fn item_of_thread(thread: Thread) -> u32 { return thread.index; }
fn has_scores() -> bool { return true; }

fn first_query_vector() -> u32 { return 0u; }
fn first_item_vector() -> u32 { return 0u; }
fn first_norm() -> u32 { return 0u; }
fn first_weight() -> u32 { return 0u; }

fn is_own(j: u32) -> bool { return j < L; }
fn logit_of(j: u32) -> u32 { return j; }
fn item_gates(item_base: u32, i: u32) -> vec4f { return unpacked(items[quad_of(item_base, ITEM_GATES + i)]); }

fn values_of(z: ptr<function, Logits>, j: u32) -> Values { return Values((*z)[j]); }
fn exchanged(values: Values) -> array<Values, SECTIONS> { return array<Values, SECTIONS>(values); }
fn of_all_threads(x: bool) -> bool { return x; }
