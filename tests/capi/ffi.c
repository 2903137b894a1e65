/* What C may rely on: results, paddings, refusals with words, threads. Run by scripts/check-capi.sh, under valgrind. */
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <rails_wgpu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_checks, n_failed;

static void expect(int holds, int line, const char *what) {
    n_checks++;
    if (!holds) {
        n_failed++;
        fprintf(stderr, "ffi.c:%d: %s; last error: %s\n", line, what, rw_last_error());
    }
}
#define EXPECT(holds) expect((holds), __LINE__, #holds)
#define WORKS(call) EXPECT((call) == RW_STATUS_OK)
#define REFUSES(call, status, words) EXPECT((call) == (status) && strstr(rw_last_error(), (words)) != NULL)
#define ARGUMENT(call, words) REFUSES(call, RW_STATUS_ARGUMENT, words)

/* Items (5, 7, 9) = (1,0), (0,1), (1,1); ids are not in order on purpose. */
static const uint64_t IDS[] = {9, 5, 7};
static const float ITEMS[] = {1, 1, 1, 0, 0, 1};
/* Inner products of (2,1): 2, 1, 3; of (-1,0): -1, 0, -1, where 5 and 9 tie. */
static const float QUERIES[] = {2, 1, -1, 0};

static void finds_what_is_computed_by_hand(const rw_searcher *s) {
    uint64_t ids[6];
    float scores[6];
    size_t counts[2];
    WORKS(rw_searcher_search(s, QUERIES, 2, 2, NULL, 3, NULL, ids, scores, counts));
    const uint64_t all[] = {9, 5, 7, 7, 5, 9};
    const float all_scores[] = {3, 2, 1, 0, -1, -1};
    EXPECT(memcmp(ids, all, sizeof all) == 0 && memcmp(scores, all_scores, sizeof all_scores) == 0);
    EXPECT(counts[0] == 3 && counts[1] == 3);

    /* Exclusion: 9 for the first query, nothing for the second; counts are optional. */
    const uint64_t excluded[] = {9};
    const size_t offsets[] = {0, 1, 1};
    rw_search_options options = {.excluded = excluded, .excluded_offsets = offsets};
    WORKS(rw_searcher_search(s, QUERIES, 2, 2, NULL, 3, &options, ids, scores, counts));
    const uint64_t without[] = {5, 7, UINT64_MAX, 7, 5, 9};
    EXPECT(memcmp(ids, without, sizeof without) == 0 && counts[0] == 2 && counts[1] == 3);
    EXPECT(scores[2] == -INFINITY);

    /* Allowed: only 7, then nothing at all. */
    const uint64_t allowed[] = {7, 1234};
    options = (rw_search_options){.algorithm = "mips", .allowed = allowed, .n_allowed = 2};
    WORKS(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, counts));
    EXPECT(ids[0] == 7 && ids[1] == 7 && scores[0] == 1 && scores[1] == 0);
    options.n_allowed = 0;
    WORKS(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL));
    EXPECT(ids[0] == UINT64_MAX && ids[1] == UINT64_MAX);

    WORKS(rw_searcher_search(s, NULL, 0, 2, NULL, 1, NULL, NULL, NULL, NULL));

    /* Candidates of the caller's own: 7 and 9 for the first query, 9 for the second. */
    const uint64_t candidates[] = {7, 9, 9};
    const size_t lists[] = {0, 2, 3};
    WORKS(rw_searcher_rescore(s, QUERIES, 2, 2, NULL, candidates, lists, scores));
    EXPECT(scores[0] == 1 && scores[1] == 3 && scores[2] == -1);

    /* More than there are: all of them, and padding. */
    uint64_t five[5];
    float five_scores[5];
    WORKS(rw_searcher_search(s, QUERIES, 1, 2, NULL, 5, NULL, five, five_scores, counts));
    const uint64_t padded[] = {9, 5, 7, UINT64_MAX, UINT64_MAX};
    EXPECT(memcmp(five, padded, sizeof padded) == 0 && counts[0] == 3 && five_scores[4] == -INFINITY);
}

static void items_come_and_go(const rw_searcher *s) {
    const uint64_t added[] = {100, 5};
    const float rows[] = {10, 10, 0, 0};
    WORKS(rw_searcher_add(s, added, rows, 2, 2));
    EXPECT(rw_searcher_len(s) == 4 && rw_searcher_contains(s, 100));
    uint64_t ids[4];
    float scores[4];
    WORKS(rw_searcher_search(s, QUERIES, 1, 2, NULL, 4, NULL, ids, scores, NULL));
    const uint64_t expected[] = {100, 9, 7, 5};
    EXPECT(memcmp(ids, expected, sizeof expected) == 0 && scores[0] == 30 && scores[3] == 0);
    size_t removed = 0;
    const uint64_t gone[] = {100, 777};
    WORKS(rw_searcher_remove(s, gone, 2, &removed));
    EXPECT(removed == 1 && rw_searcher_len(s) == 3 && !rw_searcher_contains(s, 100));
    WORKS(rw_searcher_remove(s, gone, 2, NULL));
    WORKS(rw_searcher_add(s, IDS, ITEMS, 3, 2));
    WORKS(rw_searcher_compact(s));
    WORKS(rw_searcher_add(s, NULL, NULL, 0, 2));
}

static void refuses_with_words(const rw_searcher *s, const char *model_path) {
    uint64_t ids[8] = {42};
    float scores[8];
    rw_searcher *none = (rw_searcher *)&ids;
    rw_model *model = NULL;
    rw_search_options options = {0};

    ARGUMENT(rw_searcher_from_embeddings(NULL, ITEMS, 3, 2, NULL, "cpu", NULL, &none), "null pointer");
    ARGUMENT(rw_searcher_from_embeddings(IDS, NULL, 3, 2, NULL, "cpu", NULL, &none), "null pointer");
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", NULL, NULL), "out");
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, 0, NULL, "cpu", NULL, &none), "D >= 1");
    EXPECT(none == NULL);
    ARGUMENT(rw_searcher_from_embeddings(NULL, NULL, 0, 2, NULL, "cpu", NULL, &none), "at least one item");
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, SIZE_MAX / 2, 8, NULL, "cpu", NULL, &none), "address space");
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, SIZE_MAX / 16, NULL, "cpu", NULL, &none), "address space");
    ARGUMENT(rw_searcher_from_embeddings(IDS, (const float *)((const char *)ITEMS + 1), 2, 2, NULL, "cpu", NULL, &none),
             "multiple of 4 bytes");
    rw_index_options built = {.dtype = "f64"};
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", &built, &none), "f32, f16 or int8");
    built = (rw_index_options){.form = "loose"};
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", &built, &none), "auto, components or raw");
    built = (rw_index_options){.with_lists = true};
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", &built, &none), "inverted lists");
    ARGUMENT(rw_searcher_open_index(NULL, "cpu", false, 0, &none), "folder");
    REFUSES(rw_searcher_open_index("no/such", "cpu", false, 0, &none), RW_STATUS_FILE, "no index here");
    const size_t all[] = {0, 3};
    const uint64_t missing[] = {9, 5, 1234};
    ARGUMENT(rw_searcher_rescore(s, QUERIES, 1, 2, NULL, missing, all, scores), "1234");
    ARGUMENT(rw_searcher_rescore(s, QUERIES, 1, 2, NULL, missing, NULL, scores), "offsets");
    ARGUMENT(rw_searcher_rescore(s, QUERIES, 1, 2, NULL, NULL, all, scores), "candidates");
    ARGUMENT(rw_searcher_rescore(s, QUERIES, 1, 2, NULL, missing, all, NULL), "scores");
    ARGUMENT(rw_searcher_save(s, NULL), "folder");
    ARGUMENT(rw_searcher_save(NULL, "x"), "searcher");
    ARGUMENT(rw_searcher_refresh(NULL, NULL), "searcher");
    ARGUMENT(rw_searcher_distill(NULL, QUERIES, 2, 2, NULL), "searcher");
    ARGUMENT(rw_searcher_distill(s, QUERIES, 2, 2, NULL), "Mixture-of-Logits");
    ARGUMENT(rw_searcher_compact(NULL), "searcher");
    ARGUMENT(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cp\xff", NULL, &none), "UTF-8");
    REFUSES(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "abacus", NULL, &none), RW_STATUS_DEVICE, "abacus");
    const uint64_t twice[] = {9, 5, 9};
    ARGUMENT(rw_searcher_from_embeddings(twice, ITEMS, 3, 2, NULL, "cpu", NULL, &none), "id 9 twice");
    const float bad[] = {1, NAN};
    ARGUMENT(rw_searcher_add(s, IDS, bad, 1, 2), "finite");
    ARGUMENT(rw_searcher_add(s, IDS, ITEMS, 1, 3), "shape (N, 2)");
    ARGUMENT(rw_searcher_add(NULL, IDS, ITEMS, 1, 2), "searcher");

    ARGUMENT(rw_searcher_search(NULL, QUERIES, 2, 2, NULL, 1, NULL, ids, scores, NULL), "searcher");
    ARGUMENT(rw_searcher_search(s, NULL, 2, 2, NULL, 1, NULL, ids, scores, NULL), "queries");
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, NULL, NULL, scores, NULL), "ids");
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, NULL, ids, NULL, NULL), "scores");
    ARGUMENT(rw_searcher_search(s, QUERIES, 1, 4, NULL, 1, NULL, ids, scores, NULL), "expected 2");
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 0, NULL, ids, scores, NULL), "at least 1");
    ARGUMENT(rw_searcher_search(s, bad, 1, 2, NULL, 1, NULL, ids, scores, NULL), "finite");
    options.algorithm = "magic";
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL), "`magic`");
    options.algorithm = "tangent:2";
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL), "Mixture-of-Logits");
    options = (rw_search_options){.n_allowed = 1};
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL), "allowed");
    options = (rw_search_options){.excluded = IDS};
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL), "excluded_offsets");
    const size_t descending[] = {0, 2, 1};
    options.excluded_offsets = descending;
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL), "descend");
    EXPECT(ids[0] == 0 || ids[0] == 42);
    ARGUMENT(rw_searcher_encode(s, NULL, 0, 2, NULL), "a whole model");
    const size_t lengths[] = {1, 1};
    ARGUMENT(rw_searcher_search_tokens(s, QUERIES, lengths, 2, 2, 1, NULL, ids, scores, NULL), "one embedding of 2");
    char text[8];
    EXPECT(!rw_searcher_has_string_ids(s));
    ARGUMENT(rw_searcher_string_id(s, 9, text, sizeof text, NULL), "whose ids are strings");
    options = (rw_search_options){.condition = "year > 3"};
    ARGUMENT(rw_searcher_search(s, QUERIES, 2, 2, NULL, 1, &options, ids, scores, NULL), "for one without");

    ARGUMENT(rw_model_open(NULL, NULL, &model), "checkpoint");
    ARGUMENT(rw_model_open(model_path, NULL, NULL), "out");
    REFUSES(rw_model_open("no/such.pt", NULL, &model), RW_STATUS_FILE, "no/such.pt");
    REFUSES(rw_model_open(model_path, "no/such.gin", &model), RW_STATUS_FILE, "no/such.gin");
    REFUSES(rw_model_open(__FILE__, NULL, &model), RW_STATUS_FILE, "safetensors");
    EXPECT(model == NULL);
    ARGUMENT(rw_searcher_from_model(NULL, NULL, 0, "cpu", NULL, &none), "model");

    rw_devices_free(NULL);
    rw_model_free(NULL);
    rw_searcher_free(NULL);
    EXPECT(rw_devices_len(NULL) == 0 && rw_model_dim(NULL) == 0 && rw_model_item_rows(NULL) == 0);
    EXPECT(rw_searcher_len(NULL) == 0 && rw_searcher_dim(NULL) == 0 && !rw_searcher_contains(NULL, 1));
    EXPECT(strcmp(rw_searcher_device(NULL), "") == 0);
}

static void models_encode_and_mix(const char *model_path) {
    rw_model *model;
    rw_searcher *s;
    WORKS(rw_model_open(model_path, NULL, &model));
    EXPECT(rw_model_dim(model) == 16 && rw_model_item_rows(model) == 221);
    const uint64_t beyond[] = {221}, beyond_32_bits[] = {1ull << 32 | 1};
    ARGUMENT(rw_searcher_from_model(model, beyond, 1, "cpu", NULL, &s), "1 to 220");
    ARGUMENT(rw_searcher_from_model(model, beyond_32_bits, 1, "cpu", NULL, &s), "1 to 220");
    WORKS(rw_searcher_from_model(model, NULL, 0, "cpu", NULL, &s));
    rw_model_free(model);
    EXPECT(rw_searcher_len(s) == 220 && rw_searcher_dim(s) == 16 && strcmp(rw_searcher_device(s), "cpu") == 0);

    const uint32_t items[] = {12, 31, 5}, unknown[] = {12, 500, 5};
    const int64_t times[] = {100, 160, 300};
    rw_history h = {.user_id = 7, .item_ids = items, .timestamps = times, .length = 3, .now = 400};
    float query[16], norm = 0;
    WORKS(rw_searcher_encode(s, &h, 1, 16, query));
    for (int i = 0; i < 16; i++) norm += query[i] * query[i];
    EXPECT(fabsf(norm - 16) < 1e-3); /* layer norm: 16 values of variance 1 */

    uint64_t ids[220];
    float scores[220];
    ARGUMENT(rw_searcher_search(s, query, 1, 16, NULL, 5, NULL, ids, scores, NULL), "user ids");
    WORKS(rw_searcher_search(s, query, 1, 16, &h.user_id, 220, NULL, ids, scores, NULL));
    for (int i = 1; i < 220; i++) EXPECT(scores[i - 1] >= scores[i] && ids[i - 1] != ids[i]);
    uint64_t few[5];
    const rw_search_options tangent = {.algorithm = "tangent:100"};
    WORKS(rw_searcher_search(s, query, 1, 16, &h.user_id, 5, &tangent, few, scores, NULL));
    EXPECT(memcmp(ids, few, sizeof few) == 0);

    ARGUMENT(rw_searcher_encode(s, &h, 1, 15, query), "expected 16");
    ARGUMENT(rw_searcher_encode(s, &h, 1, 16, NULL), "queries");
    ARGUMENT(rw_searcher_encode(s, NULL, 1, 16, query), "histories");
    h.item_ids = unknown;
    ARGUMENT(rw_searcher_encode(s, &h, 1, 16, query), "item id 500 of user 7");
    h.item_ids = NULL;
    ARGUMENT(rw_searcher_encode(s, &h, 1, 16, query), "history: item ids");
    h.length = 0;
    ARGUMENT(rw_searcher_encode(s, &h, 1, 16, query), "at least one event");
    rw_searcher_free(s);
}

/* An index in a folder, made of all 220 items of the model: it answers as the model does, and keeps what changes. */
static void folders_are_opened(const char *model_path, const char *folder) {
    rw_model *model;
    rw_searcher *built, *stored;
    WORKS(rw_model_open(model_path, NULL, &model));
    const rw_index_options options = {.dtype = "f16", .form = "components", .with_lists = true, .n_lists = 4};
    WORKS(rw_searcher_from_model(model, NULL, 0, "cpu", &options, &built));
    WORKS(rw_searcher_open_index(folder, "cpu", true, 0, &stored));
    rw_model_free(model);
    EXPECT(rw_searcher_len(stored) == 220 && rw_searcher_dim(stored) == 16);

    const uint32_t items[] = {12, 31, 5};
    const int64_t times[] = {100, 160, 300};
    const rw_history h = {.user_id = 7, .item_ids = items, .timestamps = times, .length = 3, .now = 400};
    float query[16], same[16];
    WORKS(rw_searcher_encode(stored, &h, 1, 16, query));
    WORKS(rw_searcher_encode(built, &h, 1, 16, same));
    EXPECT(memcmp(query, same, sizeof query) == 0);
    uint64_t ids[5], others[5];
    float scores[5], other_scores[5];
    ARGUMENT(rw_searcher_search(stored, query, 1, 16, NULL, 5, NULL, ids, scores, NULL), "user ids");
    rw_search_options search = {.algorithm = "naive-ivf:220@4"};
    WORKS(rw_searcher_search(stored, query, 1, 16, &h.user_id, 5, &search, ids, scores, NULL));
    WORKS(rw_searcher_search(built, query, 1, 16, &h.user_id, 5, &search, others, other_scores, NULL));
    EXPECT(memcmp(ids, others, sizeof ids) == 0 && memcmp(scores, other_scores, sizeof scores) == 0);
    search.algorithm = "distilled:220";
    ARGUMENT(rw_searcher_search(stored, query, 1, 16, &h.user_id, 5, &search, others, other_scores, NULL), "distilled");
    WORKS(rw_searcher_distill(stored, query, 1, 16, &h.user_id));
    WORKS(rw_searcher_search(stored, query, 1, 16, &h.user_id, 5, &search, others, other_scores, NULL));
    EXPECT(memcmp(ids, others, sizeof ids) == 0);
    size_t removed;
    WORKS(rw_searcher_remove(stored, ids, 1, &removed));
    rw_searcher_free(stored);
    WORKS(rw_searcher_open_index(folder, NULL, false, 1, &stored));
    EXPECT(removed == 1 && rw_searcher_len(stored) == 219 && !rw_searcher_contains(stored, ids[0]));
    WORKS(rw_searcher_search(stored, query, 1, 16, &h.user_id, 4, &search, others, other_scores, NULL));
    EXPECT(memcmp(ids + 1, others, 4 * sizeof *ids) == 0);
    WORKS(rw_searcher_compact(stored));
    EXPECT(rw_searcher_len(stored) == 219);
    rw_searcher_free(stored);
    rw_searcher_free(built);
}

/* Items of one's own become folders, by options and by saving, and readers follow what a writer does. */
static void folders_are_made(const char *folder) {
    char made[1000], saved[1000], table[1000];
    snprintf(made, sizeof made, "%s-made", folder);
    snprintf(saved, sizeof saved, "%s-saved", folder);
    snprintf(table, sizeof table, "%s.csv", folder);
    FILE *file = fopen(table, "w");
    EXPECT(file && fputs("id,year,genre\n9,1990,Comedy\n5,1991,Drama\n7,1992,Drama\n", file) >= 0);
    if (file) fclose(file);
    const rw_index_options options = {.folder = made, .attributes = table};
    rw_searcher *writer, *reader, *copy;
    WORKS(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", &options, &writer));
    REFUSES(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", &options, &copy), RW_STATUS_FILE, "already");
    WORKS(rw_searcher_open_index(made, "cpu", false, 0, &reader));
    uint64_t ids[3];
    float scores[3];
    const char *params[] = {"1990", "Drama"};
    rw_search_options wanted = {.condition = "year > ?1 AND genre = ?2", .params = params, .n_params = 2};
    WORKS(rw_searcher_search(reader, QUERIES, 1, 2, NULL, 3, &wanted, ids, scores, NULL));
    EXPECT(ids[0] == 5 && ids[1] == 7 && ids[2] == UINT64_MAX);
    wanted.condition = NULL;
    ARGUMENT(rw_searcher_search(reader, QUERIES, 1, 2, NULL, 3, &wanted, ids, scores, NULL), "none without `condition`");
    wanted = (rw_search_options){.condition = "yeer > 3"};
    ARGUMENT(rw_searcher_search(reader, QUERIES, 1, 2, NULL, 3, &wanted, ids, scores, NULL), "no such column: yeer");
    bool changed = true;
    WORKS(rw_searcher_refresh(reader, &changed));
    EXPECT(!changed);
    WORKS(rw_searcher_remove(writer, IDS, 1, NULL));
    WORKS(rw_searcher_refresh(reader, &changed));
    EXPECT(changed && rw_searcher_len(reader) == 2);
    WORKS(rw_searcher_refresh(reader, NULL));
    WORKS(rw_searcher_save(reader, saved));
    REFUSES(rw_searcher_save(reader, saved), RW_STATUS_FILE, "already");
    WORKS(rw_searcher_open_index(saved, "cpu", true, 0, &copy));
    EXPECT(rw_searcher_len(copy) == 2 && !rw_searcher_contains(copy, IDS[0]));
    rw_searcher_free(writer);
    rw_searcher_free(reader);
    rw_searcher_free(copy);
}

/* An index of token embeddings whose items are strings with years: "red" (1,0) (0,1), 1990; "gr\xc3\xbcn" (2.5,0), none;
   "blue" (0,3) (-1,0), 2001. */
static void token_embeddings_and_strings(const char *folder) {
    rw_searcher *s;
    WORKS(rw_searcher_open_index(folder, "cpu", true, 0, &s));
    EXPECT(rw_searcher_len(s) == 3 && rw_searcher_dim(s) == 2 && rw_searcher_query_dim(s) == 2);
    EXPECT(rw_searcher_has_string_ids(s) && !rw_searcher_has_string_ids(NULL) && rw_searcher_query_dim(NULL) == 0);
    uint64_t red, green, blue, ids[6] = {42};
    WORKS(rw_id_of_string("red", &red));
    WORKS(rw_id_of_string("gr\xc3\xbcn", &green));
    WORKS(rw_id_of_string("blue", &blue));
    EXPECT(rw_searcher_contains(s, red) && rw_searcher_contains(s, green) && rw_searcher_contains(s, blue));

    /* Two queries: (1,0) (0,1), whose MaxSim is 2, 2.5, 3; and (-1,0): 0, -2.5, 1. */
    const float tokens[] = {1, 0, 0, 1, -1, 0};
    const size_t lengths[] = {2, 1};
    float scores[6];
    size_t counts[2];
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 3, NULL, ids, scores, counts));
    const uint64_t all[] = {blue, green, red, blue, red, green};
    const float all_scores[] = {3, 2.5f, 2, 1, 0, -2.5f};
    EXPECT(memcmp(ids, all, sizeof all) == 0 && memcmp(scores, all_scores, sizeof all_scores) == 0);
    EXPECT(counts[0] == 3 && counts[1] == 3);
    WORKS(rw_searcher_search_tokens(s, NULL, NULL, 0, 2, 1, NULL, NULL, NULL, NULL));

    /* Without "blue" for the first query; then by year, a text that counts as a number, and by string id. */
    const size_t offsets[] = {0, 1, 1};
    rw_search_options options = {.excluded = &blue, .excluded_offsets = offsets};
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 1, &options, ids, scores, counts));
    EXPECT(ids[0] == green && ids[1] == blue && scores[0] == 2.5f && scores[1] == 1);
    const char *params[] = {"1990", "blue' OR '1' = '1"};
    options = (rw_search_options){.condition = "year >= ?1", .params = params, .n_params = 1};
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 3, &options, ids, scores, counts));
    EXPECT(counts[0] == 2 && ids[0] == blue && ids[1] == red && ids[2] == UINT64_MAX && counts[1] == 2);
    params[0] = "1991";
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 3, &options, ids, scores, counts));
    EXPECT(counts[0] == 1 && ids[0] == blue);
    /* Nothing gives this text a type, unless the condition does. */
    params[0] = "2";
    options.condition = "year / 1000 = ?1";
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 1, 2, 3, &options, ids, scores, counts));
    EXPECT(counts[0] == 0 && ids[0] == UINT64_MAX);
    options.condition = "year / 1000 = CAST(?1 AS INTEGER)";
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 1, 2, 3, &options, ids, scores, counts));
    EXPECT(counts[0] == 1 && ids[0] == blue);
    options = (rw_search_options){.condition = "year IS NULL OR id = ?2 OR id = ?1", .params = params, .n_params = 2};
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 1, 2, 3, &options, ids, scores, counts));
    EXPECT(counts[0] == 1 && ids[0] == green);
    params[0] = "red";
    WORKS(rw_searcher_search_tokens(s, tokens, lengths, 1, 2, 3, &options, ids, scores, counts));
    EXPECT(counts[0] == 2 && ids[0] == green && ids[1] == red);

    /* Names of what was found, in buffers that are too large, large enough, too small, none. */
    char text[10] = "untouched";
    size_t needed = 0;
    WORKS(rw_searcher_string_id(s, green, NULL, 0, &needed));
    EXPECT(needed == 6 && strcmp(text, "untouched") == 0);
    WORKS(rw_searcher_string_id(s, green, text, sizeof text, &needed));
    EXPECT(needed == 6 && strcmp(text, "gr\xc3\xbcn") == 0 && strcmp(text + 6, "hed") == 0);
    char exact[4];
    WORKS(rw_searcher_string_id(s, red, exact, 4, NULL));
    EXPECT(strcmp(exact, "red") == 0);
    ARGUMENT(rw_searcher_string_id(s, blue, exact, 4, &needed), "size: expected at least 5 bytes");
    EXPECT(needed == 5 && strcmp(exact, "red") == 0);
    ARGUMENT(rw_searcher_string_id(s, blue, exact, 1, NULL), "at least 5 bytes");
    ARGUMENT(rw_searcher_string_id(s, blue, NULL, 10, NULL), "buffer");
    ARGUMENT(rw_searcher_string_id(s, blue, text, SIZE_MAX, NULL), "address space");
    ARGUMENT(rw_searcher_string_id(s, 5, text, sizeof text, &needed), "id: expected that of an item");
    ARGUMENT(rw_searcher_string_id(NULL, red, text, sizeof text, &needed), "searcher");
    ARGUMENT(rw_id_of_string(NULL, &red), "string");
    ARGUMENT(rw_id_of_string("r\xff", &red), "UTF-8");
    ARGUMENT(rw_id_of_string("red", NULL), "id");

    ids[0] = 42;
    const size_t none[] = {3, 0}, few[] = {1, 1}, wraps[] = {SIZE_MAX, 4}, huge[] = {SIZE_MAX / 16, 1};
    ARGUMENT(rw_searcher_search_tokens(NULL, tokens, lengths, 2, 2, 1, NULL, ids, scores, NULL), "searcher");
    ARGUMENT(rw_searcher_search_tokens(s, NULL, lengths, 2, 2, 1, NULL, ids, scores, NULL), "token embeddings");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, NULL, 2, 2, 1, NULL, ids, scores, NULL), "token lengths");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, none, 2, 2, 1, NULL, ids, scores, NULL), "0 at 1");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, wraps, 2, 2, 1, NULL, ids, scores, NULL), "address space");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, huge, 2, 2, 1, NULL, ids, scores, NULL), "address space");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, lengths, SIZE_MAX, 2, 1, NULL, ids, scores, NULL), "address space");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 3, 1, NULL, ids, scores, NULL), "dim: expected 2");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 0, 1, NULL, ids, scores, NULL), "dim: expected 2");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 0, NULL, ids, scores, NULL), "k: expected at least 1");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, SIZE_MAX, NULL, ids, scores, NULL), "address space");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 1, NULL, NULL, scores, NULL), "ids");
    ARGUMENT(rw_searcher_search_tokens(s, tokens, lengths, 2, 2, 1, NULL, ids, NULL, NULL), "scores");
    const float bad[] = {1, NAN};
    ARGUMENT(rw_searcher_search_tokens(s, bad, few, 1, 2, 1, NULL, ids, scores, NULL), "finite");
    ARGUMENT(rw_searcher_search(s, tokens, 1, 2, NULL, 1, NULL, ids, scores, NULL), "several vectors each");
    params[0] = "1990\xff";
    options = (rw_search_options){.condition = "year = ?1", .params = params, .n_params = 1};
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 2, 1, &options, ids, scores, NULL), "params: expected UTF-8");
    options.params = NULL;
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 2, 1, &options, ids, scores, NULL), "params");
    options.n_params = 0;
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 2, 1, &options, ids, scores, NULL), "condition");
    options.n_params = 1;
    options.params = params;
    params[0] = NULL;
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 2, 1, &options, ids, scores, NULL), "params: expected texts");
    options = (rw_search_options){.condition = "price < 3"};
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 2, 1, &options, ids, scores, NULL), "price");
    options.condition = "1); DROP TABLE items; --";
    ARGUMENT(rw_searcher_search_tokens(s, tokens, few, 2, 2, 1, &options, ids, scores, NULL), "parenthesis");
    EXPECT(ids[0] == 42);

    /* An item that is removed between a search and the question for its name. */
    WORKS(rw_searcher_remove(s, &blue, 1, NULL));
    needed = 7;
    ARGUMENT(rw_searcher_string_id(s, blue, text, sizeof text, &needed), "no longer");
    EXPECT(needed == 7 && !rw_searcher_contains(s, blue));
    WORKS(rw_searcher_string_id(s, red, text, sizeof text, NULL));

    /* Files that become shorter while they are mapped are not read. */
    DIR *files = opendir(folder);
    for (struct dirent *entry; files && (entry = readdir(files));) {
        char path[2000];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "w");
        if (file) fclose(file);
    }
    if (files) closedir(files);
    REFUSES(rw_searcher_string_id(s, red, text, sizeof text, NULL), RW_STATUS_FILE, "changed while it was in use");
    rw_searcher_free(s);
}

static void *search_often(void *searcher) {
    size_t wrong = *rw_last_error() != '\0'; /* errors of other threads are not seen here */
    for (int i = 0; i < 20; i++) {
        uint64_t id;
        float score;
        wrong += rw_searcher_search(searcher, QUERIES, 1, 2, NULL, 1, NULL, &id, &score, NULL) != RW_STATUS_OK;
        wrong += id != 9 || score != 3;
    }
    return (void *)wrong;
}

static void threads_share_a_searcher(rw_searcher *s) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, search_often, s);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        EXPECT(wrong == NULL);
    }
}

static void devices_are_listed(void) {
    rw_devices *devices;
    rw_device_info info;
    WORKS(rw_devices_list(&devices));
    EXPECT(rw_devices_len(devices) >= 1);
    WORKS(rw_devices_get(devices, 0, &info));
    EXPECT(strcmp(info.name, "cpu") == 0 && strcmp(info.kind, "native CPU") == 0 && strcmp(info.backend, "native") == 0);
    ARGUMENT(rw_devices_get(devices, rw_devices_len(devices), &info), "index");
    ARGUMENT(rw_devices_get(devices, 0, NULL), "out");
    ARGUMENT(rw_devices_get(NULL, 0, &info), "devices");
    rw_devices_free(devices);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    EXPECT(strcmp(rw_version(), argv[2]) == 0);
    EXPECT(strcmp(rw_last_error(), "") == 0);
    devices_are_listed();
    for (int round = 0; round < 2; round++) {
        rw_searcher *s;
        WORKS(rw_searcher_from_embeddings(IDS, ITEMS, 3, 2, NULL, "cpu", NULL, &s));
        finds_what_is_computed_by_hand(s);
        items_come_and_go(s);
        finds_what_is_computed_by_hand(s);
        refuses_with_words(s, argv[1]);
        threads_share_a_searcher(s);
        rw_searcher_free(s);
    }
    models_encode_and_mix(argv[1]);
    folders_are_opened(argv[1], argv[3]);
    folders_are_made(argv[3]);
    token_embeddings_and_strings(argv[4]);
    printf("%d passed, %d failed\n", n_checks - n_failed, n_failed);
    return n_failed != 0;
}
