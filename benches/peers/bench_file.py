"""Makes a bench file (docs/BENCHMARKS.md) of random weights, items and queries. Needs NumPy.

    python3 benches/peers/bench_file.py FILE --items N [--queries 32]
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import inputs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.file.parent) as folder:
        made = inputs.random_mol(Path(folder), args.items, args.queries)
        tensors = {inputs.PREFIX + name: array for name, array in made.state.items()}
        tensors |= {"items": made.items, "queries": made.queries}
        tensors |= {"user_ids": made.users.astype(np.int64), "item_ids": np.arange(args.items, dtype=np.int64)}
        write(args.file, tensors)


def write(path, tensors):
    header, end = {}, 0
    for name, array in sorted(tensors.items()):
        begin, end = end, end + array.nbytes
        kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in sorted(tensors.items()):
            file.write(np.ascontiguousarray(array).data)


main()
