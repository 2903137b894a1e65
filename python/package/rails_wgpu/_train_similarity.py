"""Training a Mixture-of-Logits similarity on embeddings that stay as they are."""

import json
import os
from typing import Any, Callable, Dict, Optional, Union

import numpy as np

from . import _arrays, _native

Path = Union[str, "os.PathLike[str]"]


def train_similarity(
    query_embeddings: Any,
    item_embeddings: Any,
    pairs: Any,
    path: Path,
    *,
    n_query_components: int = 4,
    n_item_components: int = 4,
    width: int = 32,
    gate_hidden: int = 64,
    temperature: float = 0.05,
    epochs: int = 20,
    batch_size: int = 128,
    negatives: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    seed: int = 42,
    callback: "Optional[Callable[[int, float], object]]" = None,
) -> str:
    """Trains a Mixture-of-Logits similarity, and writes it to ``path``, for ``Searcher.from_embeddings(..., mol=path)``.

    ``query_embeddings`` (Q, D) and ``item_embeddings`` (N, D) are of any model and stay as they are; ``pairs`` (n, 2) are rows of a
    query and of an item that is relevant to it. What is trained are the projections into P_Q ``n_query_components`` and P_X
    ``n_item_components`` of ``width`` numbers and the gate with ``gate_hidden`` hidden units, by a softmax over the item of a pair and
    ``negatives`` items drawn from all, with AdamW, on the CPU. ``callback`` is called with the number of each epoch and its mean loss,
    and ends the training by returning False. The same seed makes the same file. Returns the path.

    Raises ValueError, with words that say what was expected and what was found, or OSError.
    """
    mol: Dict[str, Any] = {
        "query_dot_product_groups": n_query_components,
        "item_dot_product_groups": n_item_components,
        "dot_product_dimension": width,
        "temperature": float(temperature),
        "dot_product_l2_norm": True,
        "eps": 1e-6,
        "query_hidden": None,
        "item_hidden": None,
        "uid_embedding_hash_sizes": [],
        "gating_combination": "glu_silu",
        "gating_query_hidden_dim": gate_hidden,
        "gating_item_hidden_dim": gate_hidden,
        "gating_qi_hidden_dim": gate_hidden,
    }
    training = {
        "epochs": epochs,
        "batch_size": batch_size,
        "negatives": negatives,
        "temperature": 1.0,
        "learning_rate": float(learning_rate),
        "weight_decay": float(weight_decay),
        "seed": seed,
        "dropout": {"input": 0.0, "attention": 0.0, "feed_forward": 0.0, "uid": 0.0},
    }
    rows = _arrays.to_numpy("pairs", pairs)
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise ValueError(f"pairs: expected an array (n, 2), found shape {rows.shape}")
    most = np.iinfo(np.uint32).max
    of_queries, of_items = (
        np.ascontiguousarray(_arrays.integers("pairs", rows[:, column], 0, most), dtype=np.uint32) for column in (0, 1)
    )
    _native.train_similarity(
        _arrays.floats("query_embeddings", query_embeddings),
        _arrays.floats("item_embeddings", item_embeddings),
        of_queries,
        of_items,
        json.dumps({"format": 1, "model": mol}),
        json.dumps(training),
        path,
        callback,
    )
    return os.fspath(path)
