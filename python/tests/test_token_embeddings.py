"""Late interaction, beside its formula in NumPy."""

import numpy as np
import pytest

import rails_wgpu

DIM = 12


def texts(seed, lengths):
    random = np.random.default_rng(seed)
    return [random.standard_normal((n, DIM)).astype(np.float32) for n in lengths]


def max_sim(query, item):
    return (query.astype(np.float64) @ item.astype(np.float64).T).max(axis=1).sum()


@pytest.fixture(scope="module")
def items():
    return texts(1, [1 + i * 7 % 11 for i in range(90)])


def best(queries, items, ids, k):
    scores = np.array([[max_sim(query, item) for item in items] for query in queries])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.array(ids)[order], np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("dtype, tolerance", [("f32", 1e-5), ("f16", 5e-3), ("int8", 0.1)])
def test_the_best_by_the_formula_are_found(items, dtype, tolerance):
    ids = [500 - i for i in range(90)]
    searcher = rails_wgpu.Searcher.from_token_embeddings(ids, items, device="cpu", dtype=dtype)
    queries = texts(2, [3, 8, 33])
    expected, scores = best(queries, items, ids, 90)
    found, found_scores = searcher.search(queries, 90)
    assert {tuple(sorted(row)) for row in found} == {tuple(sorted(ids))}
    by_id = np.take_along_axis(found_scores, np.argsort(found, axis=1), axis=1)
    right = np.take_along_axis(scores, np.argsort(expected, axis=1), axis=1)
    assert np.abs(by_id - right).max() < tolerance * 33
    if dtype == "f32":
        assert (found == expected).all()
        assert (searcher.search(queries, 5, algorithm="avg:90")[0] == expected[:, :5]).all()
        some = searcher.rescore(queries, expected[:, 7:9])
        assert (some == found_scores[:, 7:9]).all()


def test_arrays_of_three_axes_folders_and_changes(items, tmp_path):
    cube = np.stack(texts(3, [4] * 20))
    folder = tmp_path / "index"
    rails_wgpu.Searcher.from_token_embeddings(range(20), cube, device="cpu", folder=folder)
    searcher = rails_wgpu.Searcher.from_index(folder, device="cpu")
    searcher.add_token_embeddings([7, 99], items[:2])
    searcher.remove([3])
    queries = np.stack(texts(4, [2, 2]))
    left = [items[0] if i == 7 else cube[i] for i in range(20) if i != 3] + [items[1]]
    ids = [i for i in range(20) if i != 3] + [99]
    assert (searcher.search(queries, 5)[0] == best(queries, left, ids, 5)[0]).all()


def test_what_does_not_fit_is_refused(items):
    searcher = rails_wgpu.Searcher.from_token_embeddings(range(90), items, device="cpu")
    with pytest.raises(ValueError, match="one embedding per query"):
        searcher.search(items[0], 1)
    with pytest.raises(ValueError, match="at least 1 token"):
        searcher.search([items[0], np.zeros((0, DIM), np.float32)], 1)
    with pytest.raises(ValueError, match="all of one width"):
        searcher.search([items[0], np.zeros((2, 5), np.float32)], 1)
    with pytest.raises(ValueError, match="one per embedding"):
        rails_wgpu.Searcher.from_token_embeddings(range(3), items, device="cpu")


def test_scores_of_a_search_by_words_are_added(items):
    searcher = rails_wgpu.Searcher.from_token_embeddings(range(90), items, device="cpu")
    queries = texts(2, [3, 8])
    ids, scores = searcher.search(queries, 90)
    by_words = [{5: 100.0, 17: 3.5, 1000: 9.0}, {}]
    found, fused = searcher.search(queries, 3, scores=by_words, weight=0.5)
    plain = dict(zip(ids[0], scores[0]))
    assert found[0, 0] == 5 and fused[0, 0] == np.float32(0.5) * plain[5] + np.float32(100)
    assert (found[1] == ids[1, :3]).all() and (fused[1] == scores[1, :3] / 2).all()
    with pytest.raises(ValueError, match="one per query"):
        searcher.search(queries, 3, scores=by_words[:1])
    with pytest.raises(ValueError, match="a positive number"):
        searcher.search(queries, 3, scores=by_words, weight=0.0)
