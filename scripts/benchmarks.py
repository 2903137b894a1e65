#!/usr/bin/env python3
"""Writes docs/BENCHMARKS.md, the picture docs/recall.svg and the table of speed in README.md from the newest files of
benches/record/ and the text of scripts/benchmarks.md.

    scripts/benchmarks.py            writes them
    scripts/benchmarks.py --check    says what is not as it would be written, and fails

A record is called DATE-MACHINE-KIND.csv; `{{KIND MACHINE}}` in the text becomes its tables. Of a work that was
measured beside others more than once, the median run counts. Needs Python 3.9 and nothing else.
"""
import csv
import math
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benches" / "record"


def newest(kind, machine):
    files = sorted(RECORD.glob(f"*-{machine}-{kind}.csv"))
    if not files:
        sys.exit(f"benches/record has no file *-{machine}-{kind}.csv")
    return files[-1]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def source(path, command):
    date = "-".join(path.name.split("-")[:3])
    commits = list(dict.fromkeys(row["commit"] for row in rows(path) if row.get("commit")))
    at = f", commit{'s' * (len(commits) > 1)} {', '.join(commits)}" if commits else ""
    return f"{'Compiled' if 'isa' in command else 'Measured'} on {date}{at} by `{command}`: [all rows](../benches/record/{path.name})."


def number(value):
    """Three digits."""
    value = float(value)
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def times(value):
    value = float(value)
    return f"{value:.0f}x" if value >= 9.95 else f"{value:.1f}x"


def count(value):
    value = int(value)
    for unit, name in ((1_000_000, " million"), (1_000, ",000")):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)


def table(head, lines):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def threads(by_thread, show):
    """Both numbers of threads, one behind the other."""
    return " / ".join(show(by_thread[n]) for n in sorted(by_thread))


# ---- recall against latency


def algorithms(path):
    found = rows(path)
    exact = float(next(row for row in found if row["algorithm"] == "exact")["ms_per_batch_p50"])
    head = ["algorithm", "recall@100", "HR@10", "NDCG@10", "scored per query", "ms/batch p50", "p99", "speed against exact"]
    lines = []
    for row in found:
        p50 = float(row["ms_per_batch_p50"])
        lines.append([row["algorithm"], *(f"{float(row[name]):.4f}" for name in ("recall", "hr@10", "ndcg@10")),
                      f"{float(row['scored_per_query']):.0f}", f"{p50:.1f}", f"{float(row['ms_per_batch_p99']):.1f}",
                      f"{exact / p50:.1f}x"])
    yield from table(head, lines)


# ---- beside other programs

EAGER, TUNED, BEST = "torch eager", "torch eager, malloc tuned", "torch best"


def peers_of(path):
    """work -> (its row, peer -> (ms, ratio, recall)), of the run with the median of our times"""
    runs = {}
    for row in rows(path):
        run = runs.setdefault(row["case"], {}).setdefault(float(row["ours ms"]), {"row": row, "peers": {}})
        run["peers"][row["peer"]] = (row["peer ms"], row["ratio"], row["peer recall"])
    return {case: times[sorted(times)[len(times) // 2]] for case, times in runs.items()}


def beside(work, peer):
    if peer not in work["peers"]:
        return ""
    ms, ratio, _ = work["peers"][peer]
    return f"{number(ms)} ({times(ratio)})"


def peers(path):
    works = peers_of(path)
    ours = lambda work: number(work["row"]["ours ms"])
    random = [work for name, work in works.items() if not name.startswith(("mips", "tangent"))]
    yield from table(["work, ms", "here", "PyTorch eager", "the same, malloc tuned", "PyTorch best"],
                     [[work["row"]["ours"], ours(work), *(beside(work, peer) for peer in (EAGER, TUNED, BEST))] for work in random])
    yield ""
    flat = [work for name, work in works.items() if name.startswith("mips")]
    lines = []
    for work in flat:
        others = [work["peers"].get(peer, ("", "", "")) for peer in ("ours f16", "ours int8")]
        lines.append([f"B = {work['row']['batch']}", ours(work), *(number(other[0]) if other[0] else "" for other in others),
                      *(beside(work, peer) for peer in ("torch matmul + topk", "faiss IndexFlatIP", "numpy", "usearch"))])
    yield from table(["inner products, ms", "here", "f16", "int8", "PyTorch", "faiss IndexFlatIP", "NumPy", "usearch"], lines)
    yield ""
    trained = [work for name, work in works.items() if name.startswith("tangent")]
    yield from table(["trained model, ms", "recall@100", "here", "PyTorch eager", "PyTorch best", "here, exact"],
                     [[f"{work['row']['ours']}, N = {count(work['row']['items'])}", f"{float(work['row']['ours recall']):.3f}",
                       ours(work), *(beside(work, peer) for peer in (EAGER, BEST, "ours exact"))] for work in trained])


def train_step(path):
    """A step of training; memory of the whole process."""
    steps = {}
    for row in rows(path):
        steps.setdefault((row["model"], row["users"], row["positions"], row["negatives"]), {})[row["program"]] = row
    lines = []
    for (model, users, positions, negatives), programs in steps.items():
        others = [programs.get(name) for name in ("torch reference", "torch best")]
        one_mask = programs.get("ours, one mask")
        here = number(programs["ours"]["ms"]) + (f" (one mask: {number(one_mask['ms'])})" if one_mask else "")
        memory = lambda row: f"{float(row['peak MB']):.0f} MB" if row else ""
        lines.append([f"`{model}`, {users} users, {positions} positions, {negatives} negatives", here,
                      *(f"{number(row['ms'])} ({times(row['ratio'])})" if row else "" for row in others),
                      " / ".join(filter(None, map(memory, [programs["ours"], *others])))])
    yield from table(["a step, ms", "here", "PyTorch as the reference", "PyTorch best", "peak memory, in this order"], lines)


def reproduce_time(path):
    """Hours of each row of the published table, by the time of processors: the machine may have had other work."""
    lines, found = [], rows(path)
    for row in found:
        seconds = float(row["processor seconds of an epoch"]) / int(row["threads"])
        lines.append([f"`{row['model']}`", number(seconds), row["epochs of the preset"], number(row["processor hours / threads"])])
    lines.append(["all rows", "", "", number(sum(float(row["processor hours / threads"]) for row in found))])
    yield from table(["row", "an epoch with its evaluation, s", "epochs", "all of them, h"], lines)


# ---- share of the machine's peak


def peak(path):
    kernels = {}
    for row in rows(path):
        key = (row["kernel"], row["shape"], row["dtype"])
        kernels.setdefault(key, {})[int(row["threads"])] = row
    percent = lambda name: lambda row: f"{100 * float(row[name]):.0f}"
    value = lambda name: lambda row: number(row[name])
    lines = [[f"`{kernel}`", shape, dtype, threads(runs, value("GFLOP/s")), threads(runs, percent("share of peak GFLOP/s")) + " %",
              threads(runs, value("GB/s")), threads(runs, percent("share of peak GB/s")) + " %"]
             for (kernel, shape, dtype), runs in kernels.items()]
    yield from table(["kernel", "shape", "dtype", "GFLOP/s", "of peak", "GB/s", "of peak"], lines)


def machine_peak(path):
    found = {}
    for row in rows(path):
        found.setdefault(int(row["threads"]), []).append((float(row["peak GFLOP/s"]), float(row["peak GB/s"])))
    said = []
    for n, runs in sorted(found.items()):
        bounds = [(min(column), max(column)) for column in zip(*runs)]
        gflops, gbytes = (f"{low:.0f} to {high:.0f}" for low, high in bounds)
        said.append(f"{n} thread{'s' * (n > 1)}: {gflops} GFLOP/s, {gbytes} GB/s")
    yield "What the machine gave in the same run: " + "; ".join(said) + "."


# ---- curves


def curve(found, column, title, show):
    """Time of a batch along one column; cells have 1 / 2 threads where both were measured."""
    steps = sorted({int(row[column]) for row in found})
    by_algorithm = {}
    for row in found:
        cell = by_algorithm.setdefault(row["algorithm"], {}).setdefault(int(row[column]), {})
        cell[int(row["threads"])] = row["ms_per_batch_p50"]
    lines = []
    for algorithm, cells in by_algorithm.items():
        lines.append([algorithm, *(threads(cells[step], number) for step in steps)])
    yield from table([title, *(show(step) for step in steps)], lines)
    yield ""


def scaling(path):
    found = rows(path)
    of = lambda name: [row for row in found if row["curve"] == name]
    yield from curve(of("items"), "items", "N (B = 32, k = 100)", count)
    yield from curve(of("items-large"), "items", "N (int8, raw form)", count)
    yield from curve(of("batches"), "batch", "B (N = 20,000)", str)
    yield from curve(of("results"), "k", "k (N = 100,000)", count)
    measured = sorted({int(row["threads"]) for row in found})
    yield f"Milliseconds of a batch. Two numbers are those of {' and '.join(map(str, measured))} threads, one is that of {measured[-1]}."


def first_stage(path):
    cells, steps = {}, []
    for row in rows(path):
        size, batch = (int(re.search(rf"\b{letter}=(\d+)", row["shape"])[1]) for letter in "NB")
        steps.append(size)
        cells.setdefault((batch, int(row["threads"])), {})[size] = row["median ms"]
    steps = sorted(set(steps))
    yield from table(["N, ms", *map(count, steps)],
                     [[f"B = {batch}, {n} thread{'s' * (n > 1)}", *(number(line[step]) for step in steps)]
                      for (batch, n), line in sorted(cells.items())])


def late_interaction(path):
    cells = {}
    for row in rows(path):
        key = (row["data"], int(row["items"]), int(row["batch"]), row["program"], row["algorithm"])
        cells.setdefault(key, []).append(row)
    lines = []
    for (data, items, batch, program, algorithm), found in cells.items():
        ms = sorted(float(row["cpu ms"]) for row in found)[len(found) // 2]
        exact = [float(row["cpu ms"]) for key, others in cells.items() for row in others
                 if key == (data, items, batch, "ours", "exact")]
        recall = found[0]["recall"]
        lines.append([data, count(items), str(batch), program, algorithm, number(ms),
                      times(ms / sorted(exact)[len(exact) // 2]) if exact else "", f"{float(recall):.3f}" if recall else ""])
    yield from table(["data", "items", "B", "program", "algorithm", "ms", "of ours, exact", "recall"], lines)


# ---- what a compiler makes of the kernels

# Kernels that have another name in the record from before.
EARLIER_NAMES = {"softmax_attention": "causal_attention"}

def compiled(path):
    """Generations side by side: the useful share, and what kernels take."""
    before = {tuple(row[name] for name in ("generation", "kernel", "shape", "dtype")): row["useful share"]
              for row in rows(newest("isa-before", "mesa-amd"))}
    generations, kernels = [], {}
    for row in rows(path):
        generation = row["generation"]
        if generation not in generations:
            generations.append(generation)
        if row["useful share"]:
            kernels.setdefault((row["kernel"], row["shape"], row["dtype"]), {})[generation] = row
    percent = lambda share: f"{100 * float(share):.0f} %" if share else "-"
    lines = []
    for key, found in kernels.items():
        earlier = (EARLIER_NAMES.get(key[0], key[0]), *key[1:])
        shares = [f"{percent(before.get((name, *earlier)))} / **{percent(found[name]['useful share'])}**" for name in generations]
        each = lambda column: " / ".join(found[name][column] for name in generations)
        lines.append([f"`{key[0]}`", *key[1:], *shares, each("VGPRs"), each("waves per SIMD")])
    yield from table(["kernel", "shape", "dtype", *generations, "VGPRs", "waves"], lines)


# ---- the picture and the table of the README

CURVES = [  # name, what belongs to it, colour, shape
    ("tangent", r"tangent:\d+", "#0072b2", "circle"),
    ("cascade, distilled", r"(cascade|distilled):.*", "#cc79a7", "diamond"),
    ("h-indexer", r"h-indexer:.*", "#009e73", "triangle"),
    ("avg", r"avg:.*", "#d55e00", "square"),
    ("naive, comb", r"(naive|comb):.*", "#7f7f7f", "cross"),
    ("exact", r"exact", "#000000", "star"),
]


def marker(shape, x, y, colour):
    points = {
        "diamond": [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)],
        "triangle": [(0, -5.5), (5, 4), (-5, 4)],
        "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        "star": [(6.5 * r * math.sin(a), -6.5 * r * math.cos(a)) for a, r in
                 ((i * math.pi / 5, 1 if i % 2 == 0 else 0.45) for i in range(10))],
    }
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
    if shape == "cross":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2.2"/>'
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points[shape])}" fill="{colour}"/>'


def picture(path):
    """Recall (each nine as far from the one before) over milliseconds of a batch (logarithmic)."""
    found = [(row["algorithm"], float(row["recall"]), float(row["ms_per_batch_p50"])) for row in rows(path)]
    width, height, left, right, top, bottom = 720, 400, 62, 150, 36, 48
    low, high, exact_row = 5.0, 220.0, 30
    nines = lambda recall: -math.log10(1 - recall)
    y0, y1, least, most = height - bottom, top + exact_row, nines(0.5), nines(0.999)
    x_of = lambda ms: left + (width - left - right) * (math.log(ms / low) / math.log(high / low))
    y_of = lambda recall: top if recall >= 1 else y0 - (y0 - y1) * ((nines(recall) - least) / (most - least))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           f'<text x="{left}" y="18" font-size="13" font-weight="bold">Recall of the exact top 100 and time of a batch of 32 queries'
           '</text>']
    for recall in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0):
        y = y_of(recall)
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{f"{recall:.3f}".rstrip("0").rstrip(".")}</text>')
    for ms in (5, 10, 20, 50, 100, 200):
        x = x_of(ms)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y0}" stroke="#dddddd"/>')
        out.append(f'<text x="{x:.1f}" y="{y0 + 18}" text-anchor="middle">{ms}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle">milliseconds per batch</text>')
    out.append(f'<text transform="translate(14 {(y0 + top) / 2}) rotate(-90)" text-anchor="middle">recall@100</text>')
    for place, (name, belongs, colour, shape) in enumerate(CURVES):
        points = sorted((ms, recall) for algorithm, recall, ms in found if re.fullmatch(belongs, algorithm) and recall >= 0.5)
        if name in ("tangent", "avg", "h-indexer"):
            line = " ".join(f"{x_of(ms):.1f},{y_of(recall):.1f}" for ms, recall in points)
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out += [marker(shape, x_of(ms), y_of(recall), colour) for ms, recall in points]
        y = top + 16 + 22 * place
        out.append(marker(shape, width - right + 22, y, colour))
        out.append(f'<text x="{width - right + 34}" y="{y + 4}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])


def speed():
    """Ours in milliseconds, and how many times that the others take."""
    machines = [("Xeon", "sapphire-rapids-2-cores"), ("EPYC", "epyc-naples-2-cores")]
    found = {name: peers_of(newest("peers", machine)) for name, machine in machines}
    peers = [EAGER, TUNED, BEST, "faiss IndexFlatIP"]
    names = ["PyTorch eager", "tuned", "best", "faiss"]
    head = ["milliseconds"] + [column for name, _ in machines for column in (f"{name}: here", *names)]
    works = {"inner products, B = 1": r"mips .*\bB=1$", "inner products, B = 32": r"mips .*\bB=32$"}
    works = {**{name: rf"{name}\b.*" for name in ("exact", "naive:50", "avg:500", "comb:50_500")},
             "tangent, N = 100,000, recall .99": r"tangent:\d+ N=100000", **works}
    lines = []
    for title, pattern in works.items():
        line = [title]
        for name, _ in machines:
            work = next(work for case, work in found[name].items() if re.fullmatch(pattern, case))
            of = {**work["peers"]}
            of[BEST] = of.get(BEST) or of.get("torch matmul + topk")
            line.append(number(work["row"]["ours ms"]))
            line += [times(of[peer][1]) if of.get(peer) else "" for peer in peers]
        lines.append(line)
    return "\n".join(table(head, lines))


TABLES = {
    "algorithms": (algorithms, None),
    "peers": (peers, "benches/peers/run.sh"),
    "train": (train_step, "benches/peers/train.py"),
    "reproduce": (reproduce_time, "benches/reproduce_time.py"),
    "peak": (peak, "cargo bench --bench peak"),
    "machine": (machine_peak, None),
    "scaling": (scaling, "benches/scaling.sh"),
    "late-interaction": (late_interaction, "benches/peers/late_interaction.py"),
    "isa": (compiled, "scripts/check-isa.sh"),
    "first-stage": (first_stage, 'cargo bench --bench peak -- "first stage 100M"'),
}
KINDS = {"machine": "peak", "algorithms": "video-algorithms"}


def document():
    def fill(match):
        kind, machine = match[1].split()
        path = newest(KINDS.get(kind, kind), machine)
        make, command = TABLES[kind]
        lines = list(make(path))
        if command:
            lines += ["", source(path, command)]
        return "\n".join(lines)

    text = (ROOT / "scripts" / "benchmarks.md").read_text()
    return "<!-- Written by scripts/benchmarks.py: change scripts/benchmarks.md or benches/record/ -->\n" + \
        re.sub(r"\{\{(.+?)\}\}", fill, text)


def readme():
    text = (ROOT / "README.md").read_text()
    return re.sub(r"(<!-- speed: [^\n]*-->\n).*?(<!-- end -->)", lambda match: match[1] + speed() + "\n" + match[2], text, flags=re.S)


def main():
    made = {"docs/BENCHMARKS.md": document(), "README.md": readme(),
            "docs/recall.svg": picture(newest("video-algorithms", "epyc-milan-2-cores"))}
    check = sys.argv[1:] == ["--check"]
    if not check and sys.argv[1:]:
        sys.exit(__doc__)
    wrong = []
    for name, text in made.items():
        path = ROOT / name
        if check:
            if not path.exists() or path.read_text() != text:
                wrong.append(name)
        else:
            path.write_text(text)
    if wrong:
        sys.exit(f"{', '.join(wrong)}: not what scripts/benchmarks.py writes")


main()
