"""What shards on a Ray cluster cost, and a plan for more machines than there are here.

    python benches/ray_shards.py --csv out.csv [--quick]

Measures, on this machine: (1) batches of exact and approximate search in one index, and in services of 1, 2 and 4 shards whose
processes share the processors; (2) what the parts of the way cost: an actor's answer to nothing, the merge, the arrays' bytes;
(3) load of the HTTP endpoint by clients that each wait for their answer. Then a simulation takes the measured times of one
shard and of the way, and predicts the measured services (the check) and larger ones (the plan).
"""

import argparse
import csv
import json
import os
import pickle
import shutil
import statistics
import tempfile
import threading
import time
import urllib.request

import numpy as np

os.environ.update(RAY_prestart_worker_first_driver="0", RAY_enable_worker_prestart="0")

import ray  # noqa: E402

import rails_wgpu.ray  # noqa: E402
from rails_wgpu import Searcher  # noqa: E402
from rails_wgpu.ray import _answer  # noqa: E402

D, B, K = 64, 32, 100


@ray.remote(num_cpus=0)
class Echo:
    def answer(self, queries):
        return queries[:1, :1]


def timed(work, seconds):
    """Seconds of each run, after a first one."""
    work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times


def quantile(times, share):
    return float(np.quantile(times, share))


def simulate(shard_times, way, n_shards, n_processors, rng, n=20_000):
    """Seconds of batches that wait for the slowest of `n_shards` shards.

    A shard takes one of the measured times, drawn at random, as many times as long as shards share a processor; `way` (a, b):
    seconds of a batch, and of each shard that it is sent to.
    """
    share = max(1.0, n_shards / n_processors)
    slowest = rng.choice(shard_times, (n, n_shards)).max(axis=1) * share
    return way[0] + way[1] * n_shards + slowest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True)
    parser.add_argument("--quick", action="store_true", help="a trial whose numbers mean nothing")
    arguments = parser.parse_args()
    n, seconds = (20_000, 1.0) if arguments.quick else (200_000, 4.0)
    rng = np.random.default_rng(0)
    items, ids = rng.standard_normal((n, D)).astype(np.float32), np.arange(n)
    queries = rng.standard_normal((B, D)).astype(np.float32)
    rows = []

    def note(what, shards, times, **more):
        rows.append({
            "what": what, "items": n, "shards": shards, "p50_ms": round(quantile(times, 0.5) * 1e3, 3),
            "p99_ms": round(quantile(times, 0.99) * 1e3, 3), "runs": len(times), "load": round(os.getloadavg()[0], 1), **more,
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)

    folder = tempfile.mkdtemp()
    try:
        np.savez(f"{folder}/items.npz", id=ids, embedding=items)
        ray.init(num_cpus=8, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
        processors = os.cpu_count() or 1
        os.environ["RAYON_NUM_THREADS"] = "1"
        # One thread, as a replica has.
        for name, batch in (("batch of 32", queries), ("one query", queries[:1])):
            single = Searcher.from_embeddings(ids, items, device="cpu")
            note(f"one index, {name}, 1 thread", 0, timed(lambda: single.search(batch, K), seconds))
        shard_times = {}
        for shards in (1, 2, 4):
            size = Searcher.from_embeddings(ids[: n // shards], items[: n // shards], device="cpu")
            shard_times[shards] = timed(lambda: size.search(queries, K), seconds)
            note("one shard alone, batch of 32, 1 thread", shards, shard_times[shards])
        echo = Echo.remote()
        empty = timed(lambda: ray.get(echo.answer.remote(queries)), seconds / 2)
        note("an actor that does nothing, asked from here", 0, empty)
        found = single.search(queries, K)
        for shards in (1, 2, 4, 64):
            answers = [_answer.Answer(*found, np.empty(0, np.float32), None, n)] * shards
            note("merge", shards, timed(lambda: _answer.merge(answers, K), 0.5))
        sent = len(pickle.dumps(_answer.Queries(queries, None, None, None), 5))
        received = len(pickle.dumps(_answer.Answer(*found, np.empty(0, np.float32), None, n), 5))
        note("bytes of a batch per shard", 1, [0.0], bytes_sent=sent, bytes_received=received)
        way = []
        for shards in (1, 2, 4):
            begin = time.perf_counter()
            rails_wgpu.ray.build(f"{folder}/items.npz", None, f"{folder}/index-{shards}", shards=shards)
            note("build", shards, [time.perf_counter() - begin])
            with rails_wgpu.ray.deploy(f"{folder}/index-{shards}", devices="cpu", batch_wait=0) as service:
                assert np.array_equal(service.search(queries, K)[0], found[0])
                times = timed(lambda: service.search(queries, K), seconds)
                note("service, batch of 32", shards, times)
                note("service, one query", shards, timed(lambda: service.search(queries[:1], K), seconds))
                work = statistics.median(shard_times[shards]) * max(1.0, shards / processors)
                way.append((shards, statistics.median(times) - work))
                if shards == 2:
                    load(service, queries, seconds, note)
        slope, base = np.polyfit(*zip(*way), 1)
        cost = (max(base, 0.0), max(slope, 0.0))
        print(f"way: {cost[0] * 1e3:.2f} ms a batch and {cost[1] * 1e3:.2f} ms a shard")
        for shards in (1, 2, 4):
            note("simulated service, batch of 32", shards, simulate(shard_times[shards], cost, shards, processors, rng).tolist())
        for shards in (16, 64, 256):
            # As many machines as it takes for a processor each; shards as large as the largest that was measured.
            note("simulated: a processor per shard", shards, simulate(shard_times[1], cost, shards, shards, rng).tolist())
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(arguments.csv, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def load(service, queries, seconds, note):
    """Clients of the endpoint that ask one query at a time."""
    body = json.dumps({"queries": queries[:1].tolist(), "k": K}).encode()
    with service.serve(port=0) as endpoint:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.token}"}
        for clients in (1, 8, 32):
            times, errors, end = [], [], time.perf_counter() + seconds

            def client():
                while time.perf_counter() < end:
                    begin = time.perf_counter()
                    try:
                        urllib.request.urlopen(urllib.request.Request(f"{endpoint.url}/search", body, headers), timeout=60).read()
                        times.append(time.perf_counter() - begin)
                    except OSError as error:
                        errors.append(str(error))

            threads = [threading.Thread(target=client) for _ in range(clients)]
            begin = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            per_second = len(times) / (time.perf_counter() - begin)
            note(f"HTTP, {clients} clients", 2, times or [0.0], per_second=round(per_second, 1), errors=len(errors))


if __name__ == "__main__":
    main()
