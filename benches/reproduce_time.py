"""Estimates how long `rails-bench reproduce ml-1m` takes, row by row, from epochs over a tenth of its users.

    cargo build --release && python benches/reproduce_time.py --out target/reproduce

The histories are as long as MovieLens-1M's. Each preset of ml-1m is trained for some epochs with an evaluation after each; the medians are
scaled to all users and to the preset's number of epochs. On a machine that others use too, look at the processor's time: divided
by the number of threads, it is what an epoch takes where nothing else runs and no thread waits for another. Writes
reproduce.csv. Needs Python and NumPy.
"""

import argparse
import csv
import datetime
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

MODELS = ("sasrec", "gru4rec", "bert4rec", "hstu", "hstu-large", "hstu-mol")
USERS, N_ITEMS = 6040, 3952
COLUMNS = ["date", "machine", "threads", "model", "users", "positions", "seconds of an epoch", "processor seconds of an epoch", "runs",
           "epochs of the preset", "hours", "processor hours / threads", "commit"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--program", type=Path, default=Path("target/release/rails-bench"))
    parser.add_argument("--users", type=int, default=USERS // 10)
    parser.add_argument("--runs", type=int, default=3, help="epochs that are timed (3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--machine", default=os.environ.get("RAILS_MACHINE", ""))
    parser.add_argument("--commit", default="unknown")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make(args.out, args.users)
    rows = []
    for model in args.models.split(","):
        wall, processor, positions, epochs = measured(model, args)
        scale = USERS / args.users
        hours = [seconds * scale * epochs / 3600 for seconds in (wall, processor / args.threads)]
        rows.append([datetime.date.today(), args.machine, args.threads, f"ml-1m/{model}", USERS, round(positions * scale),
                     f"{wall * scale:.1f}", f"{processor * scale:.1f}", args.runs, epochs, *(f"{value:.2f}" for value in hours), args.commit])
        print(*rows[-1][3:], flush=True)
    with open(args.out / "reproduce.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def make(folder, n_users):
    rng = np.random.default_rng(1)
    # MovieLens-1M: at least 20 events, half of the users have more than 96, the mean is 165.
    lengths = np.clip(rng.lognormal(np.log(96), 1.0, n_users).astype(int), 20, 2000)
    with open(folder / "data.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow("index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps".split(","))
        for user, n in enumerate(lengths, 1):
            ids, times = rng.integers(1, N_ITEMS + 1, n), np.sort(rng.integers(10**9, 10**9 + 10**7, n))
            out.writerow([user - 1, user, *(",".join(map(str, values)) for values in (ids, np.ones(n, int), times))])
    (folder / "items.txt").write_text("".join(f"{id}\n" for id in range(1, N_ITEMS + 1)))


def measured(model, args):
    """Medians of seconds and of processor seconds of an epoch, its positions, and the preset's number of epochs."""
    run = args.out / f"run-{model}"
    shutil.rmtree(run, ignore_errors=True)
    command = [args.program, "train", "-q", "--preset", f"ml-1m/{model}", "--dataset", args.out / "data.csv", "--item-ids",
               args.out / "items.txt", "--device", "cpu", "--threads", str(args.threads), "-o", run]
    marks = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        # A line for each epoch begins with its number. The first one, whose arrays are new, only starts the clock.
        if line[:8].strip().replace(".", "").isdigit():
            marks.append((time.monotonic(), processor_seconds(process.pid)))
            if len(marks) > args.runs:
                break
    process.kill()
    process.wait()
    if len(marks) <= args.runs:
        raise SystemExit(f"{command[0]} failed")
    config = json.loads((run / "config.json").read_text())
    with open(run / "metrics.csv") as file:
        steps = int(next(csv.DictReader(file))["step"])
    assert steps == -(-args.users // config["train"]["batch_size"])
    differences = [[b - a for a, b in zip(one, other)] for one, other in zip(marks, marks[1:])]
    wall, processor = (statistics.median(values) for values in zip(*differences))
    return wall, processor, positions(args.out / "data.csv", config), config["train"]["epochs"]


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def positions(dataset, config):
    most = config["model"]["max_sequence_length"]
    with open(dataset) as file:
        return sum(min(row["sequence_item_ids"].count(",") - 1, most) for row in csv.DictReader(file))


if __name__ == "__main__":
    main()
