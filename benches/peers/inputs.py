"""What all programs are given: arrays in a folder, which every process maps."""

import ast
import csv
import json
import math
import re
from pathlib import Path

import numpy as np

PREFIX = "_ndp_module."
QUERY = "_query_embeddings_fn._query_emb_proj_module"
ITEM = "_item_embeddings_fn._item_emb_proj_module"
GATE = "_gating_fn."
UIDS = "_query_embeddings_fn._uid_embeddings_"

# 8x4x64 components, D = 50, H = 128, one uid table: the MovieLens-1M model of arXiv 2407.15462.
D, P_Q, P_X, D_P, H, QUERY_HIDDEN, UID_ROWS = 50, 8, 4, 64, 128, 512, 6040
SETTINGS = {"temperature": 0.05, "dot_product_l2_norm": True, "eps": 1e-6, "gating_combination": "glu_silu",
            "query_nonlinearity": "swiglu"}


class Inputs:
    """`items` (N, D) and `queries` (B, D), float32; for Mixture-of-Logits also `users` (B,), `state` (name to array) and
    `settings`."""

    def __init__(self, folder):
        load = lambda name: np.load(folder / f"{name}.npy", mmap_mode="r")
        self.folder = folder
        self.items, self.queries = load("items"), load("queries")
        self.settings, self.state, self.users = None, None, None
        if (folder / "settings.json").exists():
            self.settings = json.loads((folder / "settings.json").read_text())
            self.users = np.asarray(load("users"))
            self.state = dict(np.load(folder / "state.npz"))


def save(folder, items, queries, users=None, state=None, settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "items.npy", np.ascontiguousarray(items, dtype=np.float32))
    np.save(folder / "queries.npy", np.ascontiguousarray(queries, dtype=np.float32))
    if state is not None:
        np.save(folder / "users.npy", np.asarray(users, dtype=np.int64))
        np.savez(folder / "state.npz", **state)
        (folder / "settings.json").write_text(json.dumps(settings))
    return Inputs(folder)


def flat(folder, n, batch, dim=64):
    """Normally distributed items and queries, for inner products."""
    rng = np.random.default_rng(1)
    return save(folder, rng.standard_normal((n, dim), dtype=np.float32), rng.standard_normal((batch, dim), dtype=np.float32))


def random_mol(folder, n, batch):
    """Random weights, items and queries of the shape above."""
    rng = np.random.default_rng(2)
    state = {}

    def linear(name, n_in, n_out, bias=True):
        state[f"{name}.weight"] = rng.standard_normal((n_out, n_in), dtype=np.float32) / math.sqrt(n_in)
        if bias:
            state[f"{name}.bias"] = 0.1 * rng.standard_normal(n_out, dtype=np.float32)

    state[f"{QUERY}.1._w"] = rng.standard_normal((D, 2 * QUERY_HIDDEN), dtype=np.float32) / math.sqrt(D)
    state[f"{QUERY}.1._b"] = np.zeros((1, 2 * QUERY_HIDDEN), np.float32)
    linear(f"{QUERY}.2", QUERY_HIDDEN, (P_Q - 1) * D_P)
    linear(f"{ITEM}.1", D, P_X * D_P)
    state[f"{UIDS}0.weight"] = rng.standard_normal((UID_ROWS + 1, D_P), dtype=np.float32)
    for part, first, n_in, last_bias in (("query_only", 0, D, False), ("item_only", 1, D, False), ("qi", 1, P_Q * P_X, True)):
        linear(f"{GATE}_{part}_partial_module.{first}", n_in, H)
        linear(f"{GATE}_{part}_partial_module.{first + 2}", H, P_Q * P_X, last_bias)
    items = rng.standard_normal((n, D), dtype=np.float32)
    queries = rng.standard_normal((batch, D), dtype=np.float32)
    return save(folder, items, queries, np.arange(1, batch + 1), state, SETTINGS)


def read_safetensors(path):
    """Every tensor of a file by name."""
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    types = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32, "BOOL": np.bool_}
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def mol_state(tensors):
    """The weights of the similarity alone, without the prefixes of what is around it."""
    similarity = {name.split(PREFIX, 1)[1]: tensor for name, tensor in tensors.items() if PREFIX in name}
    return {name: tensor.astype(np.float32) for name, tensor in similarity.items()}


def bench_file(folder, path, n, batch):
    """Weights, items and queries of a bench file (docs/BENCHMARKS.md); more items than it has: as in `tiled`."""
    tensors = read_safetensors(path)
    queries, users = tensors["queries"][:batch], tensors["user_ids"][:batch]
    return save(folder, tiled(tensors["items"], n), queries, users, mol_state(tensors), SETTINGS)


def gin_settings(path):
    """The settings of a similarity in a .gin file."""
    found = dict(re.findall(r"^create_mol_interaction_module\.(\w+) = (.*)$", Path(path).read_text(), re.M))
    found = {name: ast.literal_eval(value) for name, value in found.items()}
    names = {"gating_combination": "gating_combination_type"}
    return {name: found.get(names.get(name, name), default) for name, default in SETTINGS.items()}


def tiled(rows, n):
    """The first `n` rows; where there are not so many, all of them and then random ones of them, each with noise half as strong
    as the table varies, as `rails-bench index build --items random:N` makes them."""
    if n <= len(rows):
        return rows[:n]
    rng = np.random.default_rng(3)
    more = rows[rng.integers(0, len(rows), n - len(rows))]
    noise = rng.uniform(-1, 1, more.shape).astype(np.float32)
    scale = 0.5 * math.sqrt(3 * float(np.mean(np.square(rows, dtype=np.float64))))
    return np.concatenate([rows, more + np.float32(scale) * noise])


def trained(folder, checkpoint, config, dataset, n, batch):
    """A trained model's similarity and items, and queries that its encoder makes of the first histories of a sequence CSV."""
    from rails_wgpu import History, Searcher

    tensors = read_safetensors(checkpoint)
    state = mol_state(tensors)
    table = next(tensor for name, tensor in tensors.items() if name.endswith("_item_emb.weight"))
    histories = []
    csv.field_size_limit(1 << 30)
    with open(dataset, newline="") as file:
        for row in csv.DictReader(file):
            items = [int(id) for id in row["sequence_item_ids"].split(",")]
            times = [int(float(time)) for time in row["sequence_timestamps"].split(",")]
            # The last event is what is to be found, and its time is that of the request.
            histories.append(History(items[:-1], times[:-1], now=times[-1], user_id=int(row["user_id"])))
            if len(histories) == batch:
                break
    searcher = Searcher.from_checkpoint(checkpoint, config=config, item_ids=range(1, 101), device="cpu")
    queries = searcher.encode(histories)
    users = [history.user_id for history in histories]
    return save(folder, tiled(table[1:], n), queries, users, state, gin_settings(config))
