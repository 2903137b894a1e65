"""Processes forked off one that has searched: `os.fork`, and what multiprocessing and data loaders do with it."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from rails_wgpu import History, Searcher

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

DEMO = os.path.join(os.path.dirname(__file__), "..", "..", "assets", "demo.safetensors")
SEEN = History(item_ids=[12, 31, 5], timestamps=[100, 160, 300], now=400, user_id=7)
SECONDS = 60


def in_a_fork(work):
    """What `work` returns in a forked process, or `None` if it does not end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(work()).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    for _ in range(SECONDS * 100):
        if os.waitpid(child, os.WNOHANG)[0]:
            with os.fdopen(reader, "rb") as pipe:
                return pipe.read().decode()
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@pytest.fixture(scope="module")
def searcher():
    searcher = Searcher.from_checkpoint(DEMO, device="cpu")
    searcher.search(searcher.encode([SEEN]), k=5, user_ids=[7])
    return searcher


def found(searcher):
    """By the scan of everything, by an algorithm with stages, and in an index that is built here."""
    queries = searcher.encode([SEEN] * 40)
    users = [7] * 40
    ids = [searcher.search(queries, 5, users, algorithm)[0].tolist() for algorithm in ["exact", "tangent:50", "comb:9_50"]]
    items = np.random.default_rng(3).standard_normal((500, 16)).astype(np.float32)
    built = Searcher.from_embeddings(np.arange(500), items, mol=DEMO, device="cpu", n_lists=4)
    return ids + [built.search(queries, 5, users, "naive-ivf:50@2")[0].tolist()]


def test_a_fork_answers_as_its_parent_does_and_so_does_a_fork_of_it(searcher):
    expected = repr(found(searcher))
    assert in_a_fork(lambda: found(searcher)) == expected
    assert in_a_fork(lambda: (found(searcher), in_a_fork(lambda: found(searcher)))) == repr((eval(expected), expected))
    assert repr(found(searcher)) == expected, "and the parent goes on"


def test_a_fork_changes_its_own_items(searcher):
    def change():
        searcher.remove(searcher.ids[:200])
        searcher.compact()
        return len(searcher)

    assert in_a_fork(change) == "20" and len(searcher) == 220


ITEMS = np.eye(64, dtype=np.float32)
SHARED = []


def first(i):
    """An item of a data set whose workers search."""
    return int(SHARED[0].search(ITEMS[i], 1)[0][0])


def test_workers_of_a_pool_search():
    SHARED[:] = [Searcher.from_embeddings(np.arange(64), ITEMS, device="cpu")]
    first(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(first, range(64)).get(timeout=SECONDS) == list(range(64))


def test_workers_of_a_data_loader_search():
    torch = pytest.importorskip("torch")
    SHARED[:] = [Searcher.from_embeddings(np.arange(64), ITEMS, device="cpu")]
    first(0)

    class Found(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, i):
            return first(i)

    loader = torch.utils.data.DataLoader(Found(), batch_size=8, num_workers=2, timeout=SECONDS)
    assert torch.cat(list(loader)).tolist() == list(range(64))
