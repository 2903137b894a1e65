"""The right answers, in float64."""

import numpy as np

from inputs import GATE, ITEM, QUERY, UIDS


def silu(x):
    return x / (1 + np.exp(-x))


class Mixture:
    """Mixture-of-Logits by its formula."""

    def __init__(self, inputs):
        self.weights = {name: array.astype(np.float64) for name, array in inputs.state.items()}
        self.temperature, self.eps = inputs.settings["temperature"], inputs.settings["eps"]
        self.d_p = self.weights[f"{UIDS}0.weight"].shape[1]
        self.f, self.q = self.query_side(inputs.queries.astype(np.float64), inputs.users)

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def part(self, name, first, x):
        hidden, output = (f"{GATE}_{name}_partial_module.{index}" for index in (first, first + 2))
        return self.linear(output, silu(self.linear(hidden, x)))

    def normalised(self, components):
        return components / np.maximum(np.linalg.norm(components, axis=-1, keepdims=True), self.eps)

    def query_side(self, queries, users):
        hidden, gate = np.split(queries @ self.weights[f"{QUERY}.1._w"] + self.weights[f"{QUERY}.1._b"], 2, axis=-1)
        f = self.linear(f"{QUERY}.2", silu(hidden) * gate).reshape(len(queries), -1, self.d_p)
        table = self.weights[f"{UIDS}0.weight"]
        f = np.concatenate([f, table[users % (len(table) - 1) + 1][:, None]], axis=1)
        return self.normalised(f), self.part("query_only", 0, queries)

    def scores(self, query, items):
        """(n,): scores of raw items (n, D) for one query."""
        items = items.astype(np.float64)
        g = self.normalised(self.linear(f"{ITEM}.1", items).reshape(len(items), -1, self.d_p))
        z = np.matmul(self.f[query], g.transpose(0, 2, 1)).reshape(len(items), -1) / self.temperature
        gate = self.q[query] * self.part("item_only", 1, items) + self.part("qi", 1, z)
        weights = silu(gate)
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        return (weights * z).sum(-1) / weights.sum(-1)


def best(scores, k):
    """Positions of the k best, ties by position."""
    return np.lexsort((np.arange(len(scores)), -scores))[:k]


def truth(case, inputs, suggested=None):
    """(B, k): positions of the best items. `suggested` (B, m): positions that hold them for certain, which is far more than k
    by float32 scores; without them every item is scored."""
    k, items, queries = case["k"], inputs.items, inputs.queries
    rows = []
    mixture = Mixture(inputs) if case["kind"] == "mol" else None
    for query in range(len(queries)):
        positions = np.arange(len(items)) if suggested is None else np.sort(suggested[query])
        scores = []
        for part in np.array_split(positions, max(1, len(positions) // 8192)):
            if mixture:
                scores.append(mixture.scores(query, np.asarray(items[part])))
            else:
                scores.append(np.asarray(items[part]).astype(np.float64) @ queries[query].astype(np.float64))
        rows.append(positions[best(np.concatenate(scores), k)])
    return np.array(rows)


def recall(found, right):
    """Mean share of the right answers found."""
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found, right)]))
