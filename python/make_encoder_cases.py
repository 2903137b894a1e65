#!/usr/bin/env python3
"""Writes the reference cases of GRU4Rec and BERT4Rec to tests/oracle: small models with random weights, and what PyTorch's own modules
make of them; and to tests/oracle/train, for some, five steps of training with PyTorch's gradients.

    python/make_encoder_cases.py [FOLDER]

Needs PyTorch and nothing else. The same seed gives the same weights; results differ in their last bits between versions of PyTorch.

| case | semantics |
|---|---|
| tiny_gru4rec | RecBole 1.2.1: no biases, a dense layer on the last state |
| tiny_gru4rec_bias | `nn.GRU` with biases, items of the output in a table of their own with biases |
| tiny_bert4rec | RecBole 1.2.1: post-norm, normalised embeddings, an output head, item biases |
| tiny_bert4rec_prenorm | RecTools 0.19: pre-norm, positions from the last, scaled items; with the final norm of its SASRec |
| tiny_bert4rec_unbiased | BERT4Rec-VAE-Pytorch: pre-norm, unbiased deviations, GELU by tanh, positions from the last, an output layer |
"""
import csv
import json
import struct
import sys
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent.parent / "tests/oracle"
LENGTH, DIM, QUERIES, TOP = 12, 16, 8, 30
NEGATIVES, TEMPERATURE = 4, 0.5
# Trained cases, with their losses.
TRAINED = {"tiny_gru4rec_bias": "sampled_softmax", "tiny_bert4rec": "sampled_softmax", "tiny_gru4rec": "full_softmax",
           "tiny_bert4rec_prenorm": "full_softmax"}


class UnbiasedNorm(nn.LayerNorm):
    def forward(self, x):
        return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.bias


def gru4rec(hidden_dim, bias, dense, output=None):
    return {"encoder": {"type": "gru4rec", "num_layers": 2, "hidden_dim": hidden_dim, "bias": bias, "dense": dense},
            "output": output or {}}


def bert4rec(output=None, **changed):
    encoder = {"type": "bert4rec", "num_blocks": 2, "num_heads": 2, "ffn_hidden_dim": 24, "ffn_activation": "gelu",
               "norm_first": False, "embedding_norm": True, "final_norm": False, "layer_norm_eps": 1e-12,
               "layer_norm_unbiased": False, "item_scale": 1.0, "positions": "from_first", "output_head": True}
    assert set(changed) <= set(encoder)
    return {"encoder": encoder | changed, "output": output or {}}


PRE_NORM = {"norm_first": True, "embedding_norm": False, "positions": "from_last", "output_head": False}
CASES = {
    "tiny_gru4rec": gru4rec(24, False, True),
    "tiny_gru4rec_bias": gru4rec(DIM, True, False, {"separate": True, "bias": True}),
    "tiny_bert4rec": bert4rec({"separate": False, "bias": True}),
    "tiny_bert4rec_prenorm": bert4rec(**PRE_NORM, final_norm=True, layer_norm_eps=1e-5, item_scale=4.0),
    "tiny_bert4rec_unbiased": bert4rec({"separate": True, "bias": True}, **PRE_NORM, layer_norm_unbiased=True,
                                       layer_norm_eps=1e-6, ffn_activation="gelu_tanh"),
}


class Gru4rec(nn.Module):
    def __init__(self, c):
        super().__init__()
        layer = lambda n_in: nn.GRU(n_in, c["hidden_dim"], 1, bias=c["bias"], batch_first=True)
        self.layers = nn.ModuleList([layer(DIM), layer(c["hidden_dim"])])
        self.dense = nn.Linear(c["hidden_dim"], DIM) if c["dense"] else nn.Identity()

    def forward(self, x, is_row, tap):
        tap("preproc_out", x)
        for i, layer in enumerate(self.layers):
            x, _ = layer(x)
            tap(f"layer{i}.states", x)
        return x

    def output(self, states):
        return self.dense(states)

    def weights(self):
        for i, layer in enumerate(self.layers):
            for name, value in layer.named_parameters():
                yield "gru." + name.replace("_l0", f"_l{i}"), value
        for name, value in self.dense.named_parameters():
            yield "dense." + name, value


class Bert4rec(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, eps = c, c["layer_norm_eps"]
        norm = lambda: (UnbiasedNorm if c["layer_norm_unbiased"] else nn.LayerNorm)(DIM, eps=eps)
        activation = nn.GELU(approximate="tanh" if c["ffn_activation"] == "gelu_tanh" else "none")
        self.positions = nn.Parameter(torch.empty(LENGTH + 1, DIM))
        self.blocks = nn.ModuleList()
        for _ in range(c["num_blocks"]):
            block = nn.TransformerEncoderLayer(DIM, c["num_heads"], c["ffn_hidden_dim"], 0.0, activation, eps, True, c["norm_first"])
            block.norm1, block.norm2 = norm(), norm()
            self.blocks.append(block)
        self.embedding_norm = norm() if c["embedding_norm"] else nn.Identity()
        self.final_norm = norm() if c["final_norm"] else nn.Identity()
        self.head = nn.Sequential(nn.Linear(DIM, DIM), nn.GELU(), norm()) if c["output_head"] else nn.Identity()

    def forward(self, x, is_row, tap):
        lengths, places = is_row.sum(1, keepdim=True), torch.arange(x.shape[1])
        if self.c["positions"] == "from_last":
            places = (lengths - 1 - places).clamp(min=0)
        x = self.embedding_norm(x * self.c["item_scale"] + self.positions[places])
        tap("preproc_out", x)
        for i, block in enumerate(self.blocks):
            x = block(x, src_key_padding_mask=~is_row)
            tap(f"layer{i}.block_out", x)
        return x

    def output(self, states):
        return self.head(self.final_norm(states))

    def weights(self):
        names = [("self_attn.", "attention."), ("linear1.", "ffn.0."), ("linear2.", "ffn.1."),
                 ("norm1.", "attention_norm."), ("norm2.", "ffn_norm.")]
        yield "position_embedding.weight", self.positions
        for i, block in enumerate(self.blocks):
            for name, value in block.named_parameters():
                own, ours = next(pair for pair in names if name.startswith(pair[0]))
                yield f"blocks.{i}.{ours}{name[len(own):]}", value
        for part in ("embedding_norm", "final_norm"):
            for name, value in getattr(self, part).named_parameters():
                yield f"{part}.{name}", value
        for name, value in self.head.named_parameters():
            yield f"head.{name.replace('0.', 'dense.').replace('2.', 'norm.')}", value


class Case:
    """A model, and its weights by their names in a checkpoint."""

    def __init__(self, name, model_config, n_rows):
        torch.manual_seed(sum(map(ord, name)))
        encoder, output = model_config["encoder"], {"separate": False, "bias": False} | model_config["output"]
        self.config = {"item_embedding_dim": DIM, "max_sequence_length": LENGTH, "gr_output_length": 0,
                       "user_embedding_norm": "none", "item_l2_norm": False, "l2_norm_eps": 1e-6, "encoder": encoder,
                       "similarity": {"type": "dot_product"}, "output": output}
        self.is_bert, self.n_rows = encoder["type"] == "bert4rec", n_rows
        # `.train()`, without any dropout: the fast path of inference knows nothing of other layer norms.
        self.model = (Bert4rec if self.is_bert else Gru4rec)(encoder).train()
        self.table = nn.Parameter(torch.empty(n_rows + self.is_bert, DIM))
        self.weights = {"item_embedding.weight": self.table, **dict(self.model.weights())}
        if output["separate"]:
            self.weights["output.weight"] = nn.Parameter(torch.empty(n_rows, DIM))
        if output["bias"]:
            self.weights["output.bias"] = nn.Parameter(torch.empty(n_rows))
        for key, value in self.weights.items():
            around = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            nn.init.normal_(value, around, 0.25 if value.ndim > 1 else 0.1)

    def states(self, rows, tap=lambda *_: None):
        """States at all places of (B, LENGTH + is_bert) ids, and which places there are."""
        width = LENGTH + self.is_bert
        is_row = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        return self.model(self.table[ids], is_row, lambda part, x: tap(part, x[is_row])), is_row

    def queries(self, states):
        queries = self.model.output(states)
        return torch.cat([queries, torch.ones(*queries.shape[:-1], 1)], -1) if "output.bias" in self.weights else queries

    def items(self, ids):
        items = self.weights.get("output.weight", self.table)[ids]
        return torch.cat([items, self.weights["output.bias"][ids, None]], -1) if "output.bias" in self.weights else items

    def encode(self, histories, tap=lambda *_: None):
        rows = [history[-LENGTH:] + [self.n_rows] * self.is_bert for history in histories]
        states, is_row = self.states(rows, tap)
        return self.queries(states[torch.arange(len(rows)), is_row.sum(1) - 1])


def evaluated(name, case, users, all_ids):
    tapped = {}
    with torch.no_grad():
        items = case.items(torch.tensor(all_ids))
        histories = [user["ids"][:-1] for user in users[:QUERIES]]
        queries = case.encode(histories, lambda part, x: tapped.__setitem__(f"enc.{part}", x.clone()))
        scores = queries @ items.T
        # Of every user: the rank of the last event among all items.
        all_scores = case.encode([user["ids"][:-1] for user in users]) @ items.T
        targets = torch.tensor([all_ids.index(user["ids"][-1]) for user in users])
        ranks = 1 + (all_scores > all_scores.gather(1, targets[:, None])).sum(1)
    top = scores.topk(TOP)
    shown = [history[-LENGTH:] for history in histories]
    times = [user["times"][:-1][-LENGTH:] + [user["times"][-1]] for user in users[:QUERIES]]
    pad = lambda row: row + [0] * (LENGTH + 1 - len(row))
    oracle = {
        "in.past_ids": torch.tensor([pad(row) for row in shown]),
        "in.past_lengths": torch.tensor([len(row) for row in shown]),
        "in.timestamps": torch.tensor([pad(row) for row in times]),
        "in.user_ids": torch.tensor([user["id"] for user in users[:QUERIES]]),
        "in.all_item_ids": torch.tensor(all_ids),
        **tapped, "enc.query_embeddings": queries, "item.embeddings": items, "scores.full": scores,
        "topk.MIPSBruteForceTopK.ids": torch.tensor(all_ids)[top.indices], "topk.MIPSBruteForceTopK.scores": top.values,
    }
    metrics = {"users": len(users), "mrr": (1 / ranks.double()).mean().item()}
    for n in (1, 5, 10, 50, 100, 200):
        metrics[f"hr@{n}"] = (ranks <= n).double().mean().item()
        metrics[f"ndcg@{n}"] = ((ranks <= n) / torch.log2(ranks.double() + 1)).mean().item()
    return oracle, {"case": name, "torch": torch.__version__.split("+")[0], "metrics": metrics}


def trained(case, users, all_ids, kind):
    """Five steps of AdamW on one batch. Users without their last event; of that the last LENGTH + 1 events."""
    events = [user["ids"][:-1][-LENGTH - 1:] for user in users[:QUERIES]]
    times = [user["times"][:-1][-LENGTH - 1:] for user in users[:QUERIES]]
    events, times = zip(*[pair for pair in zip(events, times) if len(pair[0]) > 1])
    # GRU4Rec: the event after each. BERT4Rec: masks for some events and for the last one.
    targets = [row[1:] for row in events]
    rows = [row[:-1] for row in events]
    if case.is_bert:
        masked = [[i + 1 == len(row) or torch.rand(()).item() < 0.3 for i in range(len(row))] for row in events]
        targets = [[id if is_ else 0 for id, is_ in zip(row, these)] for row, these in zip(events, masked)]
        rows = [[case.n_rows if is_ else id for id, is_ in zip(row, these)] for row, these in zip(events, masked)]
    flat = torch.tensor([target for row in targets for target in row])
    supervised = flat > 0
    pad = lambda row: list(row) + [0] * (LENGTH + 1 - len(row))
    oracle = {
        "in.past_ids": torch.tensor([pad(row) for row in events]),
        "in.past_lengths": torch.tensor([len(row) - 1 for row in events]),
        "in.timestamps": torch.tensor([pad(row) for row in times]),
        "in.user_ids": torch.tensor([user["id"] for user in users[:QUERIES]]),
        "in.targets": flat,
    }
    optimiser = torch.optim.AdamW(case.weights.values(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=1e-3)
    losses = []
    for step in range(5):
        states, is_row = case.states(rows)
        queries = case.queries(states)
        if step == 0:
            oracle["enc.output"] = queries
        positives = flat[supervised]
        queries = queries[is_row][supervised]
        if kind == "full_softmax":
            logits = queries @ case.items(torch.arange(1, case.n_rows)).T / TEMPERATURE
            loss = nn.functional.cross_entropy(logits, positives - 1)
        else:
            negatives = torch.tensor(all_ids)[torch.randint(len(all_ids), (len(queries), NEGATIVES))]
            oracle[f"step{step}.negative_ids"] = negatives
            pairs = torch.cat([positives[:, None], negatives], 1)
            logits = (queries[:, None] * case.items(pairs.flatten()).view(*pairs.shape, -1)).sum(-1) / TEMPERATURE
            collides = torch.cat([torch.zeros(len(pairs), 1, dtype=torch.bool), negatives == positives[:, None]], 1)
            loss = -logits.masked_fill(collides, -5e4).log_softmax(1)[:, 0].mean()
        losses.append({"loss": loss.item(), "main_loss": loss.item()})
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            oracle |= {f"grad.{name}": value.grad.clone() for name, value in case.weights.items()}
        optimiser.step()
        if step in (0, 4):
            oracle |= {f"after{step + 1}.{name}": value.detach().clone() for name, value in case.weights.items()}
    facts = {"loss": kind, "losses": losses, "loss_weights": {}, "temperature": TEMPERATURE, "learning_rate": 1e-3,
             "weight_decay": 1e-3}
    return oracle, facts


def save(path, tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, value in sorted(tensors.items()):
        value = value.detach().contiguous()
        code, kind = ("<q", "I64") if value.dtype == torch.int64 else ("<f", "F32")
        packed = struct.pack(f"{code[0]}{value.numel()}{code[1]}", *value.flatten().tolist())
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    numbers = lambda text: [int(number) for number in text.split(",")]
    with open(HERE / "tiny.csv") as file:
        users = [{"id": int(row["user_id"]), "ids": numbers(row["sequence_item_ids"]), "times": numbers(row["sequence_timestamps"])}
                 for row in csv.DictReader(file)]
    all_ids = json.loads((HERE / "tiny.json").read_text())["all_item_ids"]
    for name, model_config in CASES.items():
        case = Case(name, model_config, max(all_ids) + 1)
        oracle, facts = evaluated(name, case, users, all_ids)
        (folder / name).mkdir(parents=True, exist_ok=True)
        metadata = {"rails.config": json.dumps({"format": 1, "model": case.config})}
        save(folder / name / "model.safetensors", case.weights, metadata)
        save(folder / name / "oracle.safetensors", oracle)
        (folder / name / "oracle.json").write_text(json.dumps(facts, indent=1) + "\n")
        if name in TRAINED:
            oracle, facts = trained(case, users, all_ids, TRAINED[name])
            (folder / "train").mkdir(exist_ok=True)
            save(folder / "train" / f"{name}.safetensors", oracle)
            (folder / "train" / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
