"""Index folders, options of an index, and what a search tells about itself."""

import pickle
import signal
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


def test_learning_tells_how_far_it_is_and_can_be_ended():
    searcher = Searcher.from_checkpoint(DEMO, device="cpu")
    queries, users = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32), np.arange(64)
    shares = []

    def pressed(share):
        shares.append(share)
        if share > 0.3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        searcher.distill(queries, users, progress=pressed)
    assert 0.3 < shares[-1] < 1

    def fails(share):
        raise RuntimeError(f"enough at {share}")

    with pytest.raises(RuntimeError, match="enough at 0"):
        searcher.distill(queries, users, progress=fails)
    with pytest.raises(ValueError, match="distilled"):
        found(searcher, "distilled:220")
    shares.clear()
    searcher.distill(queries, users, progress=shares.append)
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] == 1
    assert found(searcher, "distilled:220") == found(searcher)


def test_embeddings_become_a_folder_and_readers_follow_it(tmp_path):
    items = np.eye(4, dtype=np.float32)
    writer = Searcher.from_embeddings([1, 2, 3, 4], items, device="cpu", folder=tmp_path / "made")
    reader = Searcher.from_index(tmp_path / "made", device="cpu")
    assert reader.refresh() is False
    writer.add([9], [[0, 2, 0, 0]])
    assert 9 not in reader and reader.refresh() is True and 9 in reader
    writer.save(tmp_path / "saved")
    memory = Searcher.from_embeddings([1, 2], items[:2], device="cpu")
    assert memory.refresh() is False
    memory.save(str(tmp_path / "of memory"))
    with pytest.raises(ValueError, match="there is an index already"):
        memory.save(tmp_path / "made")
    ids, scores = Searcher.from_index(tmp_path / "saved", device="cpu").search([0, 1, 0, 0], k=2)
    assert ids.tolist() == [9, 2] and scores.tolist() == [2, 1]
    assert len(Searcher.from_index(tmp_path / "of memory", device="cpu")) == 2


def test_a_similarity_of_ones_own_becomes_a_folder(tmp_path):
    whole = Searcher.from_checkpoint(DEMO, device="cpu")
    items = np.random.default_rng(1).standard_normal((30, 16)).astype(np.float32)
    expected = Searcher.from_embeddings(np.arange(30), items, mol=DEMO, device="cpu").search(items[:2], 5, [1, 2])
    made = Searcher.from_embeddings(np.arange(30), items, mol=DEMO, device="cpu", folder=tmp_path / "index")
    opened = Searcher.from_index(tmp_path / "index", device="cpu")
    for searcher in [made, opened]:
        assert np.array_equal(searcher.search(items[:2], 5, [1, 2]), expected)
        assert np.array_equal(searcher.encode([SEEN]), whole.encode([SEEN]))
    with pytest.raises(ValueError, match="one made with folder="):
        whole.save(tmp_path / "other")
    made.save(tmp_path / "other")
    assert np.array_equal(Searcher.from_index(tmp_path / "other", device="cpu").encode([SEEN]), whole.encode([SEEN]))


def test_searchers_of_folders_are_pickled_and_others_say_how(tmp_path):
    items = np.eye(3, dtype=np.float32)
    made = Searcher.from_embeddings([1, 2, 3], items, device="cpu", folder=tmp_path / "index")
    opened = Searcher.from_index(tmp_path / "index", device="cpu", check=True, device_memory=0)
    for searcher in [made, opened]:
        again = pickle.loads(pickle.dumps(searcher))
        assert again.search(items, 2)[0].tolist() == searcher.search(items, 2)[0].tolist()
    with pytest.raises(TypeError, match="save\\(\\) it to a folder"):
        pickle.dumps(Searcher.from_embeddings([1, 2, 3], items, device="cpu"))


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
