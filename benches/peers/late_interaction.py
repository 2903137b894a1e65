"""Late interaction (MaxSim) beside PyTorch and fast-plaid, on random and on clustered token embeddings.

    python benches/peers/late_interaction.py --out late_interaction.csv [--items 100000] [--seconds 20]

Items have 32 to 180 vectors of 128 numbers of length 1. `random`: in random directions, and so are queries. `clustered`: an item is about
some topics (`--topics`), and each vector is a topic's direction with noise; a query has vectors of an item with more noise. Every program
runs in a process of its own, one after the other and in rounds, since the vectors of all items take 5 GB; all have the same number of
threads. Recall is the share of the exact best k, those of our exact f32 search.

PyTorch: padded (n, 180, 128) a chunk at a time times all query vectors, the maximum over an item's vectors, the sum over a query's
(`torch padded`); and with chunks of items of about one length (`torch by length`). fast-plaid with several numbers of probed lists and
of fully scored items.

`ms` is the median time of a batch, `cpu ms` that of the processor time of all threads divided by their number: what a batch takes if no thread
waits. Where the machine has other work, only that tells anything.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

DIM, SHORTEST, LONGEST = 128, 32, 180
CHUNK = 5_000


def lengths(n):
    return np.random.default_rng(1).integers(SHORTEST, LONGEST + 1, n)


def normalised(rows):
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


class Data:
    """Items a chunk at a time, always the same ones."""

    def __init__(self, kind, n, topics):
        self.kind, self.lengths = kind, lengths(n)
        if kind == "clustered":
            self.topics = normalised(np.random.default_rng(2).standard_normal((topics, DIM), dtype=np.float32))

    def chunk(self, first):
        """Items from `first` on: their vectors, one item after the other, and how many each has."""
        random = np.random.default_rng([3, first])
        own = self.lengths[first : first + CHUNK]
        rows = random.standard_normal((own.sum(), DIM), dtype=np.float32)
        if self.kind == "clustered":
            # Eight topics an item.
            about = random.integers(0, len(self.topics), (len(own), 8))
            which = about[np.repeat(np.arange(len(own)), own), random.integers(0, 8, own.sum())]
            rows *= 0.06
            rows += self.topics[which]
        return normalised(rows), own

    def chunks(self):
        return (self.chunk(first) for first in range(0, len(self.lengths), CHUNK))

    def queries(self, n, length=32):
        random = np.random.default_rng(4)
        rows = random.standard_normal((n, length, DIM), dtype=np.float32)
        if self.kind == "clustered":
            vectors, own = self.chunk(0)
            starts = np.concatenate([[0], np.cumsum(own)])
            for query in range(n):
                item = random.integers(0, len(own))
                picked = random.integers(starts[item], starts[item + 1], length)
                rows[query] = vectors[picked] + 0.08 * rows[query]
        return normalised(rows.reshape(-1, DIM)).reshape(n, length, DIM)


def timed(search, batches, seconds, threads):
    """Median milliseconds of a batch: on the clock, and of processor time per thread."""
    search(batches[0])
    times = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < until and len(times) < 25):
        started, used = time.perf_counter(), time.process_time()
        search(batches[len(times) % len(batches)])
        times.append((time.perf_counter() - started, (time.process_time() - used) / threads))
    return (np.median(times, axis=0) * 1e3).tolist()


def ours(args, data):
    import rails_wgpu

    searcher, first = None, 0
    started = time.perf_counter()
    for rows, own in data.chunks():
        ids, items = np.arange(first, first + len(own)), np.split(rows, np.cumsum(own)[:-1])
        first += len(own)
        if searcher is None:
            options = dict(device="cpu", dtype=args.dtype, n_lists=args.lists)
            searcher = rails_wgpu.Searcher.from_token_embeddings(ids, items, **options)
        else:
            searcher.add_token_embeddings(ids, items)
    searcher.compact()
    print(f"built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    for algorithm in args.algorithms.split(","):
        yield algorithm, lambda batch: searcher.search(list(batch), args.k, algorithm=algorithm)[0]


def torch_padded(args, data, by_length=False):
    import torch

    torch.set_num_threads(args.threads)
    order = np.argsort(data.lengths, kind="stable") if by_length else np.arange(len(data.lengths))
    vectors = np.concatenate([rows for rows, _ in data.chunks()])
    starts = np.concatenate([[0], np.cumsum(data.lengths)])
    chunks = []
    for first in range(0, len(order), args.torch_chunk):
        items = order[first : first + args.torch_chunk]
        longest = data.lengths[items].max() if by_length else LONGEST
        padded = torch.zeros(len(items), int(longest), DIM)
        mask = torch.zeros(len(items), int(longest), 1)
        for row, item in enumerate(items):
            n = data.lengths[item]
            padded[row, :n] = torch.from_numpy(vectors[starts[item] : starts[item] + n])
            mask[row, n:] = -torch.inf
        chunks.append((torch.from_numpy(items), padded, mask))
    del vectors

    def search(batch):
        with torch.inference_mode():
            queries = torch.from_numpy(batch.reshape(-1, DIM)).T.contiguous()
            scores = torch.empty(len(batch), len(order))
            for items, padded, mask in chunks:
                products = torch.matmul(padded, queries).add_(mask)
                scores[:, items] = products.amax(1).view(len(items), len(batch), -1).sum(-1).T
            return scores.topk(args.k).indices.numpy()

    yield "exact", search


def fast_plaid(args, data):
    import torch
    from fast_plaid import search as plaid

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        index = plaid.FastPlaid(index=folder, device="cpu")
        documents = []
        for rows, own in data.chunks():
            documents.extend(torch.from_numpy(item) for item in np.split(rows, np.cumsum(own)[:-1]))
        started = time.perf_counter()
        index.create(documents_embeddings=documents)
        print(f"built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        del documents
        for setting in args.plaid.split(","):
            probes, full = map(int, setting.split("_"))

            def search(batch):
                found = index.search(
                    queries_embeddings=torch.from_numpy(batch), top_k=args.k, n_ivf_probe=probes, n_full_scores=full
                )
                return np.array([[i for i, _ in row] + [-1] * (args.k - len(row)) for row in found])

            yield f"probes {probes}, scores {full}", search


PROGRAMS = {
    "ours": ours,
    "torch padded": torch_padded,
    "torch by length": lambda args, data: torch_padded(args, data, True),
    "fast-plaid": fast_plaid,
}


def work(args):
    data = Data(args.data, args.items, args.topics)
    queries = data.queries(args.queries)
    for algorithm, search in PROGRAMS[args.program](args, data):
        for size in map(int, args.batches.split(",")):
            batches = [queries[i : i + size] for i in range(0, len(queries) - size + 1, size)]
            ms, cpu = timed(search, batches, args.seconds, args.threads)
            found = np.concatenate([search(batch) for batch in batches[: max(1, 32 // size)]])
            print(json.dumps({"algorithm": algorithm, "batch": size, "ms": ms, "cpu ms": cpu, "found": found.tolist()}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="late_interaction.csv")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", default="random,clustered")
    parser.add_argument("--programs", default="ours,torch padded,torch by length")
    parser.add_argument("--topics", type=int, default=2_000)
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--algorithms", default="exact")
    parser.add_argument("--lists", type=int, help="centroids of `centroids:K`; 0: as many as suit the number of vectors")
    parser.add_argument("--plaid", default="8_512,8_4096,32_4096,64_16384")
    parser.add_argument("--torch-chunk", type=int, default=500)
    parser.add_argument("--machine", default="unknown")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--program")
    args = parser.parse_args()
    if args.program:
        return work(args)
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads), OMP_NUM_THREADS=str(args.threads))
    # Threads of PyTorch that wait should not count.
    environment["OMP_WAIT_POLICY"] = "passive"
    environment |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
    rows = []
    for data in args.data.split(","):
        exact = {}
        for turn in range(args.rounds):
            for program in args.programs.split(","):
                command = [sys.executable, __file__, *sys.argv[1:], "--data", data, "--program", program]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
                for line in done.stdout.splitlines():
                    row = json.loads(line)
                    found = row.pop("found")
                    if program == "ours" and row["algorithm"] == "exact":
                        exact[row["batch"]] = found
                    right = exact.get(row["batch"])
                    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(found, right)] if right else []
                    row |= {"data": data, "program": program, "turn": turn, "recall": np.mean(shares) if shares else ""}
                    print(row, flush=True)
                    rows.append(row)
    fields = ["machine", "threads", "items", "data", "program", "dtype", "algorithm", "batch", "k", "turn", "ms", "cpu ms", "recall", "commit"]
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for row in rows:
            dtype = args.dtype if row["program"] == "ours" else ""
            common = {"machine": args.machine, "threads": args.threads, "items": args.items, "k": args.k, "commit": args.commit}
            writer.writerow(common | {"dtype": dtype} | row)


if __name__ == "__main__":
    main()
