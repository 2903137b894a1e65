"""An index in shards on a Ray cluster of two raylets of this machine.

RAILS_RAY_KILLS sets how many processes are killed; `scripts/check-ray.sh` kills a hundred.
"""

import asyncio
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

import rails_wgpu.ray
from rails_wgpu import Searcher
from rails_wgpu.ray import ShardUnavailable, _answer, _build, _folder, _replica, _router, _sources

DEMO = str(Path(__file__).parents[2] / "assets" / "demo.safetensors")
KILLS = int(os.environ.get("RAILS_RAY_KILLS", "4"))
D, N = 16, 600
RNG = np.random.default_rng(0)
IDS = RNG.permutation(100_000)[:N]
ITEMS = RNG.standard_normal((N, D)).astype(np.float32)
QUERIES = RNG.standard_normal((5, D)).astype(np.float32)
USERS = np.arange(5)
# Some are missing; one item alone has a mark, so that one of two shards has no value of it.
ATTRIBUTES = {
    "year": 1950 + np.arange(N) * 7 % 70,
    "score": np.where(np.arange(N) % 4 == 0, np.nan, np.arange(N) / 8),
    "genre": [("Comedy", "Drama", "Horror", None)[at % 4] if at < 400 else "Drama" for at in range(N)],
    "mark": ["here" if at == 7 else None for at in range(400)] + [None] * (N - 400),
}


@pytest.fixture(scope="module")
def cluster():
    # No workers but those that are needed, and these as important as others' work.
    os.environ.update(RAY_prestart_worker_first_driver="0", RAY_enable_worker_prestart="0", RAY_worker_niceness="0")
    node = {"num_cpus": 8, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Items in a Parquet and a NumPy file, and an empty one."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("items")
    columns = {name: values[:400] for name, values in ATTRIBUTES.items()}
    table = pyarrow.table({"id": IDS[:400], "embedding": list(ITEMS[:400]), **columns})
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    columns = {name: np.array(values[400:]) for name, values in ATTRIBUTES.items() if name != "mark"}
    np.savez(folder / "b.npz", id=IDS[400:], embedding=ITEMS[400:], mark=np.full(N - 400, np.nan), **columns)
    # As a job that writes many files leaves it: nobody told it a type.
    pyarrow.parquet.write_table(pyarrow.table({"id": [], "embedding": []}), folder / "0-empty.parquet")
    return folder


@pytest.fixture(scope="module")
def built(cluster, files, tmp_path_factory):
    """An index of two shards, which no test changes."""
    folder = tmp_path_factory.mktemp("built") / "index"
    assert rails_wgpu.ray.build(files, DEMO, folder, shards=2, attributes=list(ATTRIBUTES)) == N
    return folder


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


@pytest.fixture(scope="module")
def service(built):
    with rails_wgpu.ray.deploy(built, replicas=2, devices="cpu") as service:
        yield service


@pytest.fixture(scope="module")
def one():
    """One index with the same items."""
    return Searcher.from_embeddings(IDS, ITEMS, DEMO, device="cpu", attributes=ATTRIBUTES)


def same(found, expected):
    """Whether results are the same, bit for bit."""
    return all(np.array_equal(a, b) and a.dtype == b.dtype and a.shape == b.shape for a, b in zip(found, expected))


def test_shards_answer_as_one_index_does(service, one):
    asked = [
        {"k": 10},
        {"k": 1, "algorithm": "exact-pruned"},
        {"k": N + 5},  # more than there are
        {"k": 20, "exclude": [IDS[:300], [], [int(IDS[5]), -1], [], []]},
        {"k": 50, "allow": IDS[:30]},  # fewer than k
        {"k": 7, "algorithm": f"tangent:{N}"},  # all are candidates
        {"k": 7, "algorithm": "mips"},
    ]
    for options in asked:
        found, expected = (searcher.search(QUERIES, user_ids=USERS, **options) for searcher in (service, one))
        assert same(found, expected), options
    assert same(service.search(QUERIES[0], 3, 1, exclude=[IDS[0]]), one.search(QUERIES[0], 3, 1, exclude=[IDS[0]]))
    assert len(service) == N and int(IDS[7]) in service and -1 not in service and 100_001 not in service
    assert service.search(QUERIES[:0], 3, USERS[:0])[0].shape == (0, 3)


def test_conditions_hold_in_all_shards(service, one):
    assert service.attributes == one.attributes == {"year": "INTEGER", "score": "REAL", "genre": "TEXT", "mark": "TEXT"}
    several = ["year < ?1", None, "genre = ?1", "year < ?1", "id % 2"]
    asked = [
        {"k": 10, "where": "year >= 1990"},
        {"k": 40, "where": "year >= ?1 AND genre = ?2", "params": [1990, "Comedy"]},
        {"k": 3, "where": "mark = 'here'"},  # one item
        {"k": 3, "where": "genre = ?1", "params": ["x' OR 1 --"]},  # none
        {"k": 7, "where": "score IS NULL", "algorithm": f"tangent:{N}"},
        {"k": 7, "where": "score > 9", "algorithm": "mips", "exclude": [IDS[:300], [], [int(IDS[5])], [], []]},
        {"k": 50, "where": "year < 1990 OR genre IS NULL", "allow": IDS[:90]},
        {"k": 10, "where": several, "params": [[1960], None, ["Drama"], [1961.5], None]},
    ]
    for options in asked:
        expected = one.search(QUERIES, user_ids=USERS, **options)
        assert same(service.search(QUERIES, user_ids=USERS, **options), expected), options
        assert same(service.search_partial(QUERIES, user_ids=USERS, **options)[:2], expected), options
    assert not same(expected, one.search(QUERIES, 10, USERS))
    given = {"where": "year = ?1", "params": [1957]}
    assert same(service.search(QUERIES[0], 3, 1, **given), one.search(QUERIES[0], 3, 1, **given))
    assert same(service.search_with_stats(QUERIES, 9, USERS, **given), one.search(QUERIES, 9, USERS, **given))
    *found, bounds = service.search_with_bounds(QUERIES, 9, USERS, **given)
    assert same(found, one.search(QUERIES, 9, USERS, **given)) and np.isneginf(bounds).all()

    # Requests that share a batch keep their own conditions, and a wrong one is nobody else's.
    async def together(conditions):
        searches = (service.search_async(QUERIES[0], 5, 0, **given) for given in conditions)
        return await asyncio.gather(*searches, return_exceptions=True)

    years = [{"where": "year = ?1", "params": [1950 + at]} for at in range(20)] + [{}]
    batches = service.status()["batches"]
    answers = asyncio.run(together(years))
    assert service.status()["batches"] - batches < len(years)
    *others, wrong = asyncio.run(together([*years, {"where": "yeer = 1"}]))
    for given, *found in zip(years, answers, others):
        expected = one.search(QUERIES[0], 5, 0, **given)
        assert all(same(answer, expected) for answer in found), given
    assert isinstance(wrong, ValueError) and "no such column: yeer" in str(wrong)


WRONG_CONDITIONS = [
    ("yeer > 3", None, "no such column: yeer"),
    ("1); DROP TABLE items; --", None, "a closing parenthesis too many"),
    ("(SELECT 1)", None, "a subquery"),
    ("load_extension('x')", None, "load_extension"),
    ("1 AND " * 12_000 + "1", None, "up to 65536 bytes"),
    ("year > ?1", None, "1 parameters"),
    ("year > ?1", {"1": 2}, "a list of values, found dict"),
    ("year > ?1", [[1]], "found list"),
    ("year > ?1", [2**63], "64 bits"),
    ("year > '\ud800'", None, "whole characters"),
    (["year > 3"] * 3, None, "one for all queries, or 5, one per query, found 3"),
    ([], None, "one per query, found 0"),
    (["year > ?1"] * 5, [[1]], "expected 5 lists"),
    (7, None, "an SQL expression, or a list of them, found int"),
    (None, [1], "none without `where`"),
]


def test_wrong_conditions_are_explained_and_kill_nothing(service):
    processes = ray.get([actor.pid.remote() for actor in replicas_of(service)])
    for where, params, words in WRONG_CONDITIONS:
        with pytest.raises((ValueError, TypeError), match="expected") as error:
            service.search(QUERIES, 5, USERS, where=where, params=params)
        assert words in str(error.value)
    assert ray.get([actor.pid.remote() for actor in replicas_of(service)]) == processes


def test_a_wrong_result_is_not_the_same(one):
    ids, scores = one.search(QUERIES, 3, USERS)
    assert same((ids, scores), (ids.copy(), scores.copy()))
    other = scores.copy()
    other[4, 2] = np.nextafter(other[4, 2], 1)
    assert not same((ids, other), (ids, scores)) and not same((ids[:, ::-1], scores), (ids, scores))


def test_statistics_and_certificates_are_those_of_all_shards(service, one):
    ids, scores, stats = service.search_with_stats(QUERIES, 5, USERS)
    assert same((ids, scores), one.search(QUERIES, 5, USERS))
    assert stats.pairs == 5 * N and stats.bytes_read > 0 and stats.seconds["total"] > 0
    assert np.isneginf(service.search_with_bounds(QUERIES, 5, USERS)[2]).all()
    exact = one.search(QUERIES, N, USERS)
    ids, scores, bounds = service.search_with_bounds(QUERIES, 5, USERS, algorithm="avg:20")
    assert bounds.shape == (5,)
    for row in range(5):
        missed = [score for id, score in zip(*(part[row] for part in exact)) if id not in ids[row] and score > scores[row, -1]]
        assert all(score <= bounds[row] for score in missed)
        assert bounds[row] == -np.inf or bounds[row] >= scores[row, -1]
    assert not np.isneginf(bounds).all()  # few candidates cannot be certain of all
    assert np.isneginf(service.search_with_bounds(QUERIES, 5, USERS, algorithm=f"avg:{N}")[2]).all()


def test_answers_are_merged_by_score_then_id():
    def answer(ids, scores, bound):
        return _answer.Answer(np.array([ids]), np.array([scores], np.float32), np.array([bound], np.float32), None, len(ids))

    first, second = answer([5, 9, 2], [2, 1, -0.0], 0.5), answer([1, 7, -1], [1, 0, -np.inf], -np.inf)
    merged = _answer.merge([first, second], 5)
    assert merged.ids.tolist() == [[5, 1, 9, 2, 7]] and merged.scores.tolist() == [[2, 1, 1, 0, 0]]
    assert merged.bounds.tolist() == [0.5]
    assert _answer.merge([first, second], 2).bounds.tolist() == [-np.inf]  # no missed item reaches the second hit
    ids = np.arange(10_000, dtype=np.uint64) * 8
    counts = np.bincount(_folder.shard_of(ids, 8))
    assert len(counts) == 8 and 1100 < counts.min() and counts.max() < 1400


def test_allowed_ids_are_divided_once(monkeypatch):
    hashed, hash = [], _folder.shard_of
    monkeypatch.setattr(_folder, "shard_of", lambda ids, n: hashed.append(len(ids)) or hash(ids, n))
    allow = IDS.astype(np.uint64)
    parts = _answer.Queries(QUERIES, None, None, allow).for_shards(5)
    assert hashed == [N] and [part.allow.tolist() for part in parts] == [allow[hash(allow, 5) == at].tolist() for at in range(5)]
    assert [part.allow for part in _answer.Queries(QUERIES, None, None, None).for_shards(2)] == [None, None]


def test_a_new_version_of_a_shard_is_on_the_disk(tmp_path, monkeypatch):
    for name in ("manifest.json", "segment.safetensors", "lock"):
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / name).write_text(name)

    def no_links(*_):
        raise OSError("not here")

    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")) or sync(file))
    _folder.link(str(tmp_path / "old"), str(tmp_path / "new"))
    new = tmp_path / "new"
    assert (new / "segment.safetensors").read_text() == "segment.safetensors" and not (new / "lock").exists()
    assert sorted(synced) == [str(path) for path in (tmp_path, new, new / "manifest.json", new / "segment.safetensors")]


def test_wrong_requests_are_explained_and_do_not_hurt_others(service, one):
    with pytest.raises(ValueError, match="query embeddings: expected shape"):
        service.search(QUERIES[:, :3], 5, USERS)
    with pytest.raises(ValueError, match="exclude: expected 5 lists, one per query, found 1"):
        service.search(QUERIES, 5, USERS, exclude=[[1]])
    with pytest.raises(ValueError, match="algorithm"):
        service.search(QUERIES, 5, USERS, algorithm="none")
    with pytest.raises(ValueError, match="k: expected 1 to"):
        service.search(QUERIES, 0, USERS)
    large, results = np.full((1, D), 1e38, np.float32), {}

    def search(name, queries, users):
        try:
            results[name] = service.search(queries, 5, users)
        except ValueError as error:
            results[name] = error

    threads = [threading.Thread(target=search, args=("wrong", large, [0]))]
    threads += [threading.Thread(target=search, args=(at, QUERIES, USERS)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(results["wrong"], ValueError)
    assert all(same(results[at], one.search(QUERIES, 5, USERS)) for at in range(4))


def test_queries_share_batches(service):
    before = service.status()

    async def many():
        return await asyncio.gather(*(service.search_async(QUERIES[0], 5, 0) for _ in range(40)))

    found = asyncio.run(many())
    assert all(same(one[:2], found[0][:2]) and one[2] == [] for one in found)
    after = service.status()
    assert after["queries"] - before["queries"] == 40 and after["batches"] - before["batches"] < 40


# -- changes and faults


def replicas_of(service):
    return [actor for actors in service._replicas for actor in actors]


def kill(actor):
    """Kills the process of an actor, once it has one."""
    while True:
        try:
            os.kill(ray.get(actor.pid.remote(), timeout=60), signal.SIGKILL)
            return
        except (ray.exceptions.RayActorError, ProcessLookupError):
            time.sleep(0.1)


def router_without_actors(folder):
    """The router of a folder, whose replicas are objects of this process."""
    shards = range(len(_folder.read(str(folder)).shards))
    replicas = [_replica.Replica(str(folder), shard, "cpu", None, 1) for shard in shards]
    router = _router.Router(str(folder), [[str(shard)] for shard in shards], "", _router.Settings(0, 256, 2, 1))

    async def ask(shard, method, arguments, patient, token=None):
        given = arguments() if callable(arguments) else arguments
        return await asyncio.to_thread(getattr(replicas[shard], method), *given)

    async def opened(*_):
        pass

    router._ask, router._open = ask, opened
    return router


@pytest.mark.parametrize("fault", ["cancelled", "disk"])
def test_a_change_that_ends_within_its_commit_loses_nothing(folder, fault, monkeypatch):
    committed = _folder.commit

    async def change():
        router, begun, loop = router_without_actors(folder), asyncio.Event(), asyncio.get_running_loop()

        def commit(*arguments):
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.1)
            committed(*arguments)
            if fault == "disk":
                raise OSError("no space to write down the name")

        monkeypatch.setattr(_folder, "commit", commit)
        ids = np.arange(200_000, 200_003, dtype=np.uint64)
        work = asyncio.ensure_future(router.change("add", "first", ids, (ITEMS[:3],)))
        await begun.wait()
        if fault == "cancelled":
            work.cancel()
        with pytest.raises(asyncio.CancelledError if fault == "cancelled" else OSError):
            await work
        monkeypatch.setattr(_folder, "commit", committed)
        # The next one finds all of the first.
        assert await router.change("remove", "second", ids, ()) == 3

    before = _folder.read(str(folder)).number
    asyncio.run(change())
    now = _folder.read(str(folder))
    assert now.number == before + 2 and all((folder / name / "manifest.json").exists() for name in now.shards + now.previous)
    _folder.check(str(folder), now)


def test_nothing_is_lost_and_no_answer_is_wrong_while_processes_are_killed(folder, one):
    """Searches, changes and kills at the same time: each answer is that of a version between those known before and after."""
    rng = np.random.default_rng(1)
    memory = Searcher.from_embeddings(IDS, ITEMS, DEMO, device="cpu", attributes=ATTRIBUTES)
    expected, lock = [memory.search(QUERIES, 10, USERS)], threading.Lock()
    begun, done, wrong, answers, stop = [0], [0], [], [0], threading.Event()
    service = rails_wgpu.ray.deploy(folder, replicas=2, devices="cpu", timeout=120, failover=100)

    def search():
        while not stop.is_set():
            first = done[0]
            found = service.search(QUERIES, 10, USERS)
            with lock:
                if not any(same(found, expected[at]) for at in range(first, begun[0] + 1)):
                    wrong.append((first, begun[0], found))
                answers[0] += 1

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()

    def change():
        """Adds an item per query that is its best, one per shard at least, or removes the best items."""
        best = expected[-1][0][:, 0]
        with lock:
            if rng.random() < 0.5:
                removed = memory.remove(best)
                expected.append(memory.search(QUERIES, 10, USERS))
                begun[0] += 1
                work = lambda: service.remove(best) == removed  # noqa: E731
            else:
                ids, rows = rng.integers(200_000, 2**60, 20), rng.standard_normal((20, D)).astype(np.float32) * 2
                memory.add(ids, rows)
                expected.append(memory.search(QUERIES, 10, USERS))
                begun[0] += 1
                work = lambda: service.add(ids, rows) is None  # noqa: E731
        assert work()
        done[0] += 1

    try:
        chance = random.Random(2)
        for at in range(KILLS):
            actor = service._router if at % 4 == 1 else chance.choice(replicas_of(service))
            killer = threading.Thread(target=lambda actor=actor, wait=chance.random(): (time.sleep(wait / 2), kill(actor)))
            killer.start()
            change()
            killer.join()
        change()
    finally:
        stop.set()
        for thread in searching:
            thread.join()
    assert not wrong, wrong[0]
    assert answers[0] > KILLS and begun[0] == done[0] == KILLS + 1
    assert len(service) == len(memory) and same(service.search(QUERIES, 10, USERS), expected[-1])
    with pytest.raises(ValueError, match="expected numbers small enough"):  # nothing has changed then
        service.add([1, 2, 3], np.full((3, D), 1e38))
    assert len(service) == len(memory)
    service.close()
    # What is on disk is what was answered, and nothing is left behind but the version before.
    version = _folder.read(str(folder))
    assert sum(len(Searcher.from_index(folder / name, device="cpu", check=True)) for name in version.shards) == len(memory)
    (build,) = (entry for entry in folder.iterdir() if entry.is_dir())
    assert {f"{build.name}/{entry.name}" for entry in build.iterdir()} == set(version.shards) | set(version.previous)
    with rails_wgpu.ray.deploy(folder, devices="cpu", failover=1) as again:
        assert same(again.search(QUERIES, 10, USERS), expected[-1])
        # A shard whose replica does not come back is an error, or is said to be missing.
        again.compact()
        # Added items bring their attributes, of which one shard may have no value; those without have none.
        given = {"where": "mark = ?1 OR year > 2100 OR score < 1", "params": ["new"]}
        before = memory.search(QUERIES, 30, USERS, **given)
        added = {"year": [2101, None, 2102, None], "mark": ["new", None, None, None]}
        for service in (again, memory):
            service.add([500_000, 500_001, 500_002, int(IDS[1])], np.tile(ITEMS[1], (4, 1)) * 2, attributes=added)
            service.add([500_003], ITEMS[:1], attributes={"id": [500_003], "score": [0]})
        expected.append(memory.search(QUERIES, 30, USERS, **given))
        assert same(again.search(QUERIES, 30, USERS, **given), expected[-1]) and not same(before, expected[-1])
        for attributes, words in (
            ({"price": [1]}, "attributes of the index: year INTEGER, score REAL, genre TEXT, mark TEXT, found `price INTEGER`"),
            ({"year": ["old"]}, "found `year TEXT`"),
            ({"year": [1, 2]}, "expected 1 values, one per item, found 2 in column `year`"),
            ({"id": [4], "year": [1]}, "found 1 of other ids, the first 4"),
            ({"id": [3, 3], "year": [1, 2]}, "found some twice"),
            ({"year": [1], "YEAR": [1]}, "different names"),
            ("items.csv", "found a path"),
        ):
            with pytest.raises((ValueError, TypeError), match="attributes: expected") as wrong_attributes:
                again.add([3], ITEMS[:1], attributes=attributes)
            assert words in str(wrong_attributes.value)
        assert len(again) == len(memory) and 3 not in again
        ray.kill(again._replicas[1][0], no_restart=True)
        ids, scores, missing = again.search_partial(QUERIES, 10, USERS)
        assert missing == [1] and (_folder.shard_of(ids, 2) == 0).all()
        with pytest.raises(ShardUnavailable, match="shard 1: expected one of 1 replicas to answer") as raised:
            again.search(QUERIES, 10, USERS)
        assert raised.value.shards == [1]


def test_a_new_build_takes_the_place_of_a_running_one(folder, tmp_path, one):
    rows = ITEMS[::-1].copy()
    np.savez(tmp_path / "next.npz", id=IDS, embedding=rows)
    old, new = one.search(QUERIES, 10, USERS), Searcher.from_embeddings(IDS, rows, device="cpu").search(QUERIES, 10)
    with rails_wgpu.ray.deploy(folder, replicas=2, devices="cpu") as service:
        found, stop = [], threading.Event()

        def search():
            while not stop.is_set():
                found.append(service.search(QUERIES, 10, USERS))

        searching = threading.Thread(target=search)
        searching.start()
        with pytest.raises(ValueError, match="replace=True"):
            rails_wgpu.ray.build(tmp_path / "next.npz", None, folder, shards=2)
        assert rails_wgpu.ray.build(tmp_path / "next.npz", None, folder, shards=2, replace=True) == N
        assert service.refresh() is True and service.refresh() is False
        found.append(None)  # from here on, only the new one
        time.sleep(0.3)
        stop.set()
        searching.join()
        after = found[found.index(None) + 2 :]  # the one that was under way may be old
        assert all(same(one, old) or same(one, new) for one in found if one is not None)
        assert after and all(same(one, new) for one in after) and same(service.search(QUERIES, 10), new)
    np.savez(tmp_path / "less.npz", id=IDS[:100], embedding=rows[:100])
    with rails_wgpu.ray.deploy(folder, devices="cpu") as service:
        rails_wgpu.ray.build(tmp_path / "less.npz", None, folder, shards=3, replace=True)
        with pytest.raises(ValueError, match="expected 2 shards, as many as are deployed, found 3"):
            service.refresh()


def test_a_change_leaves_a_build_alone_that_has_just_begun(folder, files, monkeypatch):
    written = _folder.write_json
    (folder / "new-dead").mkdir()

    def write(path, value):
        _folder.collect(str(folder))  # as a running service does
        written(path, value)

    monkeypatch.setattr(_folder, "write_json", write)
    work = _build._Work.begin(str(folder), files, DEMO, 2, ("id", "embedding"), {})
    _folder.collect(str(folder))
    assert sorted(os.listdir(work.path)) == ["model.safetensors", "parts", "plan.json"]
    assert not list(folder.glob("new-*"))


DRIVER = """
import sys, ray, rails_wgpu.ray
ray.init(address=sys.argv[1], log_to_driver=False)
rails_wgpu.ray.build(sys.argv[2], sys.argv[3], sys.argv[4], shards=3)
"""


def test_a_build_goes_on_after_kills_of_workers_and_of_the_driver(cluster, tmp_path):
    ids, rows = np.arange(30_000), np.random.default_rng(5).standard_normal((30_000, D)).astype(np.float32)
    np.savez(tmp_path / "items.npz", id=ids, embedding=rows)
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    folder = tmp_path / "index"
    arguments = [sys.executable, driver, cluster.address, tmp_path / "items.npz", DEMO, folder]

    def until(condition):
        end = time.monotonic() + 120
        while not (found := condition()):
            assert time.monotonic() < end
            time.sleep(0.002)
        return found

    def workers():
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes().startswith(b"ray::_make_shard"):
                    found.append(int(path.parent.name))
            except OSError:  # it has ended
                pass
        return found

    first = subprocess.Popen(arguments)
    for worker in until(workers):
        os.kill(worker, signal.SIGKILL)
    whole = until(lambda: [path for path in folder.glob("build-*/shard-*") if path.suffix != ".tmp"])
    first.kill()
    first.wait()
    assert not (folder / "shards.json").exists()
    with pytest.raises(ValueError, match="found no shards.json"):
        rails_wgpu.ray.deploy(folder)
    with pytest.raises(ValueError, match="expected the arguments of the unfinished build in it, found other shards"):
        rails_wgpu.ray.build(tmp_path / "items.npz", DEMO, folder, shards=2)
    written = {path: (path / "manifest.json").stat().st_mtime_ns for path in whole}
    assert rails_wgpu.ray.build(tmp_path / "items.npz", DEMO, folder, shards=3) == 30_000
    assert all((path / "manifest.json").stat().st_mtime_ns == time for path, time in written.items())
    assert not list(folder.glob("build-*/parts")) and len(_folder.read(str(folder)).shards) == 3
    with rails_wgpu.ray.deploy(folder, devices="cpu", timeout=60) as service:
        expected = Searcher.from_embeddings(ids, rows, DEMO, device="cpu").search(QUERIES, 10, USERS)
        assert same(service.search(QUERIES, 10, USERS), expected)
        cancelled_searches_end(service)


def cancelled_searches_end(service):
    processes = [ray.get(actor.pid.remote()) for actor in replicas_of(service)]

    def spent():
        """Processor seconds of the replicas."""
        fields = [Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split() for process in processes]
        return sum(int(user) + int(system) for user, system in (of[11:13] for of in fields)) / os.sysconf("SC_CLK_TCK")

    queries, users = np.tile(QUERIES, (400, 1)), np.tile(USERS, 400)
    before = spent()
    service.search(queries[:100], 10, users[:100])
    whole = 20 * (spent() - before)
    started = spent()
    patience, service._timeout = service._timeout, 0.5
    with pytest.raises(TimeoutError, match="within 0.5 s"):
        service.search(queries, 10, users)
    service._timeout = patience

    async def give_up():
        search = asyncio.ensure_future(service.search_async(queries, 10, users))
        await asyncio.sleep(0.5)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search

    asyncio.run(give_up())
    # Until they rest.
    before = None
    while before is None or spent() - before > 0.02:
        before = spent()
        time.sleep(0.5)
    assert whole > 1 and spent() - started < whole, "two cancelled searches took as much as a whole one"


# -- hostile input


def test_what_cannot_be_built_or_deployed_is_explained(cluster, built, folder, files, tmp_path):
    def refused(words, items, model=None, **options):
        with pytest.raises((ValueError, TypeError), match=words):
            rails_wgpu.ray.build(items, model, tmp_path / "other", **{"shards": 2, **options})
        assert not list((tmp_path / "other").glob("*-*"))  # nothing half built
        shutil.rmtree(tmp_path / "other", ignore_errors=True)

    refused("found none at", tmp_path / "nothing")
    refused("mount or copy", "s3://bucket/items.parquet")
    refused("write_parquet", type("Dataset", (), {"write_parquet": None})())
    with pytest.raises(ValueError, match="expected one that all machines see, found s3://bucket/index"):
        rails_wgpu.ray.build(files, None, "s3://bucket/index", shards=2)
    refused("form: expected components or raw", files, form="auto")
    np.savez(tmp_path / "few.npz", id=[1, 2], embedding=np.eye(2))
    refused("expected so few that each has items", tmp_path / "few.npz", shards=4)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    refused("bad.parquet: ", tmp_path / "bad.parquet")
    np.savez(tmp_path / "twice.npz", id=[1, 2, 3, 4, 1], embedding=np.eye(5))
    refused("id 1 twice", tmp_path / "twice.npz")
    np.savez(tmp_path / "pickled.npz", id=np.array([{}], dtype=object), embedding=np.eye(1))
    refused("allow_pickle", tmp_path / "pickled.npz")
    refused(r"one width in all files, found widths \[2, 16\]", [tmp_path / "few.npz", files / "b.npz"])
    np.savez(tmp_path / "without.npz", id=[1, 2])
    for mixed in ([tmp_path / "without.npz", files / "b.npz"], [files / "b.npz", tmp_path / "without.npz"]):
        refused("embeddings in all files or in none, found none in .*without.npz", mixed, DEMO)
    np.savez(tmp_path / "empty.npz", id=[], embedding=[])
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        (tmp_path / "damaged.npz").write_bytes(damaged_npz("id", method))
        refused("damaged.npz: ", tmp_path / "damaged.npz")
    refused("at least one item in the files", tmp_path / "empty.npz")
    for attributes, words in (("year", "list of names"), ([1], "names of columns, found 1"), (["year", "Year"], "found `Year`")):
        refused(words, files, attributes=attributes)
    refused("found `id`", files, attributes=["id"])
    mixed = [files / "b.npz", tmp_path / "few.npz"]
    refused("few.npz: expected an array `year`, found id, embedding", mixed, attributes=["year"])
    refused("a.parquet: expected a column `price`, found id", files / "a.parquet", attributes=["price"])
    np.savez(tmp_path / "other.npz", id=[1, 2, 3], embedding=np.ones((3, D)), year=["1990", "1991", "1992"])
    words = "other.npz: attribute `year`: expected INTEGER as in .*b.npz, found TEXT"
    refused(words, [files / "b.npz", tmp_path / "other.npz"], attributes=["year"])
    for values, words in (
        ([1, 2], "expected 3 values, one per id, found 2"),
        ([b"x"] * 3, "found bytes"),
        (np.array([0, 1, 2], "M8[s]"), "found datetime"),
        ([1, 2, np.inf], "expected finite numbers, found inf"),
        (np.full(3, 2**63, np.uint64), "64 bits, found 9223372036854775808"),
    ):
        np.savez(tmp_path / "wrong.npz", id=[1, 2, 3], year=values)
        with pytest.raises((ValueError, TypeError), match="wrong.npz: attribute `year`: ") as error:
            _sources.read(str(tmp_path / "wrong.npz"), "id", "embedding", ["year"])
        assert words in str(error.value)

    # A shard with another model: one whose weights are the same, but whose temperature is not, would do as well.
    name = _folder.read(str(folder)).shards[1]

    def replace(model, attributes):
        shutil.rmtree(folder / name)
        options = {"device": "cpu", "form": "components", "folder": folder / name}
        Searcher.from_embeddings(IDS, ITEMS, model, attributes=attributes, **options)

    replace(DEMO, ATTRIBUTES)
    _folder.check(str(folder), _folder.read(str(folder)))
    for model, attributes in ((None, ATTRIBUTES), (DEMO, {"year": ATTRIBUTES["year"]}), (DEMO, None)):
        replace(model, attributes)
        with pytest.raises(ValueError, match="expected the model, options and attributes of the other shards"):
            rails_wgpu.ray.deploy(folder)
    shutil.rmtree(folder / name)
    with pytest.raises(ValueError, match="expected an index folder"):
        rails_wgpu.ray.deploy(folder)
    text = (folder / "shards.json").read_text()
    for damaged in (text.replace("shard-00001", "shard-00000"), text[:-20], "[]", text.replace("layout", "lay")):
        (folder / "shards.json").write_text(damaged)
        with pytest.raises(ValueError, match="shards.json: expected"):
            rails_wgpu.ray.deploy(folder)


def damaged_npz(name, method):
    """A compressed .npz file whose names are right and whose content is not."""
    file, array = io.BytesIO(), io.BytesIO()
    np.save(array, QUERIES)
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(f"{name}.npy", array.getvalue())
    content = bytearray(file.getvalue())
    content[60:160] = b"\xff" * 100
    return bytes(content)


def test_the_endpoint_answers_and_refuses(service, one):
    with pytest.raises(ValueError, match="16 characters"):
        service.serve(token="short")
    limits = {"max_k": 20, "max_batch": 8, "max_body": 100_000}
    with service.serve(port=0, **limits) as endpoint:
        expected = one.search(QUERIES, 5, USERS)

        def post(body, kind="application/json", token=endpoint.token, path="/search", headers=()):
            headers = {"Content-Type": kind, "Authorization": f"Bearer {token}", **dict(headers)}
            request = urllib.request.Request(endpoint.url + path, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return response.status, response.read()
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())["error"]

        asked = {"queries": QUERIES.tolist(), "k": 5, "user_ids": USERS.tolist(), "exclude": None}
        status, body = post(json.dumps(asked).encode())
        found = json.loads(body)
        assert status == 200 and found["ids"] == expected[0].tolist() and found["missing_shards"] == []
        assert found["scores"] == expected[1].astype(float).tolist()
        few = {**asked, "allow": IDS[:3].tolist(), "queries": asked["queries"][0], "user_ids": [0]}
        assert json.loads(post(json.dumps(few).encode())[1])["scores"][3:] == [None, None]

        for given in (
            {"where": "year > 1990 AND genre IS NOT NULL"},
            {"where": "year = ?1 OR score < ?2", "params": [1957, 3.5]},
            {"where": ["genre = ?1", None] * 2 + ["id % 2"], "params": [["Drama"], None] * 2 + [[]]},
        ):
            ids, scores = one.search(QUERIES, 5, USERS, **given)
            found = json.loads(post(json.dumps({**asked, **given}).encode())[1])
            assert found["ids"] == ids.tolist() and found["scores"] == scores.astype(float).tolist(), given
            # In a query string, conditions of several queries are several values.
            lists = {name: values if isinstance(given["where"], list) else [values] for name, values in given.items()}
            named = [("where", sql or "TRUE") for sql in lists["where"]]
            named += [("params", json.dumps(values or [])) for values in lists.get("params", [])]
            file = io.BytesIO()
            np.savez(file, queries=QUERIES, user_ids=USERS)
            body = post(file.getvalue(), "application/x-npz", path="/search?k=5&" + urllib.parse.urlencode(named))[1]
            with np.load(io.BytesIO(body)) as answer:
                assert same((answer["ids"], answer["scores"]), (ids, scores)), given

        def npz(**arrays):
            file = io.BytesIO()
            np.savez(file, **arrays)
            return file.getvalue()

        arrays = npz(queries=QUERIES, user_ids=USERS)
        status, body = post(arrays, "application/x-npz", path="/search?k=5&algorithm=exact")
        with np.load(io.BytesIO(body)) as answer:
            assert same((answer["ids"], answer["scores"]), expected)
        file = io.BytesIO()
        np.save(file, QUERIES[0])
        assert post(file.getvalue(), "application/x-npy", path="/search?k=5")[0] in (200, 400)  # a model with users needs one

        def refused(status, words, *arguments, **options):
            found, error = post(*arguments, **options)
            assert found == status and words in str(error), (found, error)

        refused(401, "token", json.dumps(asked).encode(), token="wrong")
        refused(401, "token", json.dumps(asked).encode(), token=endpoint.token + "x")
        refused(415, "Content-Type", b"{}", kind="text/plain")
        refused(413, "at most 100000 bytes", b" " * 200_000)
        refused(400, "expected JSON", json.dumps(asked).encode()[:-9])
        refused(400, "JSON", b"[" * 50_000)
        refused(400, "expected an object", b"[1]")
        refused(400, "k: expected a number from 1 to 20, found 21", json.dumps({**asked, "k": 21}).encode())
        refused(400, "k: expected", json.dumps({**asked, "k": True}).encode())
        refused(400, "found NaN", json.dumps({**asked, "queries": [[float("nan")] * D]}).encode())
        refused(400, "found 'exec'", json.dumps({**asked, "exec": 1}).encode())
        refused(413, "at most 8", json.dumps({**asked, "queries": [[0.0] * D] * 9}).encode())
        refused(400, "queries", json.dumps({**asked, "queries": [[0.0] * D, [0.0]]}).encode())
        refused(400, "exclude", json.dumps({**asked, "exclude": [[1]]}).encode())
        refused(400, "algorithm", json.dumps({**asked, "algorithm": "none"}).encode())
        for where, params, words in WRONG_CONDITIONS:
            refused(400, words, json.dumps({**asked, "where": where, "params": params}).encode())
        many = {**asked, "where": "year > ?1", "params": ["x" * 70_000]}
        refused(413, "params: expected at most 65536 bytes, found more", json.dumps(many).encode())
        binary = {"kind": "application/x-npz", "path": "/search?k=5"}
        refused(400, "damaged", arrays[:-30], **binary)
        refused(400, "damaged", b"PK" + arrays[2:100], **binary)
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
            refused(400, "damaged", damaged_npz("queries", method), **binary)
        refused(400, "found dtype", npz(queries=np.array(["a"])), **binary)
        for more, words in (
            ("where=yeer", "no such column: yeer"),
            ("where=year%3E%3F1&params=[1", "params: expected JSON"),
            ("where=year%3E%3F1&params=[NaN]", "found NaN"),
            ("where=TRUE&where=TRUE", "one per query, found 2"),
            ("params=[1]", "none without `where`"),
            ("k=6", "expected k once"),
        ):
            refused(400, words, npz(queries=QUERIES, user_ids=USERS), binary["kind"], path=f"{binary['path']}&{more}")
        refused(400, "dtype object", npz(queries=np.array([{}], dtype=object)), **binary)
        refused(400, "found 'other'", npz(queries=QUERIES, other=USERS), **binary)
        refused(400, "found 3 axes", npz(queries=np.zeros((9, 1, D), np.float32)), **binary)
        refused(400, "found 0 axes", npz(queries=np.float32(1)), **binary)
        refused(400, "found 3 axes", json.dumps({**asked, "queries": [[[0.0] * D]] * 9}).encode())
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("queries.npy", bytes(50_000_000))
        assert len(bomb.getvalue()) < 100_000
        refused(400, "when it is unpacked", bomb.getvalue(), **binary)
        # A header that claims a petabyte.
        lie = file.getvalue().replace(b"(16,), ", b"(1" + b"0" * 14 + b",), ")[: len(file.getvalue()) + 14]
        refused(400, "bytes for shape", lie, "application/x-npy", path="/search?k=5")
        refused(400, "expected a .npy file", pickle.dumps(QUERIES), "application/x-npy", path="/search?k=5")
        refused(400, "k: expected a number", file.getvalue(), "application/x-npy", path="/search?k=1e9")

        # A body that ends before its length.
        import socket

        with socket.create_connection(("127.0.0.1", int(endpoint.url.rsplit(":", 1)[1]))) as cut:
            head = f"POST /search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {endpoint.token}\r\n"
            cut.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
        status, body = post(None, path="/status")
        assert status == 200 and json.loads(body)["replicas"] == [2, 2]
        assert urllib.request.urlopen(endpoint.url + "/health").status == 200
        # It comes back where it was.
        kill(endpoint._actor)
        for _ in range(600):
            try:
                assert post(json.dumps(asked).encode())[0] == 200
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        else:
            raise AssertionError("the endpoint did not come back")
