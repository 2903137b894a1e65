import os
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt

__version__: str

_Options = Tuple[str, str, Optional[int], Optional[int]]
_Took = Tuple[Tuple[int, int, int, int], List[Tuple[str, float]], List[Tuple[str, str, int, float]]]

class DeviceError(RuntimeError):
    """There is no such device, it failed, or the work does not fit it."""

class Cancelled(RuntimeError):
    """A search was ended by its :class:`Cancel`."""

class Cancel:
    """Ends the searches that it was given to, from any thread; it cannot be used again."""

    def __init__(self) -> None: ...
    def cancel(self) -> None: ...
    @property
    def is_cancelled(self) -> bool: ...

def set_log_level(level: int) -> None: ...
def run_program(args: List[str]) -> int: ...
def devices() -> List[Tuple[str, str, str, str]]: ...
def evaluate_run(
    qrels: "str | Dict[str, Dict[str, int]]",
    run: "str | Dict[str, Dict[str, float]]",
    metrics: List[str],
    relevance_level: int,
    all_judged: bool,
) -> Dict[str, float]: ...
def write_run(run: Dict[str, Dict[str, float]], path: "str | os.PathLike[str]", name: str) -> None: ...
def train_similarity(
    queries: npt.NDArray[np.float32],
    items: npt.NDArray[np.float32],
    of_queries: npt.NDArray[np.uint32],
    of_items: npt.NDArray[np.uint32],
    mol: str,
    training: str,
    path: "str | os.PathLike[str]",
    callback: Optional[Callable[[int, float], object]],
) -> None: ...
def train(
    dataset: Optional[str],
    histories: Optional[
        Tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]
    ],
    items_file: Optional[str],
    items: Optional[npt.NDArray[np.uint32]],
    folder: str,
    resume: bool,
    hyper: Tuple[Optional[str], Optional[str], str, str],
    rules: Tuple[bool, str, Optional[int], Optional[int], Optional[float], float],
    device: Optional[str],
    threads: Optional[int],
    callback: Optional[Callable[[Dict[str, Any]], object]],
) -> Dict[str, Any]: ...

class TokenPooling:
    @staticmethod
    def first_tokens(n_components: int) -> TokenPooling: ...
    @staticmethod
    def mixture(weights: npt.NDArray[np.float32], softmax: bool) -> TokenPooling: ...
    @staticmethod
    def open(path: "str | os.PathLike[str]") -> TokenPooling: ...
    def with_projection(
        self, weight: npt.NDArray[np.float32], bias: Optional[npt.NDArray[np.float32]]
    ) -> TokenPooling: ...
    def with_l2_norm(self, eps: float) -> TokenPooling: ...
    def save(self, path: "str | os.PathLike[str]") -> None: ...
    @property
    def n_components(self) -> int: ...
    def pool(
        self, states: npt.NDArray[np.float32], lengths: npt.NDArray[np.uint64], device: str
    ) -> npt.NDArray[np.float32]: ...

class Searcher:
    @staticmethod
    def from_checkpoint(
        checkpoint: "str | os.PathLike[str]",
        config: "Optional[str | os.PathLike[str]]",
        item_ids: Optional[npt.NDArray[np.uint64]],
        device: str,
        options: _Options,
        folder: "Optional[str | os.PathLike[str]]",
        attributes: Any,
    ) -> Searcher: ...
    @staticmethod
    def from_index(
        folder: "str | os.PathLike[str]", device: str, check: bool, device_memory: Optional[int]
    ) -> Searcher: ...
    @staticmethod
    def from_embeddings(
        ids: "npt.NDArray[np.uint64] | List[str]",
        embeddings: npt.NDArray[np.float32],
        mol: "Optional[str | os.PathLike[str]]",
        device: str,
        options: _Options,
        folder: "Optional[str | os.PathLike[str]]",
        attributes: Any,
    ) -> Searcher: ...
    @staticmethod
    def from_token_embeddings(
        ids: npt.NDArray[np.uint64],
        vectors: npt.NDArray[np.float32],
        lengths: npt.NDArray[np.uint64],
        device: str,
        options: _Options,
        folder: "Optional[str | os.PathLike[str]]",
        attributes: Any,
    ) -> Searcher: ...
    def encode(
        self,
        item_ids: npt.NDArray[np.uint32],
        timestamps: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.uint64],
        user_ids: npt.NDArray[np.int64],
        nows: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]: ...
    def search(
        self,
        queries: npt.NDArray[np.float32],
        lengths: Optional[npt.NDArray[np.uint64]],
        k: int,
        user_ids: Optional[npt.NDArray[np.int64]],
        algorithm: str,
        excluded: Optional[Tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]],
        allowed: Optional[npt.NDArray[np.uint64]],
        fusion: Optional[
            Tuple[float, npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.float32]]
        ],
        profile: bool,
        certify: bool,
        cancel: Optional[Cancel],
        conditions: List[Tuple[str, List[Any]]],
    ) -> Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], _Took, List[List[str]], npt.NDArray[np.float32]]: ...
    def distill(
        self,
        queries: npt.NDArray[np.float32],
        user_ids: Optional[npt.NDArray[np.int64]],
        progress: Optional[Callable[[float], object]],
    ) -> None: ...
    def rescore(
        self,
        queries: npt.NDArray[np.float32],
        lengths: Optional[npt.NDArray[np.uint64]],
        candidates: Tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]],
        user_ids: Optional[npt.NDArray[np.int64]],
    ) -> npt.NDArray[np.float32]: ...
    def compact(self) -> None: ...
    def refresh(self) -> bool: ...
    def save(self, folder: "str | os.PathLike[str]") -> None: ...
    def add_token_embeddings(
        self, ids: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32], lengths: npt.NDArray[np.uint64]
    ) -> None: ...
    def add(
        self, ids: "npt.NDArray[np.uint64] | List[str]", embeddings: npt.NDArray[np.float32], attributes: Any
    ) -> None: ...
    @property
    def attributes(self) -> List[Tuple[str, str]]: ...
    def remove(self, ids: "npt.NDArray[np.uint64] | List[str]") -> int: ...
    def numbers(self, strings: List[str]) -> List[Optional[int]]: ...
    def string_ids(self) -> List[str]: ...
    @property
    def has_string_ids(self) -> bool: ...
    @property
    def has_token_embeddings(self) -> bool: ...
    def ids(self) -> npt.NDArray[np.uint64]: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...
    @property
    def encodes(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def device(self) -> str: ...
