/* Load a model, index its items, and recommend to one user.
 *
 *     cc search.c -o search $(pkg-config --cflags --libs rails-wgpu)
 *     ./search model.safetensors        (assets/demo.safetensors will do)
 */
#include <inttypes.h>
#include <rails_wgpu.h>
#include <stdio.h>
#include <stdlib.h>

static void check(rw_status status) {
    if (status != RW_STATUS_OK) {
        fprintf(stderr, "error: %s\n", rw_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL [DEVICE]\n", argv[0]);
        return 2;
    }

    /* 1. A trained model, and its items on a device. */
    rw_model *model;
    rw_searcher *searcher;
    check(rw_model_open(argv[1], NULL, &model));
    check(rw_searcher_from_model(model, NULL, 0, argc > 2 ? argv[2] : "auto", NULL, &searcher));
    rw_model_free(model);
    printf("rails-wgpu %s: %zu items on `%s`\n", rw_version(), rw_searcher_len(searcher), rw_searcher_device(searcher));

    /* 2. A user's history, encoded. */
    const uint32_t items[] = {12, 31, 5};
    const int64_t times[] = {100, 160, 300};
    const rw_history history = {.user_id = 7, .item_ids = items, .timestamps = times, .length = 3, .now = 400};
    const size_t dim = rw_searcher_dim(searcher);
    float *query = malloc(dim * sizeof *query);
    check(rw_searcher_encode(searcher, &history, 1, dim, query));

    /* 3. The best items that the user has not seen. */
    enum { K = 5 };
    const uint64_t seen[] = {12, 31, 5};
    const size_t seen_offsets[] = {0, 3};
    const rw_search_options options = {.algorithm = "exact", .excluded = seen, .excluded_offsets = seen_offsets};
    uint64_t ids[K];
    float scores[K];
    size_t found;
    check(rw_searcher_search(searcher, query, 1, dim, &history.user_id, K, &options, ids, scores, &found));
    for (size_t i = 0; i < found; i++) printf("%6" PRIu64 "  %.4f\n", ids[i], scores[i]);

    free(query);
    rw_searcher_free(searcher);
    return 0;
}
