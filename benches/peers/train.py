"""Times a training step of this crate beside PyTorch's on the same users, in turn, each program in a process of its own.

    cargo build --release && pip install numpy torch && python benches/peers/train.py --out target/peers/out

Writes train.csv: medians of the steps of each program and their ratio to ours. The histories are as long as MovieLens-1M's; for the
time of a step nothing else in them matters. `--users` is the batch: PyTorch as the reference trains holds the values of every negative
until the way back, some 0.25 GB for a user of ml-1m/hstu-mol, so compare that with a small batch.
"""

import argparse
import csv
import datetime
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
N_ITEMS = 3952
COLUMNS = ["date", "machine", "threads", "model", "users", "positions", "negatives", "program", "ms", "ratio", "peak MB", "runs", "notes",
           "commit", "versions"]


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("target/peers/out"))
    parser.add_argument("--program", type=Path, default=Path("target/release/rails-bench"))
    parser.add_argument("--models", default="sasrec,hstu,hstu-mol", help="of ml-1m (sasrec,hstu,hstu-mol)")
    parser.add_argument("--users", type=int, default=128, help="users of the batch (128)")
    parser.add_argument("--negatives", type=int, default=128, help="negatives of a position (128)")
    parser.add_argument("--peers", default="reference,best", help="ways to write it in PyTorch (reference,best)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="steps of each program (5)")
    parser.add_argument("--machine", default=os.environ.get("RAILS_MACHINE", ""))
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder, args):
    """The batch: a data set with one batch of users for ours, the same histories packed for PyTorch."""
    rng = np.random.default_rng(1)
    # MovieLens-1M: at least 20 events, half of the users have more than 96, the mean is 165.
    lengths = np.clip(rng.lognormal(np.log(96), 1.0, args.users).astype(int), 20, 2000)
    arrays = {name: [] for name in ("ids", "targets", "times", "next_times")}
    rows = []
    for user, n in enumerate(lengths, 1):
        ids, times = rng.integers(1, N_ITEMS + 1, n), np.sort(rng.integers(10**9, 10**9 + 10**7, n))
        rows.append([user - 1, user, *(",".join(map(str, values)) for values in (ids, np.ones(n, int), times))])
        # The last event is the test's; of the others the last 201, each but the first a target.
        ids, times = ids[:-1][-201:], times[:-1][-201:]
        for name, values in (("ids", ids[:-1]), ("targets", ids[1:]), ("times", times[:-1]), ("next_times", times[1:])):
            arrays[name].append(values)
    packed = {name: np.concatenate(values) for name, values in arrays.items()}
    n_positions = len(packed["ids"])
    packed.update(users=np.arange(1, args.users + 1), lengths=np.array([len(values) for values in arrays["ids"]]),
                  negatives=rng.integers(1, N_ITEMS + 1, (n_positions, args.negatives)))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, values in packed.items():
        np.save(folder / f"{name}.npy", values)
    with open(folder / "data.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow("index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps".split(","))
        out.writerows(rows)
    (folder / "items.txt").write_text("".join(f"{id}\n" for id in range(1, N_ITEMS + 1)))
    return n_positions


class Ours:
    """Some steps of `rails-bench train`; what it says of its own steps."""

    def __init__(self, model, folder, args, n_positions, more=()):
        self.command = [args.program, "train", "-q", "--preset", f"ml-1m/{model}", "--dataset", folder / "data.csv", "--item-ids",
                        folder / "items.txt", "--negatives", str(args.negatives), "--batch-size", str(args.users), "--max-steps", "4",
                        "--eval-every", "1000", "--threads", str(args.threads), "-o", folder / "run", *more]
        self.folder, self.n_positions, self.notes, self.peak = folder / "run", n_positions, "", 0

    def step(self):
        """Seconds of the median of three steps; the first one, whose arrays are new, is left out."""
        shutil.rmtree(self.folder, ignore_errors=True)
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{self.command[0]} failed")
        self.peak = max(self.peak, usage.ru_maxrss / 1024)
        with open(self.folder / "metrics.csv") as file:
            rates = [float(row["positions_per_second"]) for row in csv.DictReader(file)]
        return self.n_positions / statistics.median(rates[1:])


class Peer:
    """A process that takes a step of PyTorch when it is told to."""

    def __init__(self, way, model, folder, args):
        command = [sys.executable, __file__, "--worker", f"{way},{model},{folder}", "--threads", str(args.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | TUNED)
        self.notes, self.peak = self.answer().get("notes", ""), 0

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("PyTorch's process ended (out of memory?): take fewer --users")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.peak = answer["peak"]
        return answer["seconds"]


def work(args):
    """The loop of a peer's process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    from train_torch import Batch, Settings, Trainer

    torch.set_num_threads(args.threads)
    way, model, folder = args.worker.split(",", 2)
    trainer = Trainer(Settings(model, items=N_ITEMS), Batch.load(Path(folder)), best=way == "best")
    trainer.step()
    print(json.dumps({"notes": "; ".join(trainer.notes)}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        trainer.step()
        seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak": peak}), file=answers, flush=True)


def main():
    args = options()
    if args.worker:
        return work(args)
    import torch

    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in args.models.split(","):
        folder = args.out.absolute() / f"train-{model}"
        n_positions = make(folder, args)
        programs = {"ours": Ours(model, folder, args, n_positions)}
        if model == "hstu-mol":
            # What the best PyTorch does: an item of the batch has one dropout mask. By default, ours has eight.
            programs["ours, one mask"] = Ours(model, folder, args, n_positions, ("--item-dropout-masks", "1"))
        for way in filter(None, args.peers.split(",")):
            programs[f"torch {way}"] = Peer(way, model, folder, args)
        seconds = {name: [] for name in programs}
        for _ in range(args.runs):
            for name, program in programs.items():
                seconds[name].append(program.step())
        ours = statistics.median(seconds["ours"])
        for name, program in programs.items():
            median = statistics.median(seconds[name])
            rows.append([datetime.date.today(), args.machine, args.threads, f"ml-1m/{model}", args.users, n_positions, args.negatives, name,
                         f"{1e3 * median:.0f}", f"{median / ours:.2f}", f"{program.peak:.0f}", args.runs, program.notes, args.commit,
                         f"torch {torch.__version__}"])
            print(*rows[-1][3:11], flush=True)
        for name, program in programs.items():
            if isinstance(program, Peer):
                program.process.stdin.close()
                program.process.wait()
    with open(args.out / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


main()
