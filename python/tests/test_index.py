"""Index folders, options of an index, and what a search tells about itself."""

from pathlib import Path

import numpy as np
import pytest

from rails_wgpu import History, Searcher, Stats

DEMO = Path(__file__).parents[2] / "assets" / "demo.safetensors"
SEEN = History(item_ids=[12, 31, 5], timestamps=[100, 160, 300], now=400, user_id=7)


def found(searcher, algorithm="exact", k=20):
    ids, scores = searcher.search(searcher.encode([SEEN]), k=k, user_ids=[7], algorithm=algorithm)
    return ids[0].tolist(), scores[0].tolist()


def test_a_folder_answers_as_memory_does_and_keeps_changes(tmp_path):
    folder = tmp_path / "index"
    expected = found(Searcher.from_checkpoint(DEMO, device="cpu", dtype="f16"))
    made = Searcher.from_checkpoint(DEMO, device="cpu", dtype="f16", n_lists=4, folder=folder)
    assert found(made) == expected
    with pytest.raises(ValueError, match="there is an index already"):
        Searcher.from_checkpoint(DEMO, device="cpu", folder=folder)

    searcher = Searcher.from_index(str(folder), device="cpu", check=True)
    assert len(searcher) == 220 and searcher.dim == 16
    assert found(searcher) == expected
    assert found(searcher, "naive-ivf:220@4") == expected
    with pytest.raises(ValueError, match="distilled"):
        found(searcher, "distilled:220")
    searcher.distill(np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32), np.arange(64))
    assert found(searcher, "distilled:220") == expected
    best = expected[0][0]
    assert searcher.remove([best]) == 1
    searcher.compact()
    del searcher, made

    again = Searcher.from_index(folder, device="cpu", device_memory=0)
    assert len(again) == 219 and best not in again
    assert found(again, "distilled:219", k=19) == (expected[0][1:], expected[1][1:])


def test_wrong_options_and_folders_are_explained(tmp_path):
    with pytest.raises(ValueError, match="auto, components or raw"):
        Searcher.from_checkpoint(DEMO, device="cpu", form="loose")
    with pytest.raises(ValueError, match="inverted lists"):
        Searcher.from_checkpoint(DEMO, device="cpu", form="raw", n_lists=0)
    with pytest.raises(ValueError, match="no index here"):
        Searcher.from_index(tmp_path / "nothing", device="cpu")
    dot = Searcher.from_embeddings([1, 2], [[1, 0], [0, 1]], device="cpu", dtype="i8")
    with pytest.raises(ValueError, match="Mixture-of-Logits"):
        dot.distill([[1, 0]])


def test_the_raw_form_takes_less_and_ranks_the_same():
    components = Searcher.from_checkpoint(DEMO, device="cpu", form="components")
    raw = Searcher.from_checkpoint(DEMO, device="cpu", form="raw")
    queries = components.encode([SEEN])
    ids, scores, stats = components.search_with_stats(queries, k=5, user_ids=[7])
    others, other_scores, less = raw.search_with_stats(queries, k=5, user_ids=[7])
    assert ids.tolist() == others.tolist()
    np.testing.assert_allclose(scores, other_scores, rtol=1e-5)
    assert stats.pairs == less.pairs == 220 and stats.bytes_read != less.bytes_read


def test_stats_count_and_time():
    searcher = Searcher.from_checkpoint(DEMO, device="cpu")
    queries = searcher.encode([SEEN, SEEN])
    ids, scores, stats = searcher.search_with_stats(queries, k=5, user_ids=[7, 7], algorithm="avg:40")
    assert isinstance(stats, Stats)
    assert (stats.pairs, stats.pruned, stats.candidates) == (80, 0, 80)
    assert stats.bytes_read > 0 and stats.kernels == []  # the CPU has no kernels
    assert set(stats.seconds) == {"query-side", "first-stage", "scoring", "selection", "certifying", "total"}
    assert 0 < stats.seconds["scoring"] <= stats.seconds["total"]
    plain, plain_scores = searcher.search(queries, k=5, user_ids=[7, 7], algorithm="avg:40")
    np.testing.assert_array_equal(ids, plain)
    np.testing.assert_array_equal(scores, plain_scores)
