"""Retrieval with learned similarities (Mixture-of-Logits) on any GPU, and on plain CPUs.

Shapes: B queries, N items, k results, D width of raw embeddings. Arrays may be NumPy arrays, PyTorch tensors (of any
device), anything with ``__array__`` or ``__dlpack__``, or nested lists; results are NumPy arrays. C-contiguous arrays of the
right type are read as they are.

>>> import numpy as np
>>> from rails_wgpu import Searcher
>>> items = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
>>> searcher = Searcher.from_embeddings([10, 20, 30], items, device="cpu")
>>> ids, scores = searcher.search([[0.6, 0.8]], k=2)
>>> ids.tolist()
[[30, 20]]
"""

from ._devices import Device, devices
from ._evaluate import evaluate_run, write_run
from ._mol import export_gate, export_mol
from ._native import Cancel, Cancelled, DeviceError, __version__
from ._searcher import NO_ITEM, History, KernelTime, Searcher, Stats
from ._token_pooling import TokenPooling
from ._train import TrainingResult, train
from ._train_similarity import train_similarity

__all__ = [
    "NO_ITEM",
    "Cancel",
    "Cancelled",
    "Device",
    "DeviceError",
    "History",
    "KernelTime",
    "Searcher",
    "Stats",
    "TokenPooling",
    "TrainingResult",
    "__version__",
    "devices",
    "evaluate_run",
    "export_gate",
    "export_mol",
    "train",
    "train_similarity",
    "write_run",
]
