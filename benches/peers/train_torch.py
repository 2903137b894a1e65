"""A training step in PyTorch, written from the formulas: as the reference trains, and as well as PyTorch can."""

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6


class Settings:
    """One of the published MovieLens-1M configurations."""

    def __init__(self, model, dim=50, length=200, items=3952, users=6040):
        self.model, self.dim, self.length, self.items, self.users = model, dim, length, items, users
        self.padded = length + 11
        self.blocks, self.heads, self.head_dim = (2, 1, dim) if model == "sasrec" else (8, 2, 25)
        self.mol = model == "hstu-mol"
        self.temperature = 1.0 if self.mol else 0.05
        self.weight_decay = 0.0 if model == "sasrec" else 1e-3
        self.dropout = 0.2
        self.mi_weight, self.uid_weight = (1e-3, 0.1) if self.mol else (0.0, 0.0)
        self.p_q, self.p_x, self.d_p, self.gate_hidden, self.query_hidden = 8, 4, 64, 128, 512
        self.mol_temperature, self.gate_dropout, self.uid_dropout, self.item_dropout = 0.05, 0.2, 0.5, 0.1


class Batch:
    """Packed histories: ids, times, next ids and times (R), users (B), lengths (B), negatives (R, n)."""

    PACKED = "ids", "targets", "times", "next_times", "negatives"

    def __init__(self, arrays):
        for name, values in arrays.items():
            setattr(self, name, values)
        self.width = int(self.lengths.max())
        self.mask = torch.arange(self.width)[None] < self.lengths[:, None]
        self.rows = self.mask.flatten().nonzero()[:, 0]
        self.user_rows = torch.repeat_interleave(self.users, self.lengths)

    @classmethod
    def load(cls, folder):
        names = "users", "lengths", *cls.PACKED
        return cls({name: torch.from_numpy(np.load(folder / f"{name}.npy").astype(np.int64)) for name in names})

    def of_users(self, users):
        """Those of some users, in this order."""
        starts = self.lengths.cumsum(0) - self.lengths
        rows = torch.cat([torch.arange(int(starts[user]), int(starts[user] + self.lengths[user])) for user in users])
        packed = {name: getattr(self, name)[rows] for name in self.PACKED}
        return Batch({"users": self.users[users], "lengths": self.lengths[users], **packed})

    def padded(self, packed):
        """(B, width, ...)"""
        out = packed.new_zeros(self.mask.numel(), *packed.shape[1:]).index_copy(0, self.rows, packed)
        return out.view(*self.mask.shape, *packed.shape[1:])

    def unpadded(self, padded):
        return padded[:, : self.width].flatten(0, 1)[self.rows]


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


class HstuLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        width = s.heads * s.head_dim
        self.uvqk = nn.Parameter(torch.randn(s.dim, 4 * width) * 0.02)
        self.pos = nn.Parameter(torch.randn(2 * s.padded - 1) * 0.02)
        self.ts = nn.Parameter(torch.randn(129) * 0.02)
        self.out = nn.Linear(width, s.dim)

    def forward(self, x, mask, causal, buckets, relative):
        s = self.s
        u, v, q, k = F.silu(norm(x) @ self.uvqk).chunk(4, dim=-1)
        heads = lambda t: t.view(*t.shape[:2], s.heads, s.head_dim).transpose(1, 2)
        a = heads(q) @ heads(k).transpose(-1, -2) + (self.pos[relative] + self.ts[buckets])[:, None]
        a = F.silu(a) / s.padded * causal
        attended = (a @ heads(v)).transpose(1, 2).flatten(2)
        return self.out(F.dropout(u * norm(attended), s.dropout)) + x


class SasrecLayer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.q, self.kv = nn.Linear(s.dim, s.dim), nn.Linear(s.dim, 2 * s.dim)
        self.out, self.up, self.down = (nn.Linear(s.dim, s.dim) for _ in range(3))

    def forward(self, x, mask, causal, buckets, relative):
        q = F.layer_norm(x, x.shape[-1:], eps=1e-8)
        k, v = self.kv(x).chunk(2, dim=-1)
        a = self.q(q) @ k.transpose(-1, -2) / math.sqrt(self.s.dim)
        a = F.dropout(torch.softmax(a.masked_fill(causal[0] == 0, -math.inf), dim=-1), self.s.dropout)
        y = F.layer_norm(q + self.out(a @ v), x.shape[-1:], eps=1e-8)
        hidden = F.dropout(F.relu(self.up(y)), self.s.dropout)
        return F.dropout(self.down(hidden), self.s.dropout) + y


class Model(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.items = nn.Embedding(s.items + 1, s.dim)
        self.positions = nn.Parameter(torch.randn(s.padded, s.dim) * math.sqrt(1 / s.dim))
        self.layers = nn.ModuleList((SasrecLayer if s.model == "sasrec" else HstuLayer)(s) for _ in range(s.blocks))
        if not s.mol:
            return
        n_logits = s.p_q * s.p_x
        self.query_glu = nn.Linear(s.dim, 2 * s.query_hidden)
        self.query_out = nn.Linear(s.query_hidden, (s.p_q - 1) * s.d_p)
        self.uids = nn.Embedding(s.users + 1, s.d_p)
        self.item_out = nn.Linear(s.dim, s.p_x * s.d_p)
        part = lambda n_in, bias: nn.Sequential(nn.Linear(n_in, s.gate_hidden), nn.SiLU(), nn.Linear(s.gate_hidden, n_logits, bias=bias))
        self.gate_query, self.gate_item, self.gate_cross = part(s.dim, False), part(s.dim, False), part(n_logits, True)

    def encode(self, batch, length):
        """(R, D): the state after each event; the padded matrices are `length` wide."""
        s = self.s
        x = F.dropout(self.items(batch.ids) * math.sqrt(s.dim), 0.0)
        positions = batch.rows % batch.width
        x = batch.padded(F.dropout(x + self.positions[positions], s.dropout))
        beyond = length - batch.width
        x = F.pad(x, (0, 0, 0, beyond))
        at = torch.arange(length)
        causal = (at[:, None] >= at[None]).float()[None, None]
        times, following = (F.pad(batch.padded(packed), (0, beyond)) for packed in (batch.times, batch.next_times))
        buckets = ((following[:, :, None] - times[:, None]).abs().clamp(min=1).float().log() / 0.301).long().clamp(0, 128)
        relative = s.padded - 1 + at[None] - at[:, None]
        mask = F.pad(batch.mask, (0, beyond))
        for layer in self.layers:
            x = layer(x, mask, causal, buckets, relative) * mask[..., None]
        x = batch.unpadded(x)
        return norm(x) if s.mol else F.normalize(x, dim=-1, eps=EPS)

    def query_side(self, states, users):
        """Components (P, P_Q, D_P), gate part (P, L) and uid embeddings."""
        s = self.s
        hidden, gate = self.query_glu(states).chunk(2, dim=-1)
        f = self.query_out(F.silu(hidden) * gate).view(len(states), -1, s.d_p)
        uid = self.uids(users % s.users + 1)
        f = torch.cat([f, F.dropout(uid, s.uid_dropout)[:, None]], dim=1)
        return F.normalize(f, dim=-1, eps=EPS), self.gate_query(states), uid

    def item_side(self, embeddings):
        """Components (..., P_X, D_P) and gate part (..., L)."""
        s = self.s
        g = self.item_out(F.dropout(embeddings, s.item_dropout)).view(*embeddings.shape[:-1], s.p_x, s.d_p)
        return F.normalize(g, dim=-1, eps=EPS), self.gate_item(embeddings)

    def pairs(self, f, q, g, x):
        """Scores (P, n) and gate probabilities of each position with n items of its own: g (P, n, P_X, D_P), x (P, n, L)."""
        z = torch.matmul(f, g.flatten(1, 2).transpose(1, 2)).view(len(f), f.shape[1], *g.shape[1:3])
        z = z.permute(0, 2, 1, 3).flatten(2) / self.s.mol_temperature
        gate = q[:, None] * x + self.gate_cross(z)
        p = F.dropout(torch.softmax(F.silu(gate), dim=-1), self.s.gate_dropout)
        p = p / p.sum(-1, keepdim=True).clamp(min=EPS)
        return (p * z).sum(-1), p


def cross_entropy(positive, negative, same, temperature):
    logits = torch.cat([positive, negative.masked_fill(same, -5e4 * temperature)], dim=1) / temperature
    return -torch.log_softmax(logits, dim=1)[:, 0]


def auxiliary(s, p, uid):
    mean = p.mean(0)
    mi = (mean * (mean + EPS).log()).sum() - (p * (p + EPS).log()).sum(-1).mean()
    return s.mi_weight * mi + s.uid_weight * (uid**2).sum(-1).mean()


class Trainer:
    """`best`: users of about one length together, in matrices no wider than the longest history; the item side once per distinct item;
    pairs some positions at a time with their gradients taken at once; compiled if that is faster. Else as the reference: everything
    padded, each negative an item of its own, all values kept for the way back."""

    def __init__(self, s, batch, best, seed=0):
        torch.manual_seed(seed)
        self.s, self.best, self.notes = s, best, []
        self.model = Model(s)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8,
                                           weight_decay=s.weight_decay, fused=best or None)
        self.batch = batch.of_users(batch.lengths.argsort()) if best else batch
        targets, negatives = self.batch.targets[:, None], self.batch.negatives
        self.distinct, self.index = torch.unique(torch.cat([targets, negatives], 1), return_inverse=True)
        self.same = negatives == targets
        self.choices = {"groups": 1, "chunk": 64, "scores": "gathered", "encoder": "eager", "pairs": "eager"}
        if best:
            self.choose()

    def choose(self):
        """Whatever is fastest here, one thing after the other."""
        def seconds():
            self.step()
            started = time.perf_counter()
            self.step()
            return time.perf_counter() - started

        more = {"groups": (4, 8), "chunk": (16, 256, 1024) if self.s.mol else (256, 2048), "scores": () if self.s.mol else ("dense",),
                "encoder": ("compiled",), "pairs": ("compiled",)}
        self.compiled = {"encoder": torch.compile(self.model.encode, dynamic=False), "pairs": torch.compile(self.chunk_loss, dynamic=True)}
        self.groups = {}
        least = seconds()
        for name, values in more.items():
            for value in values:
                before, self.choices[name] = self.choices[name], value
                try:
                    found = seconds()
                except Exception as error:  # whatever the compiler is missing
                    self.notes.append(f"{name} {value} failed: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
                    found = math.inf
                if found < least:
                    least = found
                else:
                    self.choices[name] = before
        self.notes.append(", ".join(f"{name} {value}" for name, value in self.choices.items()))

    def call(self, name, eager):
        return eager if self.choices[name] == "eager" else self.compiled[name]

    def states(self):
        """(R, D), of groups of users."""
        n = self.choices["groups"]
        if n not in self.groups:
            self.groups[n] = [self.batch.of_users(users) for users in torch.arange(len(self.batch.users)).chunk(n)]
        encode = self.call("encoder", self.model.encode)
        return torch.cat([encode(group, group.width) for group in self.groups[n]])

    def chunk_loss(self, *inputs):
        return self.pair_loss(*inputs) if self.s.mol else self.dot_loss(*inputs)

    def dot_loss(self, states, items, index, same, scores):
        """The sum over some positions."""
        if scores == "dense":
            scores = (states @ items.T).gather(1, index)
        else:
            scores = torch.matmul(items[index], states[:, :, None])[:, :, 0]
        return cross_entropy(scores[:, :1], scores[:, 1:], same, self.s.temperature).sum()

    def pair_loss(self, f, q, g, x, index, same):
        """Sums over some positions: the loss, the gate's probabilities of the positives and their entropies."""
        scores, p = self.model.pairs(f, q, g[index], x[index])
        loss = cross_entropy(scores[:, :1], scores[:, 1:], same, self.s.temperature).sum()
        positive = p[:, 0]
        return loss, positive.sum(0), (positive * (positive + EPS).log()).sum()

    def step(self):
        """One step; the loss."""
        self.optimizer.zero_grad()
        loss = self.best_loss() if self.best else self.reference_loss()
        self.optimizer.step()
        return loss

    def reference_loss(self):
        s, b, m = self.s, self.batch, self.model
        states = m.encode(b, s.padded)
        positive, negative = m.items(b.targets)[:, None], m.items(b.negatives)
        if s.mol:
            f, q, uid = m.query_side(states, b.user_rows)
            first, p = m.pairs(f, q, *m.item_side(positive))
            f, q, _ = m.query_side(states, b.user_rows)
            others, _ = m.pairs(f, q, *m.item_side(negative))
            extra = auxiliary(s, p[:, 0], uid)
        else:
            score = lambda items: (states[:, None] * F.normalize(items, dim=-1, eps=EPS)).sum(-1)
            first, others, extra = score(positive), score(negative), 0.0
        loss = cross_entropy(first, others, self.same, s.temperature).mean() + extra
        loss.backward()
        return float(loss.detach())

    def best_loss(self):
        s, b, m = self.s, self.batch, self.model
        states = self.states()
        embeddings = m.items(self.distinct)
        n, total, chunk = len(states), 0.0, self.choices["chunk"]
        chunk_loss = self.call("pairs", self.chunk_loss)
        if not s.mol:
            sides = states, F.normalize(embeddings, dim=-1, eps=EPS)
            leaves = [side.detach().requires_grad_() for side in sides]
            for at in range(0, n, chunk):
                rows = slice(at, at + chunk)
                loss = chunk_loss(leaves[0][rows], leaves[1], self.index[rows], self.same[rows], self.choices["scores"]) / n
                loss.backward()
                total += float(loss.detach())
            torch.autograd.backward(sides, [leaf.grad for leaf in leaves])
            return total
        f, q, uid = m.query_side(states, b.user_rows)
        sides = (f, q, *m.item_side(embeddings))
        leaves = [side.detach().requires_grad_() for side in sides]
        mean = torch.zeros(s.p_q * s.p_x)
        # The mutual information needs the mean of all positives: a first pass over these alone.
        with torch.no_grad():
            for at in range(0, n, 4096):
                rows = slice(at, at + 4096)
                g, x = leaves[2][self.index[rows, :1]], leaves[3][self.index[rows, :1]]
                mean += m.pairs(leaves[0][rows], leaves[1][rows], g, x)[1].sum((0, 1)) / n
        slope = (mean + EPS).log() + mean / (mean + EPS)
        for at in range(0, n, chunk):
            rows = slice(at, at + chunk)
            loss, p, entropy = chunk_loss(leaves[0][rows], leaves[1][rows], leaves[2], leaves[3], self.index[rows], self.same[rows])
            part = (loss + s.mi_weight * ((p * slope).sum() - entropy)) / n
            part.backward()
            total += float(loss.detach()) / n
        extra = s.uid_weight * (uid**2).sum(-1).mean()
        torch.autograd.backward([extra, *sides], [None, *(leaf.grad for leaf in leaves)])
        return total + float(extra.detach())
