"""Runs all programs of a case in turn, batch by batch, each in a process of its own, and writes a table.

See `run.sh`, which sets everything up. One row for each program but the first of a case, which is ours: both medians, their
ratio, and the recall of both against the exact answer in float64.
"""

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import inputs
from exact import recall, truth

HERE = Path(__file__).parent
# Keeps the pages that PyTorch's large temporary arrays lie in; asking the system for them anew takes two thirds of the time.
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
# Above so many items the exact answer is looked for among those that PyTorch finds best in float32.
ALL_IN_F64 = 150_000
SHORTLIST = 400
# Threads of libraries spin a while after their work; nobody else should be measured then.
PAUSE = 0.05

COLUMNS = ["date", "machine", "threads", "case", "items", "batch", "k", "ours", "ours ms", "ours recall", "peer", "peer ms",
           "peer recall", "ratio", "runs", "notes", "commit", "versions"]


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("target/peers/out"))
    parser.add_argument("--threads", default="2", help="numbers of threads, separated by commas (2)")
    parser.add_argument("--cases", default="", help="only cases whose names begin with these words, separated by commas")
    parser.add_argument("--runs", type=int, default=21, help="most batches of each program (21)")
    parser.add_argument("--seconds", type=float, default=120, help="time for the batches of a case, 3 of each at least (120)")
    parser.add_argument("--bench-file", help="weights, items and queries for the cases with random weights; else seeded ones")
    parser.add_argument("--checkpoint", help="a trained model (.safetensors), for the tangent cases")
    parser.add_argument("--config", help="its .gin file")
    parser.add_argument("--dataset", help="its sequence CSV")
    parser.add_argument("--tangent", default="2000", help="numbers of candidates of the tangent cases (2000); recall should be .99 or more")
    parser.add_argument("--cuda", action="store_true", help="PyTorch on a CUDA device; ours, if it is there, on a GPU")
    parser.add_argument("--torch-only", action="store_true", help="without this crate: only the times of PyTorch")
    parser.add_argument("--items", default="", help="numbers of items of the exact case (100000)")
    parser.add_argument("--machine", default=os.environ.get("RAILS_MACHINE", ""), help="its name in the table")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--quick", action="store_true", help="a trial: few items, two runs")
    return parser.parse_args()


def cases(args):
    """Name, program of ours, peers, inputs and how to make them."""
    size = lambda n: min(n, 3000) if args.quick else n
    made = args.out / "inputs"
    torch_peers = ["torch cuda eager bf16", "torch cuda best", "torch cuda best bf16"] if args.cuda else []

    def mol(n, batch=32):
        folder = made / f"mol-{n}"
        if args.bench_file:
            return folder, lambda: inputs.bench_file(folder, args.bench_file, n, batch)
        return folder, lambda: inputs.random_mol(folder, n, batch)

    for n in [int(n) for n in args.items.split(",") if n] or [size(100_000)]:
        yield dict(name=f"exact N={n}", kind="mol", algorithm="exact", k=100, ours="ours", made=mol(n),
                   peers=torch_peers or ["torch eager", "torch eager, malloc tuned", "torch best"])
    n = size(100_000)
    for algorithm, parts in [("naive:50", {"naive": 50}), ("avg:500", {"avg": 500}),
                             ("comb:50_500", {"naive": 50, "avg": 500})]:
        yield dict(name=f"{algorithm} N={n}", kind="mol", algorithm=algorithm, k=100, ours="ours", made=mol(n), **parts,
                   peers=torch_peers or ["torch eager, malloc tuned", "torch best"])
    for n in [size(100_000), size(1_000_000) + args.quick]:
        if not (args.checkpoint and args.config and args.dataset):
            print("tangent: left out, it needs a trained model: --checkpoint, --config and --dataset", flush=True)
            break
        folder = made / f"trained-{n}"
        peers = torch_peers or ["torch eager", "torch best", "ours exact"]
        for candidates in args.tangent.split(","):
            make = lambda: inputs.trained(folder, args.checkpoint, args.config, args.dataset, n, 32)
            yield dict(name=f"tangent:{candidates} N={n}", kind="mol", algorithm=f"tangent:{candidates}",
                       torch_algorithm="exact", k=100, ours="ours", made=(folder, make), peers=peers)
    n = size(1_000_000)
    for batch in (1, 32):
        folder = made / f"mips-{n}-{batch}"
        yield dict(name=f"mips N={n} D=64 B={batch}", kind="mips", algorithm="mips", k=100, ours="ours",
                   made=(folder, lambda: inputs.flat(folder, n, batch)),
                   peers=torch_peers or ["torch matmul + topk", "faiss IndexFlatIP", "faiss IndexIVFFlat", "numpy", "usearch", "ours f16",
                                         "ours int8"])


class Worker:
    """A process that answers with one program."""

    def __init__(self, name, threads, args):
        count = str(threads)
        names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
        environment = {**os.environ, **{name: count for name in names}}
        environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str((args.out / "inductor").resolve()))
        if name in ("torch eager, malloc tuned", "torch best"):
            environment.update(TUNED)
        self.name, self.ended = name, False
        self.process = subprocess.Popen([sys.executable, str(HERE / "worker.py"), name, count], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def ask(self, **order):
        """The answer; raises RuntimeError with the program's own words."""
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or '{"error": "the process ended (out of memory?)"}')
        except BrokenPipeError:
            answer = {"error": "the process ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def answers(self, path):
        self.ask(do="answers", path=str(path))
        return np.load(path)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure(case, threads, args):
    """Times and answers of every program, and the notes on it; programs that fail are left out, and their words printed."""
    folder, make = case.pop("made")
    data = inputs.Inputs(folder) if (folder / "queries.npy").exists() else make()
    names = ([] if args.torch_only else [case.pop("ours")]) + case.pop("peers")
    plain = {key: value for key, value in case.items() if isinstance(value, (int, str))}
    if args.cuda:
        plain["device"] = "gpu"
    workers, notes = {}, {}
    for name in names:
        worker = Worker(name, threads, args)
        try:
            notes[name] = worker.ask(do="prepare", case=plain, inputs=str(folder))["notes"]
            worker.ask(do="run")
            workers[name] = worker
        except RuntimeError as error:
            print(f"  {name}: left out: {error}", flush=True)
            worker.end()
    times = {name: [] for name in workers}
    started, runs = time.monotonic(), 0
    most, least = (2, 2) if args.quick else (args.runs, 3)
    while workers and runs < most and (runs < least or time.monotonic() - started < args.seconds):
        order = list(workers)
        # Whoever is first once is second the next time.
        for name in order[runs % len(order) :] + order[: runs % len(order)]:
            time.sleep(PAUSE)
            times[name].append(workers[name].ask(do="run")["ms"])
        runs += 1
    found = {name: worker.answers(args.out / "answer.npy") for name, worker in workers.items()}
    suggested = None
    if plain["kind"] == "mol" and len(data.items) > ALL_IN_F64:
        name = next((name for name in workers if name in ("torch best", "torch cuda best")), None)
        if name:
            workers[name].ask(do="shortlist", n=plain["k"] + SHORTLIST)
            suggested = workers[name].answers(args.out / "answer.npy")
    for worker in workers.values():
        worker.end()
    right = right_answer(folder, plain, data, suggested)
    return data, times, {name: recall(ids, right) for name, ids in found.items()}, notes, runs


def right_answer(folder, case, data, suggested):
    """The exact answer, kept beside the inputs."""
    path = folder / f"truth-{case['k']}.npy"
    if not path.exists():
        np.save(path, truth(case, data, suggested))
    return np.load(path)


def machine():
    """The processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name")) + f", {os.cpu_count()} threads"
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def versions():
    found = []
    for name in ("torch", "faiss-cpu", "usearch", "numpy", "rails-wgpu"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join([f"python {platform.python_version()}", *found])


def main():
    args = options()
    args.out.mkdir(parents=True, exist_ok=True)
    # Of a run that was broken off, with other options perhaps.
    shutil.rmtree(args.out / "inputs", ignore_errors=True)
    name, chosen = args.machine or machine(), [part for part in args.cases.split(",") if part]
    rows = []
    for threads in [int(part) for part in args.threads.split(",")]:
        for case in cases(args):
            if chosen and not any(re.match(rf"{re.escape(part)}\b", case["name"]) for part in chosen):
                continue
            print(f"{case['name']}, {threads} threads", flush=True)
            ours = case["ours"]
            data, times, recalls, notes, runs = measure(case, threads, args)
            median = {name: statistics.median(values) for name, values in times.items()}
            own = median.get(ours)
            for peer in (name for name in times if name != ours):
                ratio = median[peer] / own if own else None
                rows.append({
                    "date": datetime.date.today().isoformat(), "machine": name, "threads": threads, "case": case["name"],
                    "items": len(data.items), "batch": len(data.queries), "k": case["k"],
                    "ours": case["algorithm"] if own else "", "ours ms": f"{own:.3f}" if own else "",
                    "ours recall": f"{recalls[ours]:.4f}" if own else "", "peer": peer, "peer ms": f"{median[peer]:.3f}",
                    "peer recall": f"{recalls[peer]:.4f}", "ratio": f"{ratio:.2f}" if ratio else "",
                    "runs": runs, "notes": "; ".join(notes[peer]), "commit": args.commit,
                    "versions": versions(),
                })
                beside = f"{own:9.2f} ms, recall {recalls[ours]:.4f} beside " if own else ""
                shown = f"{ratio:7.2f}x" if ratio else ""
                print(f"  {beside}{peer:28} {median[peer]:9.2f} ms, recall {recalls[peer]:.4f} {shown}"
                      f" {'; '.join(notes[peer])}", flush=True)
            with open(args.out / "peers.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    shutil.rmtree(args.out / "inputs", ignore_errors=True)
    (args.out / "answer.npy").unlink(missing_ok=True)
    print(args.out / "peers.csv")


main()
