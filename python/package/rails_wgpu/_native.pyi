import os
from typing import List, Optional, Tuple

import numpy as np
import numpy.typing as npt

__version__: str

class DeviceError(RuntimeError):
    """There is no such device, it failed, or the work does not fit it."""

def devices() -> List[Tuple[str, str, str, str]]: ...

class Searcher:
    @staticmethod
    def from_checkpoint(
        checkpoint: "str | os.PathLike[str]",
        config: "Optional[str | os.PathLike[str]]",
        item_ids: Optional[npt.NDArray[np.uint64]],
        device: str,
        format: str,
    ) -> Searcher: ...
    @staticmethod
    def from_embeddings(
        ids: npt.NDArray[np.uint64],
        embeddings: npt.NDArray[np.float32],
        mol: "Optional[str | os.PathLike[str]]",
        device: str,
        format: str,
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
        k: int,
        user_ids: Optional[npt.NDArray[np.int64]],
        algorithm: str,
        excluded: Optional[Tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]],
        allowed: Optional[npt.NDArray[np.uint64]],
    ) -> Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
    def add(self, ids: npt.NDArray[np.uint64], embeddings: npt.NDArray[np.float32]) -> None: ...
    def remove(self, ids: npt.NDArray[np.uint64]) -> int: ...
    def ids(self) -> List[int]: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def device(self) -> str: ...
