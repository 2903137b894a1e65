"""Mixture-of-Logits in PyTorch, written from its formula: as the reference evaluates it, and as well as PyTorch can."""

import time

import numpy as np
import torch
import torch.nn.functional as F

from inputs import GATE, ITEM, QUERY, UIDS

# Items that the eager form scores at a time where more would not fit into memory.
EAGER_ITEMS = 100_000


class Mixture:
    """The similarity of some `Inputs`."""

    def __init__(self, inputs, device="cpu", dtype=torch.float32):
        self.place = {"device": device, "dtype": dtype}
        self.weights = {name: torch.tensor(array).to(**self.place) for name, array in inputs.state.items()}
        self.temperature, self.eps = inputs.settings["temperature"], inputs.settings["eps"]
        self.d_p = self.weights[f"{UIDS}0.weight"].shape[1]

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def part(self, name, first, x):
        return self.linear(f"{GATE}_{name}_partial_module.{first + 2}",
                           F.silu(self.linear(f"{GATE}_{name}_partial_module.{first}", x)))

    def normalised(self, components):
        return components / components.norm(dim=-1, keepdim=True).clamp(min=self.eps)

    def query_side(self, queries, users):
        """Components (B, P_Q, D_P) and gate part (B, L)."""
        hidden, gate = (queries @ self.weights[f"{QUERY}.1._w"] + self.weights[f"{QUERY}.1._b"]).chunk(2, dim=-1)
        f = self.linear(f"{QUERY}.2", F.silu(hidden) * gate).view(len(queries), -1, self.d_p)
        table = self.weights[f"{UIDS}0.weight"]
        f = torch.cat([f, table[users % (len(table) - 1) + 1][:, None]], dim=1)
        return self.normalised(f), self.part("query_only", 0, queries)

    def item_side(self, items):
        """Components (N, P_X, D_P) and gate part (N, L)."""
        g = self.linear(f"{ITEM}.1", items).view(len(items), -1, self.d_p)
        return self.normalised(g), self.part("item_only", 1, items)

    def mixture(self, z, q, x):
        """Scores (B, n) of logits z (B, n, L)."""
        gate = q * x + self.part("qi", 1, z)
        return (torch.softmax(gate * torch.sigmoid(gate), dim=-1) * z).sum(-1)

    def all_pairs(self, f, q, g, x):
        """Scores (B, n) of every query with every item."""
        z = torch.matmul(f.flatten(0, 1), g.flatten(0, 1).T).view(len(f), f.shape[1], len(g), g.shape[1])
        z = z.permute(0, 2, 1, 3).reshape(len(f), len(g), -1) / self.temperature
        return self.mixture(z, q[:, None], x[None])

    def candidates(self, f, q, g, x):
        """Scores (B, n) of every query with n items of its own: g (B, n, P_X, D_P), x (B, n, L)."""
        z = torch.matmul(f, g.flatten(1, 2).transpose(1, 2)).view(len(f), f.shape[1], *g.shape[1:3])
        return self.mixture(z.permute(0, 2, 1, 3).flatten(2) / self.temperature, q[:, None], x)


class Torch:
    """One way to answer a case. `best`: the item side is made once, scores are made chunk by chunk so that intermediate values
    stay in the cache, and the inner functions are compiled, wherever that is faster; else everything is as in the reference."""

    def __init__(self, case, inputs, best, device="cpu", dtype=torch.float32):
        self.case, self.best, self.notes = case, best, []
        self.place = {"device": device, "dtype": dtype}
        self.items = torch.tensor(np.asarray(inputs.items)).to(**self.place)
        self.queries = torch.tensor(np.asarray(inputs.queries)).to(**self.place)
        if case["kind"] == "mips":
            self.transposed = self.items.T
            return
        self.users = torch.tensor(inputs.users).to(device)
        self.mol = Mixture(inputs, device, dtype)
        with torch.inference_mode():
            # Both keep the components that first stages scan, as the reference does, in the format that is fast here.
            self.g, self.x = self.mol.item_side(self.items)
            self.mean = self.g.mean(1).contiguous()
            if case["algorithm"] == "exact" and not best:
                self.g = self.x = self.mean = None
            self.groups = [self.g[:, m].contiguous() for m in range(self.g.shape[1])] if "naive" in case else None
        if best:
            self.choose()

    def choose(self):
        """Compiled or not, and how many items at a time: whatever is fastest here. Compiling takes up to a minute for a shape, so
        only the two numbers of items that are best without it are tried with it."""
        exact = self.case["algorithm"] == "exact"
        plain = self.mol.all_pairs if exact else self.mol.candidates
        chunks = sorted({min(n, len(self.items)) for n in ((1024, 2048, 4096, 8192) if exact else (128, 256, 512, 1024))})
        trials = {("eager", chunk): self.fastest(plain, chunk) for chunk in chunks}
        functions = {"eager": plain}
        try:
            functions["torch.compile"] = torch.compile(plain, dynamic=False)
            for _, chunk in sorted(trials, key=trials.get)[:2]:
                trials["torch.compile", chunk] = self.fastest(functions["torch.compile"], chunk)
        except Exception as error:  # whatever its compiler is missing
            self.notes.append(f"torch.compile failed: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        name, self.chunk = min(trials, key=trials.get)
        self.function = functions[name]
        self.notes.append(f"{name}, {self.chunk} items at a time")

    @torch.inference_mode()
    def fastest(self, function, chunk):
        """Seconds of the fastest of three trials."""
        self.function, self.chunk = function, chunk
        self.trial()
        return min(self.timed(self.trial) for _ in range(3))

    def timed(self, work):
        started = time.perf_counter()
        work()
        self.finish()
        return time.perf_counter() - started

    def trial(self):
        f, q = self.mol.query_side(self.queries, self.users)
        if self.case["algorithm"] == "exact":
            return self.scan(f, q, 8192)
        return self.rescored(f, q, self.some(1024))

    def some(self, n):
        return torch.arange(n, device=self.queries.device).expand(len(self.queries), n) % len(self.items)

    def scan(self, f, q, n):
        """Scores (B, n) of the first items. A last chunk overlaps the one before it: compiled functions have one shape."""
        n = min(n, len(self.items))
        scores = torch.empty(len(f), n, **self.place)
        for first in range(0, n, self.chunk):
            first = min(first, n - min(self.chunk, n))
            part = slice(first, first + self.chunk)
            scores[:, part] = self.function(f, q, self.g[part], self.x[part])
        return scores

    def gathered(self, positions):
        return self.g[positions], self.x[positions]

    def rescored(self, f, q, positions):
        """Scores (B, n) of the items at `positions` (B, n)."""
        if not self.best:
            g, x = self.mol.item_side(self.items[positions.flatten()])
            shape = positions.shape
            return self.mol.candidates(f, q, g.view(*shape, *g.shape[1:]), x.view(*shape, -1))
        scores = torch.empty(positions.shape, **self.place)
        for first in range(0, positions.shape[1], self.chunk):
            first = max(0, min(first, positions.shape[1] - self.chunk))
            part = slice(first, first + self.chunk)
            scores[:, part] = self.function(f, q, *self.gathered(positions[:, part]))
        return scores

    def first_stage(self, f):
        """Positions (B, n) of the candidates, the same one possibly more than once."""
        n_queries, n_groups, _ = f.shape
        found = []
        if "naive" in self.case:
            for group in self.groups:
                products = f.flatten(0, 1) @ group.T
                found.append(products.topk(self.case["naive"], dim=1).indices.view(n_queries, -1))
        if "avg" in self.case:
            found.append((f.sum(1) @ self.mean.T).topk(self.case["avg"], dim=1).indices)
        return torch.cat(found, dim=1)

    @torch.inference_mode()
    def run(self):
        """Positions (B, k) of the best items."""
        k = self.case["k"]
        if self.case["kind"] == "mips":
            found = (self.queries @ self.transposed).topk(k, dim=1).indices
        else:
            f, q = self.mol.query_side(self.queries, self.users)
            found = self.exact(f, q, k) if self.case["algorithm"] == "exact" else self.approximate(f, q, k)
        self.finish()
        return found

    @torch.inference_mode()
    def shortlist(self, n):
        """Positions (B, n) of the best items by an exact search."""
        return self.exact(*self.mol.query_side(self.queries, self.users), n)

    def exact(self, f, q, k):
        if self.best:
            return self.scan(f, q, len(self.items)).topk(k, dim=1).indices
        parts = []
        for items in self.items.split(EAGER_ITEMS):
            parts.append(self.mol.all_pairs(f, q, *self.mol.item_side(items)))
        return torch.cat(parts, dim=1).topk(k, dim=1).indices

    def approximate(self, f, q, k):
        positions = self.first_stage(f).sort(dim=1).values
        scores = self.rescored(f, q, positions)
        if "naive" in self.case:
            scores[:, 1:].masked_fill_(positions[:, 1:] == positions[:, :-1], -32767.0)
        return positions.gather(1, scores.topk(k, dim=1).indices)

    def finish(self):
        if self.queries.device.type == "cuda":
            torch.cuda.synchronize()

    def ids(self, found):
        return found.cpu().numpy()
