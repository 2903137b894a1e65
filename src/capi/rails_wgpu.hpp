// rails-wgpu for C++17: rails_wgpu.h with destructors, exceptions and vectors. Quick start: docs/C.md.
#ifndef RAILS_WGPU_HPP
#define RAILS_WGPU_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "rails_wgpu.h"

namespace rails_wgpu {

/// What a call that failed said.
class Error : public std::runtime_error {
public:
    Error(rw_status status, const char *words) : std::runtime_error(words), status(status) {}
    const rw_status status;
};

inline void check(rw_status status) {
    if (status != RW_STATUS_OK) throw Error(status, rw_last_error());
}

struct Free {
    void operator()(rw_devices *devices) const { rw_devices_free(devices); }
    void operator()(rw_model *model) const { rw_model_free(model); }
    void operator()(rw_searcher *searcher) const { rw_searcher_free(searcher); }
};

/// A device in words.
struct Device {
    std::string name, kind, backend, driver;
};

/// The devices of this machine, the CPU first.
inline std::vector<Device> devices() {
    rw_devices *handle = nullptr;
    check(rw_devices_list(&handle));
    const std::unique_ptr<rw_devices, Free> owner(handle);
    std::vector<Device> found;
    for (std::size_t i = 0; i < rw_devices_len(handle); i++) {
        rw_device_info info;
        check(rw_devices_get(handle, i, &info));
        found.push_back({info.name, info.kind, info.backend, info.driver});
    }
    return found;
}

/// A trained model, or a similarity alone.
class Model {
public:
    /// Loads a checkpoint; without `config`, the hyper-parameters inside or beside it are taken.
    explicit Model(const std::string &checkpoint, const std::optional<std::string> &config = {}) {
        rw_model *handle = nullptr;
        check(rw_model_open(checkpoint.c_str(), config ? config->c_str() : nullptr, &handle));
        handle_.reset(handle);
    }
    std::size_t dim() const { return rw_model_dim(get()); }
    std::size_t item_rows() const { return rw_model_item_rows(get()); }
    const rw_model *get() const { return handle_.get(); }

private:
    std::unique_ptr<rw_model, Free> handle_;
};

/// What one user has done so far.
struct History {
    std::int64_t user_id;
    std::vector<std::uint32_t> item_ids;
    std::vector<std::int64_t> timestamps;
    std::int64_t now;
};

/// The number that stands for a string id in every index of string ids.
inline std::uint64_t id_of_string(const std::string &string) {
    std::uint64_t id = 0;
    check(rw_id_of_string(string.c_str(), &id));
    return id;
}

/// One item found.
struct Hit {
    std::uint64_t id;
    float score;
};

/// How to search.
struct Options {
    std::string algorithm = "exact";
    /// Ids that must not be found: one list per query, or no list at all.
    std::vector<std::vector<std::uint64_t>> excluded;
    /// The only ids that may be found, if there is a list.
    std::optional<std::vector<std::uint64_t>> allowed;
    /// What attributes of an item must be for it to be found: an SQL expression such as "year >= ?1"; none: nothing.
    std::optional<std::string> condition;
    /// Texts that ?1, ?2, ... stand for; beside a column of numbers one is read as a number.
    std::vector<std::string> params;
};

/// How an index is built.
struct IndexOptions {
    /// "f32", "f16" or "int8".
    std::string dtype = "f32";
    /// "components", "raw" or "auto".
    std::string form = "auto";
    /// Number of inverted lists, if there are to be any; 0: as many as suit the number of items.
    std::optional<std::size_t> lists;
    /// Bytes of tables that may stay on the device; 0: no limit.
    std::uint64_t device_memory = 0;
    /// A new folder to store the index in, with the model; none: in memory only.
    std::optional<std::string> folder;
    /// Attributes of the items: a CSV or TSV file with a header and a column `id` or `item_id`; none: no attributes.
    std::optional<std::string> attributes;
};

/// Items on a device, and how to search them. Any number of threads may use one at once.
class Searcher {
public:
    /// Indexes items of the model's own table; without `item_ids`, all of them.
    explicit Searcher(const Model &model, const std::optional<std::vector<std::uint64_t>> &item_ids = {},
                      const std::string &device = "auto", const IndexOptions &options = {}) {
        rw_searcher *handle = nullptr;
        const rw_index_options wanted = view(options);
        check(rw_searcher_from_model(model.get(), item_ids ? pointer(*item_ids) : nullptr,
                                     item_ids ? item_ids->size() : 0, device.c_str(), &wanted, &handle));
        handle_.reset(handle);
    }
    /// Indexes embeddings (ids.size(), dim); without `model`, their inner product is the similarity.
    Searcher(const std::vector<std::uint64_t> &ids, const std::vector<float> &embeddings, std::size_t dim,
             const Model *model = nullptr, const std::string &device = "auto", const IndexOptions &options = {}) {
        rw_searcher *handle = nullptr;
        const rw_index_options wanted = view(options);
        expect(embeddings.size() == ids.size() * dim, "embeddings: expected ids.size() * dim values");
        check(rw_searcher_from_embeddings(ids.data(), embeddings.data(), ids.size(), dim,
                                          model ? model->get() : nullptr, device.c_str(), &wanted, &handle));
        handle_.reset(handle);
    }

    /// Opens an index folder with the similarity, and the encoder if there is one, that are in it.
    static Searcher open_index(const std::string &folder, const std::string &device = "auto", bool check = false,
                               std::uint64_t device_memory = 0) {
        rw_searcher *handle = nullptr;
        rails_wgpu::check(rw_searcher_open_index(folder.c_str(), device.c_str(), check, device_memory, &handle));
        return Searcher(handle);
    }

    std::size_t size() const { return rw_searcher_len(get()); }
    std::size_t dim() const { return rw_searcher_dim(get()); }
    /// Width of query embeddings; another one than `dim` only where components are given.
    std::size_t query_dim() const { return rw_searcher_query_dim(get()); }
    /// Whether ids of items are strings; ids here are numbers that stand for them.
    bool has_string_ids() const { return rw_searcher_has_string_ids(get()); }
    /// The string id of an item in the index.
    std::string string_id(std::uint64_t id) const {
        std::size_t needed = 0;
        check(rw_searcher_string_id(get(), id, nullptr, 0, &needed));
        std::string string(needed, '\0');
        check(rw_searcher_string_id(get(), id, string.data(), string.size(), nullptr));
        string.pop_back(); // the zero at its end
        return string;
    }
    bool contains(std::uint64_t id) const { return rw_searcher_contains(get(), id); }
    std::string device() const { return rw_searcher_device(get()); }
    const rw_searcher *get() const { return handle_.get(); }

    /// (B, query_dim): query embeddings of the histories.
    std::vector<float> encode(const std::vector<History> &histories) const {
        std::vector<rw_history> views;
        for (const History &h : histories) {
            expect(h.item_ids.size() == h.timestamps.size(), "history: expected one timestamp per item");
            views.push_back({h.user_id, h.item_ids.data(), h.timestamps.data(), h.item_ids.size(), h.now});
        }
        std::vector<float> queries(views.size() * query_dim());
        check(rw_searcher_encode(get(), views.data(), views.size(), query_dim(), queries.data()));
        return queries;
    }

    /// The `k` best items of each of the queries (B, query_dim), best first; fewer only where fewer are left. `user_ids` has one
    /// per query, or none unless the model has uid embeddings.
    std::vector<std::vector<Hit>> search(const std::vector<float> &queries, const std::vector<std::int64_t> &user_ids,
                                         std::size_t k, const Options &options = {}) const {
        const std::size_t n = rows(queries, "queries: expected a multiple of query_dim values");
        expect(user_ids.empty() || user_ids.size() == n, "user_ids: expected one per query, or none");
        return found(n, k, options, [&](const auto &... results) {
            return rw_searcher_search(get(), queries.data(), n, query_dim(), user_ids.empty() ? nullptr : user_ids.data(),
                                      results...);
        });
    }

    /// The same for an index of token embeddings: those of all queries (T, dim), one after the other, and how many each has.
    std::vector<std::vector<Hit>> search_tokens(const std::vector<float> &token_embeddings,
                                                const std::vector<std::size_t> &lengths, std::size_t k,
                                                const Options &options = {}) const {
        std::size_t left = rows(token_embeddings, "token_embeddings: expected a multiple of query_dim values");
        for (const std::size_t length : lengths) {
            expect(length <= left, "lengths: expected no more tokens than token_embeddings has");
            left -= length;
        }
        expect(left == 0, "lengths: expected as many tokens as token_embeddings has");
        return found(lengths.size(), k, options, [&](const auto &... results) {
            return rw_searcher_search_tokens(get(), token_embeddings.data(), lengths.data(), lengths.size(), query_dim(),
                                             results...);
        });
    }

    /// Scores of items of the caller's choice, one list of ids per query, in their order. `user_ids` as for `search`.
    std::vector<std::vector<float>> rescore(const std::vector<float> &queries,
                                            const std::vector<std::vector<std::uint64_t>> &candidates,
                                            const std::vector<std::int64_t> &user_ids = {}) const {
        const std::size_t n = rows(queries, "queries: expected a multiple of query_dim values");
        expect(user_ids.empty() || user_ids.size() == n, "user_ids: expected one per query, or none");
        expect(candidates.size() == n, "candidates: expected one list per query");
        std::vector<std::uint64_t> ids;
        std::vector<std::size_t> offsets{0};
        for (const auto &list : candidates) {
            ids.insert(ids.end(), list.begin(), list.end());
            offsets.push_back(ids.size());
        }
        std::vector<float> scores(ids.size());
        check(rw_searcher_rescore(get(), queries.data(), n, query_dim(), user_ids.empty() ? nullptr : user_ids.data(),
                                  pointer(ids), offsets.data(), scores.data()));
        std::vector<std::vector<float>> lists;
        for (std::size_t i = 0; i < n; i++)
            lists.emplace_back(scores.begin() + offsets[i], scores.begin() + offsets[i + 1]);
        return lists;
    }

    /// Adds items with embeddings (ids.size(), D), replacing those that are there.
    void add(const std::vector<std::uint64_t> &ids, const std::vector<float> &embeddings) {
        expect(embeddings.size() == ids.size() * dim(), "embeddings: expected ids.size() * dim values");
        check(rw_searcher_add(get(), ids.data(), embeddings.data(), ids.size(), dim()));
    }
    /// Removes items; returns how many were there.
    std::size_t remove(const std::vector<std::uint64_t> &ids) {
        std::size_t removed = 0;
        check(rw_searcher_remove(get(), ids.data(), ids.size(), &removed));
        return removed;
    }
    /// Goes to the latest version of the folder, which another process may have changed; returns whether it is another one.
    bool refresh() {
        bool changed = false;
        check(rw_searcher_refresh(get(), &changed));
        return changed;
    }
    /// Writes the items as they are now into a new folder.
    void save(const std::string &folder) const { check(rw_searcher_save(get(), folder.c_str())); }
    /// Rewrites the index without deleted items.
    void compact() { check(rw_searcher_compact(get())); }
    /// Learns from queries (B, query_dim) what the algorithms distilled and cascade need and tangent is better with.
    void distill(const std::vector<float> &queries, const std::vector<std::int64_t> &user_ids = {}) {
        const std::size_t n = rows(queries, "queries: expected a multiple of query_dim values");
        expect(user_ids.empty() || user_ids.size() == n, "user_ids: expected one per query, or none");
        check(rw_searcher_distill(get(), queries.data(), n, query_dim(), user_ids.empty() ? nullptr : user_ids.data()));
    }

private:
    explicit Searcher(rw_searcher *handle) : handle_(handle) {}

    /// The number of rows of a matrix that is query_dim wide.
    std::size_t rows(const std::vector<float> &matrix, const char *words) const {
        const std::size_t width = query_dim();
        expect(width > 0, "searcher: expected one that was not moved from");
        expect(matrix.size() % width == 0, words);
        return matrix.size() / width;
    }

    /// What `search`, called with k, the options and places for ids, scores and counts, finds for `n` queries.
    template <class Search>
    std::vector<std::vector<Hit>> found(std::size_t n, std::size_t k, const Options &options, const Search &search) const {
        expect(options.excluded.empty() || options.excluded.size() == n, "excluded: expected one list per query, or none");
        std::vector<std::uint64_t> excluded;
        std::vector<std::size_t> offsets{0};
        for (const auto &list : options.excluded) {
            excluded.insert(excluded.end(), list.begin(), list.end());
            offsets.push_back(excluded.size());
        }
        std::vector<const char *> params;
        for (const auto &param : options.params) params.push_back(param.c_str());
        const bool excludes = !options.excluded.empty();
        const rw_search_options wanted = {options.algorithm.c_str(),
                                          excludes ? pointer(excluded) : nullptr,
                                          excludes ? offsets.data() : nullptr,
                                          options.allowed ? pointer(*options.allowed) : nullptr,
                                          options.allowed ? options.allowed->size() : 0,
                                          options.condition ? options.condition->c_str() : nullptr,
                                          params.data(),
                                          params.size()};
        expect(k >= 1, "k: expected at least 1");
        // There is no room needed for more than there are, however many are asked for.
        k = std::max<std::size_t>(std::min(k, size()), 1);
        std::vector<std::uint64_t> ids(n * k);
        std::vector<float> scores(n * k);
        std::vector<std::size_t> counts(n);
        check(search(k, &wanted, ids.data(), scores.data(), counts.data()));
        std::vector<std::vector<Hit>> hits(n);
        for (std::size_t i = 0; i < n; i++)
            for (std::size_t j = 0; j < counts[i]; j++) hits[i].push_back({ids[i * k + j], scores[i * k + j]});
        return hits;
    }

    static rw_index_options view(const IndexOptions &options) {
        return {options.dtype.c_str(), options.form.c_str(), options.lists.has_value(), options.lists.value_or(0),
                options.device_memory, options.folder ? options.folder->c_str() : nullptr,
                options.attributes ? options.attributes->c_str() : nullptr};
    }
    static void expect(bool holds, const char *words) {
        if (!holds) throw Error(RW_STATUS_ARGUMENT, words);
    }
    /// Never null, so that an empty list is not taken for none.
    static const std::uint64_t *pointer(const std::vector<std::uint64_t> &ids) {
        static const std::uint64_t nothing = 0;
        return ids.empty() ? &nothing : ids.data();
    }

    std::unique_ptr<rw_searcher, Free> handle_;
};

} // namespace rails_wgpu

#endif
