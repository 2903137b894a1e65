# %% [markdown]
# # Retrieval with a learned similarity, from Python
# Run it as a script, or cell by cell in an editor that knows `# %%`. It uses the small model of the repository.

# %%
import sys
from pathlib import Path

import numpy as np

import rails_wgpu
from rails_wgpu import History, Searcher, devices

model = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "assets" / "demo.safetensors"
for device in devices():
    print(device)

# %% [markdown]
# ## A trained model: encode histories, find items
# Every row of the model's item table is indexed, unless `item_ids` names some.

# %%
searcher = Searcher.from_checkpoint(model, device="cpu")
print(searcher)

histories = [
    History(item_ids=[12, 31, 5], timestamps=[100, 160, 300], now=400, user_id=7),
    History(item_ids=[200, 4], timestamps=[50, 900], now=1000, user_id=8),
]
queries = searcher.encode(histories)  # (B, D)
users = [history.user_id for history in histories]
seen = [history.item_ids for history in histories]
ids, scores = searcher.search(queries, k=5, user_ids=users, exclude=seen)
print(ids, scores.round(3), sep="\n")

# %% [markdown]
# ## Approximate algorithms
# Candidates by a cheap first stage, rescored with the full similarity. Recall against the exact result:

# %%
exact, _ = searcher.search(queries, k=20, user_ids=users)
for algorithm in ["mips", "avg:50", "tangent:50"]:
    found, _ = searcher.search(queries, k=20, user_ids=users, algorithm=algorithm)
    recall = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(exact, found)])
    print(f"{algorithm:12} recall@20 {recall:.2f}")

# %% [markdown]
# ## Embeddings of your own
# Without `mol` the similarity is the inner product; with it, any Mixture-of-Logits: a file, or a live PyTorch module.

# %%
rng = np.random.default_rng(0)
items = rng.standard_normal((1000, 16), dtype=np.float32)
mine = Searcher.from_embeddings(np.arange(1000), items, mol=model, device="cpu")
ids, scores = mine.search(items[:2], k=3, user_ids=[1, 2], allow=np.arange(0, 1000, 2))
print(ids, scores.round(3), sep="\n")

# %% [markdown]
# ## Items come and go

# %%
mine.add([5000], rng.standard_normal((1, 16)))
removed = mine.remove([0, 1, 2])
print(f"{removed} removed, {len(mine)} left, 5000 is there: {5000 in mine}; rails-wgpu {rails_wgpu.__version__}")
