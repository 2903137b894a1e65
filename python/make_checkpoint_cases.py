#!/usr/bin/env python3
"""Writes the checkpoints of other programs in tests/checkpoints: tiny models with random weights in each program's own file format, and
the scores that the program gives to all items after some histories.

    python/make_checkpoint_cases.py [FOLDER [CASE ...]]

Cases of RecBole and RecTools are made by these packages themselves, those of other programs by the few lines below, which follow their
forward passes under their names of tensors. Needs PyTorch; `recbole==1.2.1`; `rectools[torch]==0.19.0` with `pandas<3`. Last run: PyTorch
2.15.0, RecBole 1.2.1, RecTools 0.19.0, PyTorch Lightning 2.6.6, pandas 2.3.3.

| case | made by |
|---|---|
| recbole_{sasrec,gru4rec,bert4rec} | RecBole's models and `Config`, saved as its trainer saves them |
| rectools_{sasrec,bert4rec} | RecTools' models, trained for an epoch and saved by Lightning |
| pmixer_{earlier,between,pre,post} | SASRec of pmixer/SASRec.pytorch: before there was a position for padding, since, and with norms around its parts |
| gsasrec | asash/gSASRec-pytorch |
| gru4rec_{constrained,separate,ge} | hidasib/GRU4Rec_PyTorch_Official |
| bert4rec_vae | jaywonchung/BERT4Rec-VAE-Pytorch |
| hf_{sasrec,bert4rec,gru} | antklen/sasrec-bert4rec-recsys23, in a Lightning checkpoint |
"""
import json
import math
import os
import struct
import sys
import types
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent.parent / "tests/checkpoints"
ITEMS, DIM, HEADS, BLOCKS, LENGTH = 20, 8, 2, 2, 6
HISTORIES = [[3], [7, 7], [1, 20, 5, 2], [4, 8, 12, 16, 19, 11], [9, 2, 17, 6, 1, 13, 20, 3, 10]]


def randomise(module):
    """Weights of which every part of the model is visible in the scores."""
    for name, value in module.named_parameters():
        around = 1.0 if value.ndim == 1 and "orm" in name and name.endswith(("weight", "a_2")) else 0.0
        nn.init.normal_(value, around, 0.35 if value.ndim > 1 else 0.2)
    return module.eval()


def left(history, length, padding=0):
    history = history[-length:]
    return [padding] * (length - len(history)) + history


def right(history, length):
    history = history[-length:]
    return history + [0] * (length - len(history))


def causal(length):
    return ~torch.tril(torch.ones(length, length, dtype=torch.bool))


# ---- RecBole and RecTools themselves


def recbole(name):
    def make(folder):
        import numpy

        # It was written for numpy 1.
        for old, new in {"float_": "float64", "bool8": "bool_", "object0": "object_", "str0": "str_", "int0": "intp", "uint0": "uintp",
                         "complex_": "complex128", "unicode_": "str_", "long": "int_"}.items():
            if not hasattr(numpy, old):
                setattr(numpy, old, getattr(numpy, new))
        sys.modules.setdefault("thop", types.ModuleType("thop"))
        from recbole.config import Config
        from recbole.model import sequential_recommender

        arguments, sys.argv = sys.argv, sys.argv[:1]
        settings = {"hidden_size": DIM, "inner_size": 12, "embedding_size": DIM, "n_heads": HEADS, "n_layers": BLOCKS,
                    "num_layers": 2, "MAX_ITEM_LIST_LENGTH": LENGTH, "use_gpu": False, "data_path": ".",
                    "train_neg_sample_args": None}
        if name == "GRU4Rec":
            settings["hidden_size"] = 12
        config = Config(model=name, dataset="none", config_dict=settings)
        sys.argv = arguments
        model = getattr(sequential_recommender, name)(config, types.SimpleNamespace(num=lambda _: ITEMS + 1))
        randomise(model)
        state = {"config": config, "epoch": 0, "cur_step": 0, "best_valid_score": 0.0, "state_dict": model.state_dict(),
                 "other_parameter": model.other_parameter(), "optimizer": torch.optim.Adam(model.parameters()).state_dict()}
        torch.save(state, folder / "model.pth", pickle_protocol=4)
        rows = {"item_id_list": torch.tensor([right(history, LENGTH) for history in HISTORIES]),
                "item_length": torch.tensor([min(len(history), LENGTH) for history in HISTORIES])}
        return model.full_sort_predict(rows)[:, 1:ITEMS + 1]

    return make


def rectools(name):
    def make(folder):
        import pandas
        from rectools.dataset import Dataset
        from rectools import models

        # Items have ids of their own, and come in another order. Training sees the last events of each user only.
        shuffled = [(5 * item) % 21 for item in range(1, 21)]
        others = [shuffled[first:first + 4] for first in range(0, ITEMS, 4)]
        events = [(user, 1000 + 7 * item, 1.0, time) for user, history in enumerate(HISTORIES + others)
                  for time, item in enumerate(history)]
        events = pandas.DataFrame(events, columns=["user_id", "item_id", "weight", "datetime"])
        events["datetime"] = pandas.to_datetime(events["datetime"], unit="D")
        data = Dataset.construct(events)
        model = getattr(models, name)(n_blocks=BLOCKS, n_heads=HEADS, n_factors=DIM, session_max_len=LENGTH, epochs=1, batch_size=4,
                                      recommend_torch_device="cpu")
        os.chdir(folder)
        model.fit(data)
        randomise(model.torch_model)
        model.fit_trainer.save_checkpoint(folder / "model.ckpt", weights_only=True)
        names = list(model.data_preparator.get_known_item_ids())
        users = list(range(len(HISTORIES)))
        found = model.recommend(users=users, dataset=data, k=len(names), filter_viewed=False)
        scores = torch.full((len(users), len(names)), torch.nan)
        for row in found.itertuples():
            scores[row.user_id, names.index(row.item_id)] = row.score
        histories = [[names.index(1000 + 7 * item) + 1 for item in history] for history in HISTORIES]
        return scores, histories

    return make


# ---- SASRec of pmixer, and what was made of it


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(DIM, DIM, 1), nn.Conv1d(DIM, DIM, 1)

    def forward(self, x):
        return self.conv2(self.conv1(x.transpose(1, 2)).relu()).transpose(1, 2)


class PmixerSasrec(nn.Module):
    def __init__(self, positions):
        super().__init__()
        norms = lambda: nn.ModuleList(nn.LayerNorm(DIM, eps=1e-8) for _ in range(BLOCKS))
        self.item_emb, self.pos_emb = nn.Embedding(ITEMS + 1, DIM), nn.Embedding(positions, DIM)
        self.attention_layernorms, self.forward_layernorms = norms(), norms()
        self.attention_layers = nn.ModuleList(nn.MultiheadAttention(DIM, HEADS, batch_first=True) for _ in range(BLOCKS))
        self.forward_layers = nn.ModuleList(Convolutions() for _ in range(BLOCKS))
        self.last_layernorm = nn.LayerNorm(DIM, eps=1e-8)

    def earlier(self, ids):
        """Norms of queries only; padding is zero before each block."""
        is_event, mask = (ids != 0).unsqueeze(-1), causal(ids.shape[1])
        x = self.item_emb(ids) * DIM**0.5 + self.pos_emb.weight
        for i in range(BLOCKS):
            x = x * is_event
            query = self.attention_layernorms[i](x)
            x = query + self.attention_layers[i](query, x, x, attn_mask=mask)[0]
            x = self.forward_layernorms[i](x)
            x = x + self.forward_layers[i](x)
        return self.last_layernorm(x)

    def later(self, ids, version):
        mask = causal(ids.shape[1])
        places = torch.arange(1, ids.shape[1] + 1) * (ids != 0)
        x = self.item_emb(ids) * DIM**0.5 + self.pos_emb(places)
        for i in range(BLOCKS):
            attention_norm, forward_norm = self.attention_layernorms[i], self.forward_layernorms[i]
            attend = lambda x: self.attention_layers[i](x, x, x, attn_mask=mask)[0]
            if version == "between":
                query = attention_norm(x)
                x = forward_norm(query + self.attention_layers[i](query, x, x, attn_mask=mask)[0])
                x = x + self.forward_layers[i](x)
            elif version == "pre":
                x = x + attend(attention_norm(x))
                x = x + self.forward_layers[i](forward_norm(x))
            else:
                x = attention_norm(x + attend(x))
                x = forward_norm(x + self.forward_layers[i](x))
        return self.last_layernorm(x)

    def scores(self, states):
        return states @ self.item_emb.weight[1:].T


def pmixer(version):
    def make(folder):
        model = randomise(PmixerSasrec(LENGTH + (version != "earlier")))
        with torch.no_grad():
            model.item_emb.weight[0] = 0
            if version != "earlier":
                model.pos_emb.weight[0] = 0
        torch.save(model.state_dict(), folder / "model.pth")
        ids = torch.tensor([left(history, LENGTH) for history in HISTORIES])
        states = model.earlier(ids) if version == "earlier" else model.later(ids, version)
        return model.scores(states[:, -1])

    return make


def lightning(model):
    """What a checkpoint of a LightningModule with the attribute `model` holds, without its training."""
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    return {"epoch": 1, "global_step": 2, "pytorch-lightning_version": "1.6.5", "state_dict": weights, "loops": {}}


def hf_sasrec(folder):
    model = randomise(PmixerSasrec(LENGTH))
    torch.save(lightning(model), folder / "model.ckpt")
    ids = torch.tensor([right(history, LENGTH) for history in HISTORIES])
    last = [min(len(history), LENGTH) - 1 for history in HISTORIES]
    return model.scores(model.earlier(ids)[torch.arange(len(last)), last])


class HfGru(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_layer, self.rnn = nn.Embedding(ITEMS + 1, DIM), nn.GRU(DIM, 12, 2, batch_first=True)
        self.head = nn.Linear(12, ITEMS + 1, bias=False)


def hf_gru(folder):
    model = randomise(HfGru())
    torch.save(lightning(model), folder / "model.ckpt")
    states = [model.rnn(model.embed_layer(torch.tensor([history[-LENGTH:]])))[0][0, -1] for history in HISTORIES]
    return model.head(torch.stack(states))[:, 1:]


class HfBert(nn.Module):
    """The tensors of transformers' `BertModel`, whose layers are post-norm."""

    def __init__(self):
        super().__init__()
        parts = lambda **modules: nn.ModuleDict(modules)
        linear, norm = lambda n_in=DIM, n_out=DIM: nn.Linear(n_in, n_out), lambda: nn.LayerNorm(DIM, eps=1e-12)
        self.embed_layer = nn.Embedding(ITEMS + 2, DIM)
        layer = lambda: parts(
            attention=parts(self=parts(query=linear(), key=linear(), value=linear()), output=parts(dense=linear(), LayerNorm=norm())),
            intermediate=parts(dense=linear(DIM, 12)), output=parts(dense=linear(12, DIM), LayerNorm=norm()))
        embeddings = parts(word_embeddings=nn.Embedding(30, DIM), position_embeddings=nn.Embedding(LENGTH + 1, DIM),
                           token_type_embeddings=nn.Embedding(2, DIM), LayerNorm=norm())
        self.transformer_model = parts(embeddings=embeddings, encoder=parts(layer=nn.ModuleList(layer() for _ in range(BLOCKS))),
                                       pooler=parts(dense=linear()))
        self.head = nn.Linear(DIM, ITEMS + 2, bias=False)
        self.head.weight = self.embed_layer.weight

    def forward(self, ids):
        n = len(ids)
        embeddings = self.transformer_model["embeddings"]
        x = self.embed_layer(ids) + embeddings["token_type_embeddings"].weight[0] + embeddings["position_embeddings"].weight[:n]
        x = embeddings["LayerNorm"](x)
        heads = lambda x: x.view(n, HEADS, DIM // HEADS).transpose(0, 1)
        for layer in self.transformer_model["encoder"]["layer"]:
            own, after = layer["attention"]["self"], layer["attention"]["output"]
            query, key, value = (heads(own[part](x)) for part in ("query", "key", "value"))
            weights = (query @ key.transpose(1, 2) / math.sqrt(DIM // HEADS)).softmax(-1)
            x = after["LayerNorm"](after["dense"]((weights @ value).transpose(0, 1).reshape(n, DIM)) + x)
            hidden = nn.functional.gelu(layer["intermediate"]["dense"](x))
            x = layer["output"]["LayerNorm"](layer["output"]["dense"](hidden) + x)
        return self.head(x)


def hf_bert4rec(folder):
    model = randomise(HfBert())
    torch.save(lightning(model), folder / "model.ckpt")
    # The data's ids are moved by one, as 1 is the mask.
    rows = [[item + 1 for item in history[-LENGTH:]] + [1] for history in HISTORIES]
    return torch.stack([model(torch.tensor(row))[-1, 2:] for row in rows])


# ---- gSASRec


class GsasrecBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        projections = {f"{part}_proj": nn.Linear(DIM, DIM) for part in ("query", "key", "val")}
        self.multihead_attention = nn.ModuleDict(projections)
        self.dense1, self.dense2 = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def forward(self, x, is_event):
        query, n = self.first_norm(x), x.shape[1]
        split = lambda x: torch.stack(x.chunk(HEADS, -1), 1)
        parts = zip(("query_proj", "key_proj", "val_proj"), (query, x, x))
        q, k, v = (split(self.multihead_attention[name](value)) for name, value in parts)
        logits = (q @ k.transpose(-1, -2)) / math.sqrt(DIM // HEADS)
        logits = logits.masked_fill(causal(n) | ~is_event[:, None, None, :], -math.inf)
        attended = logits.softmax(-1).nan_to_num(0.0) @ v
        x = self.second_norm(torch.cat(attended.unbind(1), -1) + query)
        return (x + self.dense2(self.dense1(x))) * is_event[..., None]


class Gsasrec(nn.Module):
    def __init__(self):
        super().__init__()
        self.item_embedding, self.position_embedding = nn.Embedding(ITEMS + 2, DIM), nn.Embedding(LENGTH, DIM)
        self.transformer_blocks = nn.ModuleList(GsasrecBlock() for _ in range(BLOCKS))
        self.seq_norm = nn.LayerNorm(DIM)


def gsasrec(folder):
    model = randomise(Gsasrec())
    torch.save(model.state_dict(), folder / "model.pt")
    ids = torch.tensor([left(history, LENGTH, ITEMS + 1) for history in HISTORIES])
    is_event = ids != ITEMS + 1
    x = (model.item_embedding(ids) + model.position_embedding.weight) * is_event[..., None]
    for block in model.transformer_blocks:
        x = block(x, is_event)
    return model.seq_norm(x)[:, -1] @ model.item_embedding.weight[1:-1].T


# ---- GRU4Rec_PyTorch_Official


class Gru4rec(nn.Module):
    """`layers` are widths; `embedding` is that of a table of its own, 0 for the output's table, None for inputs of the first layer."""

    def __init__(self, layers, embedding):
        super().__init__()
        if embedding is None:
            self.GE = nn.Module()
            self.GE.Wx0 = nn.Embedding(ITEMS, 3 * layers[0])
            self.GE.Wh0 = nn.Parameter(torch.empty(layers[0], 3 * layers[0]))
            self.GE.Bh0 = nn.Parameter(torch.empty(3 * layers[0]))
        elif embedding:
            self.E = nn.Embedding(ITEMS, embedding)
        self.Wy, self.By = nn.Embedding(ITEMS, layers[-1]), nn.Embedding(ITEMS, 1)
        inputs = layers if embedding is None else [embedding or layers[-1]] + layers
        self.G = nn.ModuleList(nn.GRUCell(n_in, n_out) for n_in, n_out in zip(inputs, inputs[1:]))
        self.widths = layers

    def forward(self, history):
        states = [torch.zeros(1, width) for width in self.widths]
        for item in history:
            item, rest = torch.tensor([item]), states
            if hasattr(self, "GE"):
                inputs, recurrent = self.GE.Wx0(item) + self.GE.Bh0, states[0] @ self.GE.Wh0
                (xh, xr, xz), (hh, hr, hz) = inputs.chunk(3, 1), recurrent.chunk(3, 1)
                new, update = torch.tanh(torch.sigmoid(xr + hr) * hh + xh), torch.sigmoid(xz + hz)
                states[0] = (1 - update) * states[0] + update * new
                x, first = states[0], 1
            else:
                x, first = (self.E if hasattr(self, "E") else self.Wy)(item), 0
            for i, cell in enumerate(self.G, first):
                states[i] = x = cell(x, states[i])
        return x @ self.Wy.weight.T + self.By.weight.T


def gru4rec(layers, embedding):
    def make(folder):
        model = randomise(Gru4rec(layers, embedding))
        torch.save(model.state_dict(), folder / "model.pt")
        return torch.cat([model([item - 1 for item in history]) for history in HISTORIES])

    return make


# ---- BERT4Rec-VAE-Pytorch


class VaeNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.empty(DIM)), nn.Parameter(torch.empty(DIM))

    def forward(self, x):
        return self.a_2 * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.b_2


class VaeBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.feed_forward = nn.Module(), nn.Module()
        self.attention.linear_layers = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(3))
        self.attention.output_linear = nn.Linear(DIM, DIM)
        self.feed_forward.w_1, self.feed_forward.w_2 = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)
        self.input_sublayer, self.output_sublayer = nn.Module(), nn.Module()
        self.input_sublayer.norm, self.output_sublayer.norm = VaeNorm(), VaeNorm()

    def forward(self, x, is_token):
        read = self.input_sublayer.norm(x)
        q, k, v = (layer(read).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in self.attention.linear_layers)
        logits = (q @ k.transpose(-1, -2) / math.sqrt(DIM // HEADS)).masked_fill(~is_token[:, None, None, :], -1e9)
        x = x + self.attention.output_linear((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
        hidden = nn.functional.gelu(self.feed_forward.w_1(self.output_sublayer.norm(x)), approximate="tanh")
        return x + self.feed_forward.w_2(hidden)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = nn.Module()
        self.bert.embedding = nn.Module()
        self.bert.embedding.token = nn.Embedding(ITEMS + 2, DIM)
        self.bert.embedding.position = nn.Module()
        self.bert.embedding.position.pe = nn.Embedding(LENGTH + 1, DIM)
        self.bert.transformer_blocks = nn.ModuleList(VaeBlock() for _ in range(BLOCKS))
        self.out = nn.Linear(DIM, ITEMS + 1)


def bert4rec_vae(folder):
    model = randomise(Vae())
    torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": {}}, folder / "model.pth")
    ids = torch.tensor([left(history[-LENGTH:] + [ITEMS + 1], LENGTH + 1) for history in HISTORIES])
    x = model.bert.embedding.token(ids) + model.bert.embedding.position.pe.weight
    for block in model.bert.transformer_blocks:
        x = block(x, ids > 0)
    return model.out(x)[:, -1, 1:]


CASES = {
    "recbole_sasrec": recbole("SASRec"), "recbole_gru4rec": recbole("GRU4Rec"), "recbole_bert4rec": recbole("BERT4Rec"),
    "rectools_sasrec": rectools("SASRecModel"), "rectools_bert4rec": rectools("BERT4RecModel"),
    "pmixer_earlier": pmixer("earlier"), "pmixer_between": pmixer("between"), "pmixer_pre": pmixer("pre"), "pmixer_post": pmixer("post"),
    "gsasrec": gsasrec, "bert4rec_vae": bert4rec_vae,
    "gru4rec_constrained": gru4rec([DIM], 0), "gru4rec_separate": gru4rec([12, DIM], 5), "gru4rec_ge": gru4rec([6, DIM], None),
    "hf_sasrec": hf_sasrec, "hf_bert4rec": hf_bert4rec, "hf_gru": hf_gru,
}


def save(path, tensors):
    header, data = {}, b""
    for name, value in sorted(tensors.items()):
        code, kind = ("<q", "I64") if value.dtype == torch.int64 else ("<f", "F32")
        packed = struct.pack(f"{code[0]}{value.numel()}{code[1]}", *value.flatten().tolist())
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE
    for name in sys.argv[2:] or CASES:
        torch.manual_seed(sum(map(ord, name)))
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        with torch.no_grad() if not name.startswith("rectools") else torch.enable_grad():
            scores = CASES[name](place)
        scores, histories = scores if isinstance(scores, tuple) else (scores, HISTORIES)
        assert scores.isfinite().all(), name
        longest = max(map(len, histories))
        rows = torch.tensor([history + [0] * (longest - len(history)) for history in histories])
        save(place / "oracle.safetensors", {"histories": rows, "scores": scores.detach().float()})


if __name__ == "__main__":
    main()
