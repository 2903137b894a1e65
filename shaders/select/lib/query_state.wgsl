// query_state: what the kernels of this folder know of the hit list of a query, and the width of their workgroups.
struct QueryState {
    threshold: u32,   // key of the k-th hit; 0 while there are fewer
    count: u32,       // hits in the list
    pruned: u32,      // items left out by the scan
}

const WIDTH: u32 = 256u;
