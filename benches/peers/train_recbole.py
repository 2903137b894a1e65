"""Trains GRU4Rec beside RecBole's own on the same split, with the same hyper-parameters: do both find the same share of next items?

    cargo build --release && pip install torch recbole==1.2.1 pandas
    rails-bench preprocess ml-100k ml-100k.zip -o ml-100k.csv
    python benches/peers/train_recbole.py ml-100k.csv --out target/peers/recbole

The layers, the fresh weights and the loss function are those of `recbole.model.sequential_recommender.GRU4Rec` with its default sizes. Its
own trainer makes a sample of each prefix of a history; here its layers see each history once and all positions are supervised, as
in `rails-bench train`, so that batches are the same. The padding item takes no part in the softmax. Both choose the best epoch by HR@10
on the last event of each user, in the reference protocol, which ranks the seen items too where
there are fewer than 2,500. Writes recbole.csv, one line
for each run.
"""

import argparse
import csv
import math
import subprocess
from pathlib import Path

import torch
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from torch.nn.utils.rnn import pad_sequence

LENGTH, BATCH, RATE = 50, 16, 1e-3
SIZES = {"embedding_size": 64, "hidden_size": 128, "num_layers": 1, "dropout_prob": 0.3, "loss_type": "CE"}
GIN = f"""
train_fn.max_sequence_length = {LENGTH}
train_fn.gr_output_length = 0
train_fn.item_embedding_dim = {SIZES["embedding_size"]}
train_fn.main_module = 'GRU4Rec'
train_fn.user_embedding_norm = 'none'
gru4rec_encoder.num_layers = {SIZES["num_layers"]}
gru4rec_encoder.hidden_dim = {SIZES["hidden_size"]}
gru4rec_encoder.bias = False
gru4rec_encoder.dense = True
train_fn.interaction_module_type = 'DotProduct'
train_fn.local_batch_size = {BATCH}
train_fn.learning_rate = {RATE}
train_fn.weight_decay = 0
train_fn.dropout_rate = {SIZES["dropout_prob"]}
train_fn.loss_module = 'FullSoftmaxLoss'
train_fn.temperature = 1.0
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("dataset", type=Path, help="what `rails-bench preprocess` has written")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--program", type=Path, default=Path("target/release/rails-bench"))
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    (args.out / "gru4rec.gin").write_text(GIN)
    with open(args.dataset) as file:
        users = [[int(id) for id in row["sequence_item_ids"].split(",")] for row in csv.DictReader(file)]
    lines = args.dataset.with_suffix(".items.txt").read_text().splitlines()
    items = torch.tensor(sorted(int(line) for line in lines if line.strip().isdigit()))
    rows = []
    for seed in range(1, args.seeds + 1):
        for program, run in [("rails-bench", ours), ("RecBole 1.2.1", theirs)]:
            epochs = run(args, seed, users, items)
            best = max(range(len(epochs)), key=lambda epoch: epochs[epoch][0])
            rows.append([program, seed, args.epochs, best + 1, *(f"{value:.4f}" for value in (*epochs[best], *epochs[-1]))])
            print(*rows[-1], flush=True)
    with open(args.out / "recbole.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["program", "seed", "epochs", "best epoch", "best HR@10", "best NDCG@10", "last HR@10", "last NDCG@10"])
        writer.writerows(rows)


def ours(args, seed, _users, _items):
    """HR@10 and NDCG@10 after each epoch."""
    command = [args.program, "train", "--config", args.out / "gru4rec.gin", "--dataset", args.dataset, "--epochs", args.epochs,
               "--seed", seed, "--device", "cpu", "-o", args.out / f"ours-{seed}", "--quiet"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    with open(args.out / f"ours-{seed}" / "metrics.csv") as file:
        return [(float(row["hr@10"]), float(row["ndcg@10"])) for row in csv.DictReader(file)]


class Config(dict):
    """Of the settings that RecBole's models read, those that concern no model."""

    def __missing__(self, key):
        return {"device": "cpu", "MAX_ITEM_LIST_LENGTH": LENGTH}.get(key, key.lower())


class Items:
    def __init__(self, n_rows):
        self.n_rows = n_rows

    def num(self, _field):
        return self.n_rows


def theirs(args, seed, users, items):
    torch.manual_seed(seed)
    n_rows = max(int(items.max()), max(max(user) for user in users)) + 1
    model = GRU4Rec(Config(SIZES), Items(n_rows))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
    events = [torch.tensor(user[:-1][-LENGTH - 1:]) for user in users if len(user) > 2]
    epochs = []
    for _ in range(args.epochs):
        model.train()
        for batch in torch.randperm(len(events)).split(BATCH):
            inputs = pad_sequence([events[user][:-1] for user in batch], True)
            targets = pad_sequence([events[user][1:] for user in batch], True)
            states, _ = model.gru_layers(model.emb_dropout(model.item_embedding(inputs)))
            queries = model.dense(states[targets > 0])
            logits = queries @ model.item_embedding.weight[items].T
            places = torch.searchsorted(items, targets[targets > 0])
            optimiser.zero_grad()
            model.loss_fct(logits, places).backward()
            optimiser.step()
        epochs.append(evaluate(model, users, items))
    return epochs


@torch.no_grad()
def evaluate(model, users, items):
    model.eval()
    hits, gains = 0, 0.0
    for first in range(0, len(users), 256):
        these = users[first:first + 256]
        histories = [torch.tensor(user[:-1][-LENGTH:]) for user in these]
        lengths = torch.tensor([len(history) for history in histories])
        scores = model.forward(pad_sequence(histories, True), lengths) @ model.item_embedding.weight[items].T
        for row, user in zip(scores, these):
            rank = 1 + int((row > row[torch.searchsorted(items, torch.tensor(user[-1]))]).sum())
            if rank <= 10:
                hits, gains = hits + 1, gains + 1 / math.log2(rank + 1)
    return hits / len(users), gains / len(users)


if __name__ == "__main__":
    main()
