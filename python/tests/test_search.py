"""Searches whose results can be computed by hand, refusals, and threads."""

import threading

import numpy as np
import pytest

import rails_wgpu
from rails_wgpu import NO_ITEM, Cancel, Cancelled, DeviceError, Searcher, devices

IDS = [9, 5, 7]
ITEMS = np.array([[1, 1], [1, 0], [0, 1]], dtype=np.float32)
QUERIES = np.array([[2, 1], [-1, 0]], dtype=np.float32)
INF = np.inf


@pytest.fixture
def searcher():
    return Searcher.from_embeddings(IDS, ITEMS, device="cpu")


def test_results_are_ordered_by_score_then_id(searcher):
    ids, scores = searcher.search(QUERIES, k=3)
    assert ids.dtype == np.int64 and scores.dtype == np.float32
    assert ids.tolist() == [[9, 5, 7], [7, 5, 9]]  # 5 and 9 tie for the second query
    assert scores.tolist() == [[3, 2, 1], [0, -1, -1]]
    ids, scores = searcher.search(QUERIES[:0], k=3)
    assert ids.shape == (0, 3) and scores.shape == (0, 3)


def test_excluded_items_are_not_found_and_rows_are_padded(searcher):
    ids, scores = searcher.search(QUERIES, k=3, exclude=[[9], []])
    assert ids.tolist() == [[5, 7, NO_ITEM], [7, 5, 9]]
    assert scores.tolist() == [[2, 1, -INF], [0, -1, -1]]
    padded = np.array([[9, -1, 12345], [-1, 7, 5]])
    ids, _ = searcher.search(QUERIES, k=2, exclude=padded)
    assert ids.tolist() == [[5, 7], [9, NO_ITEM]]
    with pytest.raises(ValueError, match="exclusions: expected none, or 2 lists"):
        searcher.search(QUERIES, k=2, exclude=[[9]])


def test_only_allowed_items_are_found(searcher):
    ids, _ = searcher.search(QUERIES, k=2, allow=[7, 9, 1234])
    assert ids.tolist() == [[9, 7], [7, 9]]
    ids, _ = searcher.search(QUERIES, k=2, allow=[7, 9], exclude=[[9], [7, 9]])
    assert ids.tolist() == [[7, NO_ITEM], [NO_ITEM, NO_ITEM]]
    ids, _ = searcher.search(QUERIES, k=1, allow=[])
    assert ids.tolist() == [[NO_ITEM], [NO_ITEM]]


def test_items_come_and_go(searcher):
    searcher.add(np.array([100, 5]), [[10, 10], [0, 0]])
    assert len(searcher) == 4 and 100 in searcher and searcher.ids.tolist() == [5, 7, 9, 100]
    ids, scores = searcher.search(QUERIES[:1], k=4)
    assert ids.tolist() == [[100, 9, 7, 5]] and scores.tolist() == [[30, 3, 1, 0]]
    assert searcher.remove([100, 777]) == 1
    assert len(searcher) == 3 and 100 not in searcher and -1 not in searcher and "7" not in searcher
    searcher.add([], np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match=r"shape \(N, 2\)"):
        searcher.add([1], [[1, 2, 3]])
    assert repr(searcher) == "<rails_wgpu.Searcher: 3 items, D = 2, on cpu>"


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_formats_of_tables(dtype):
    ids, scores = Searcher.from_embeddings(IDS, ITEMS, device="cpu", dtype=dtype).search(QUERIES, k=3)
    assert ids.tolist() == [[9, 5, 7], [7, 5, 9]] and scores.tolist() == [[3, 2, 1], [0, -1, -1]]


def test_any_layout_and_type_of_array_means_the_same(searcher):
    expected = searcher.search(QUERIES, k=3)[0].tolist()
    wide = np.zeros((4, 4), np.float64)
    wide[::2, ::2] = QUERIES
    for queries in [QUERIES.tolist(), np.asfortranarray(QUERIES), wide[::2, ::2], QUERIES.astype(np.float16)]:
        assert searcher.search(queries, k=3)[0].tolist() == expected
    for ids in [np.array(IDS, np.uint64), np.array(IDS, np.int16), tuple(IDS), np.array([[9, 0], [5, 0], [7, 0]])[:, 0]]:
        assert Searcher.from_embeddings(ids, ITEMS, device="cpu").search(QUERIES, k=3)[0].tolist() == expected


class OnAGpu:
    """As much of a tensor as is looked at."""

    def __init__(self, array, dtype="torch.float32", gradient=True):
        self.array, self.dtype, self.gradient = array, dtype, gradient

    def detach(self):
        return OnAGpu(self.array, self.dtype, gradient=False)

    def cpu(self):
        return self

    def float(self):
        return OnAGpu(self.array, gradient=self.gradient)

    def numpy(self):
        assert not self.gradient and self.dtype != "torch.bfloat16"
        return self.array


class Capsule:
    """An array that knows DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_tensors_are_arrays(searcher):
    expected = searcher.search(QUERIES, k=3)[0].tolist()
    for queries in [OnAGpu(QUERIES), OnAGpu(QUERIES, "torch.bfloat16"), Capsule(QUERIES)]:
        assert searcher.search(queries, k=3)[0].tolist() == expected
    assert Searcher.from_embeddings(OnAGpu(np.array(IDS)), OnAGpu(ITEMS), device="cpu").ids.tolist() == [5, 7, 9]


def test_contiguous_arrays_are_read_as_they_are():
    from rails_wgpu import _arrays

    assert _arrays.floats("x", ITEMS) is ITEMS
    assert np.shares_memory(_arrays.floats("x", Capsule(ITEMS)), ITEMS)
    ids = np.array(IDS, np.uint64)
    assert _arrays.ids("x", ids) is ids


class Sparse:
    """What a sparse tensor of PyTorch says of itself."""

    layout = "torch.sparse_coo"


def refused(words, kind=ValueError):
    return pytest.raises(kind, match=words)


def test_refusals_say_what_was_expected_and_found(searcher):
    for k in [0, -1, 2**70]:
        with refused(f"k: expected 1 to .*found {k}"):
            searcher.search(QUERIES, k=k)
    with refused("k: expected an integer, found 1.5", TypeError):
        searcher.search(QUERIES, k=1.5)
    with refused("`magic`"):
        searcher.search(QUERIES, k=1, algorithm="magic")
    with refused("Mixture-of-Logits"):
        searcher.search(QUERIES, k=1, algorithm="tangent:2")
    with refused("queries: expected an array of two axes"):
        searcher.search(QUERIES[None, None], k=1)
    with refused("query embeddings: expected shape"):
        searcher.search(QUERIES[None], k=1)
    with refused("queries: expected numbers", TypeError):
        searcher.search([["a", "b"]], k=1)
    with refused("queries: expected an array of numbers, found list"):
        searcher.search([[1, 2], [3]], k=1)
    with refused("queries: expected a dense tensor, found layout torch.sparse_coo", TypeError):
        searcher.search(Sparse(), k=1)
    with refused("finite|inf"):
        searcher.search([[1e300, 1]], k=1)
    with refused("expected .*2.* found .*3"):
        searcher.search(np.zeros((1, 3)), k=1)
    with refused("finite"):
        searcher.search([[np.nan, 1]], k=1)
    with refused("user ids: expected 2"):
        searcher.search(QUERIES, k=1, user_ids=[1])
    with refused("user_ids: expected integers", TypeError):
        searcher.search(QUERIES, k=1, user_ids=[0.5, 1])
    with refused("ids: expected 0 to .*found -3"):
        Searcher.from_embeddings([-3, 1, 2], ITEMS, device="cpu")
    with refused("ids: expected 0 to .*found 9223372036854775808"):
        Searcher.from_embeddings(np.array([2**63, 1, 2], np.uint64), ITEMS, device="cpu")
    with refused("ids: expected 0 to .*found 1000000000000000000000"):
        Searcher.from_embeddings([10**21, 1, 2], ITEMS, device="cpu")
    with refused("n_lists: expected 0 to .*found -1"):
        Searcher.from_embeddings(IDS, ITEMS, device="cpu", n_lists=-1)
    with refused("device_memory: expected 0 to .*found -5"):
        Searcher.from_embeddings(IDS, ITEMS, device="cpu", device_memory=-5)
    with refused("id 5 twice"):
        Searcher.from_embeddings([5, 5, 2], ITEMS, device="cpu")
    with refused("3, one per embedding"):
        Searcher.from_embeddings([5], ITEMS, device="cpu")
    with refused("at least one item"):
        Searcher.from_embeddings([], np.zeros((0, 2)), device="cpu")
    with refused("f32, f16 or int8"):
        Searcher.from_embeddings(IDS, ITEMS, device="cpu", dtype="f64")
    with refused("`abacus`", DeviceError):
        Searcher.from_embeddings(IDS, ITEMS, device="abacus")
    with refused("a whole model"):
        searcher.encode([([1], [1])])
    with refused("no/such.safetensors", FileNotFoundError):
        Searcher.from_embeddings(IDS, ITEMS, mol="no/such.safetensors", device="cpu")


def test_one_query_gives_one_row(searcher):
    ids, scores = searcher.search(QUERIES, k=2)
    one_ids, one_scores = searcher.search(QUERIES[0], k=2, user_ids=7)
    assert one_ids.tolist() == ids[0].tolist() and one_scores.tolist() == scores[0].tolist()
    without = searcher.search(QUERIES[0], k=2, exclude=[ids[0][0], -1])[0]
    assert without[0] == ids[0][1] and ids[0][0] not in without


def test_candidates_of_ones_own_are_scored_in_their_order(searcher):
    ids, scores = searcher.search(QUERIES, k=3)
    known = [dict(zip(*row)) for row in zip(ids.tolist(), scores.tolist())]
    found = searcher.rescore(QUERIES, [[9, 5], [7, -1, 9, 9]])
    expected = [[known[0][9], known[0][5], -np.inf, -np.inf], [known[1][7], -np.inf, known[1][9], known[1][9]]]
    assert found.tolist() == expected
    assert searcher.rescore(QUERIES[0], [9, 5]).tolist() == expected[0][:2]
    with refused("candidates.*1234"):
        searcher.rescore(QUERIES, [[5], [1234]])
    with refused("candidates: expected 2 lists"):
        searcher.rescore(QUERIES, [[5]])


def test_more_than_there_are_is_all_there_are(searcher):
    ids, scores = searcher.search(QUERIES, k=2**40)
    assert ids.shape == scores.shape == (2, 3)
    assert sorted(ids[0].tolist()) == [5, 7, 9]


def test_bounds_say_what_may_have_been_missed(searcher):
    ids, scores, bounds = searcher.search_with_bounds(QUERIES, k=2)
    assert ids.tolist() == searcher.search(QUERIES, k=2)[0].tolist() and bounds.tolist() == [-np.inf, -np.inf]
    assert searcher.search_with_bounds(QUERIES[0], k=2)[2] == -np.inf


def test_a_search_is_cancelled(searcher):
    cancel = Cancel()
    assert not cancel.is_cancelled
    assert searcher.search(QUERIES, k=2, cancel=cancel)[0].tolist() == searcher.search(QUERIES, k=2)[0].tolist()
    cancel.cancel()
    assert cancel.is_cancelled and issubclass(Cancelled, RuntimeError)
    with pytest.raises(Cancelled, match="was cancelled"):
        searcher.search(QUERIES, k=2, cancel=cancel)


def test_what_is_logged_goes_to_python(searcher, caplog):
    searcher.search(QUERIES, k=1)
    assert not caplog.records
    with caplog.at_level("DEBUG", logger="rails_wgpu"):
        searcher.search(QUERIES, k=1)
    names = {record.name for record in caplog.records}
    assert names == {"rails_wgpu.search"}
    assert any("algorithm=exact" in record.getMessage() for record in caplog.records)
    caplog.clear()
    searcher.search(QUERIES, k=1)
    assert not caplog.records


def test_devices_are_listed():
    assert devices()[0].name == "cpu" and devices()[0].kind == "native CPU" and devices()[0].backend == "native"
    assert issubclass(DeviceError, RuntimeError)
    assert rails_wgpu.__version__.count(".") == 2


def test_threads_share_a_searcher_and_the_interpreter():
    rng = np.random.default_rng(0)
    items = rng.standard_normal((20_000, 64), np.float32)
    searcher = Searcher.from_embeddings(np.arange(20_000), items, device="cpu")
    queries = rng.standard_normal((64, 64), np.float32)
    expected = searcher.search(queries, k=50)[0]
    wrong, ticks, stop = [], [0], threading.Event()

    def search():
        for _ in range(3):
            if not np.array_equal(searcher.search(queries, k=50)[0], expected):
                wrong.append(1)

    def tick():
        while not stop.is_set():
            ticks[0] += 1
            stop.wait(0.001)

    ticker = threading.Thread(target=tick)
    workers = [threading.Thread(target=search) for _ in range(3)]
    for thread in [ticker, *workers]:
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    ticker.join()
    assert not wrong
    assert ticks[0] > 10, "other threads stood still"
