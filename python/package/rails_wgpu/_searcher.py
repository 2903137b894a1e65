"""Searching and encoding."""

import os
import tempfile
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from . import _arrays, _native
from ._mol import export_mol

Path = Union[str, "os.PathLike[str]"]

NO_ITEM = -1
"""Fills a row of ids that has fewer than k items; its scores are ``-inf`` there."""


class History(NamedTuple):
    """What one user has done so far."""

    item_ids: Any
    """(n,) ids of the events, rows of the model's item table, oldest first; n >= 1."""
    timestamps: Any
    """(n,) Unix times of the events, in seconds."""
    now: Optional[int] = None
    """Time of the request; ``None``: that of the last event."""
    user_id: int = 0
    """The user; only models with uid embeddings look at it."""


class KernelTime(NamedTuple):
    """What one kernel of a GPU took in one stage, by the timestamps of the device."""

    stage: str
    kernel: str
    dispatches: int
    seconds: float


class Stats(NamedTuple):
    """What a search took."""

    pairs: int
    """(query, item) pairs scored with the full similarity."""
    pruned: int
    """Pairs that ``exact-pruned`` left out."""
    candidates: int
    """Pairs that a first stage left to be scored; 0 for a scan of everything."""
    bytes_read: int
    """Bytes of item tables read, an estimate without caches."""
    seconds: Dict[str, float]
    """Time by stage: ``query-side``, ``first-stage``, ``scoring``, ``selection``, ``certifying``; and ``total``."""
    kernels: List[KernelTime]
    """Kernels of a GPU that has timestamps; else none."""


class Searcher:
    """Items on a device, and how to search them.

    Made by :meth:`from_checkpoint`, :meth:`from_embeddings` or :meth:`from_index`. Any number of threads may use one at once: the
    interpreter is released while it works.
    """

    def __init__(self, native: _native.Searcher) -> None:
        self._native = native

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Path,
        config: Optional[Path] = None,
        item_ids: Optional[Any] = None,
        device: str = "auto",
        dtype: str = "f32",
        form: str = "auto",
        n_lists: Optional[int] = None,
        device_memory: Optional[int] = None,
        folder: Optional[Path] = None,
    ) -> "Searcher":
        """A searcher over items of a model's own item table, with the model's encoder.

        ``checkpoint`` is a ``.pt`` or ``.safetensors`` file; nothing in it is executed. ``config`` is the ``.gin`` file the
        model was trained with; by default the one beside the checkpoint, or what is inside it. ``item_ids`` (N,) are
        the rows to index; by default all, from 1 on. ``device`` is ``auto``, ``cpu``, ``gpu`` or a part of a name that
        :func:`devices` lists; ``dtype`` is the format of the tables: ``f32``, ``f16`` or ``i8``.

        ``form`` says how item components are kept: ``components``, ``raw`` (computed in every search, for a fraction of
        the memory) or ``auto``, by size. ``n_lists`` inverted lists serve ``naive-ivf`` and ``tangent-ivf``; 0: as many as
        suit the number of items, ``None``: none. ``device_memory`` are the bytes of tables that may stay on the device;
        what exceeds them passes through it in every search. ``folder``: a new folder that the index is stored in, with
        the model; :meth:`from_index` opens it again.

        Raises OSError, ValueError or DeviceError, with words that say what was expected and what was found.
        """
        ids = None if item_ids is None else _arrays.ids("item_ids", item_ids)
        options = (dtype, form, n_lists, device_memory)
        return cls(_native.Searcher.from_checkpoint(checkpoint, config, ids, device, options, folder))

    @classmethod
    def from_index(
        cls, folder: Path, device: str = "auto", check: bool = False, device_memory: Optional[int] = None
    ) -> "Searcher":
        """Opens an index folder that ``rails-bench index build`` or :meth:`from_checkpoint` made.

        Everything is in it: items, similarity, and the encoder if it was built with one. Items that are added or removed
        are changed in the folder too. ``check``: whether to compare all files with their checksums first.
        ``device_memory`` as for :meth:`from_checkpoint`.

        Raises ValueError or DeviceError.
        """
        return cls(_native.Searcher.from_index(folder, device, check, device_memory))

    @classmethod
    def from_embeddings(
        cls,
        ids: Any,
        embeddings: Any,
        mol: Optional[Any] = None,
        device: str = "auto",
        dtype: str = "f32",
        form: str = "auto",
        n_lists: Optional[int] = None,
        device_memory: Optional[int] = None,
    ) -> "Searcher":
        """A searcher over items with embeddings of your own.

        ``ids`` (N,) are distinct integers from 0 to 2**63 - 1, ``embeddings`` (N, D) their raw embeddings. ``mol`` is the
        similarity: a file that :func:`export_mol` wrote or a whole checkpoint, the bytes :func:`export_mol` returned, or
        a live PyTorch module; ``None``: the inner product. With a whole checkpoint, :meth:`encode` works too.

        Raises as :meth:`from_checkpoint`.
        """
        numbers, rows = _arrays.ids("ids", ids), _arrays.floats("embeddings", embeddings)
        options = (dtype, form, n_lists, device_memory)
        if mol is None or isinstance(mol, (str, os.PathLike)):
            return cls(_native.Searcher.from_embeddings(numbers, rows, mol, device, options))
        content = mol if isinstance(mol, bytes) else export_mol(mol)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "mol.safetensors")
            with open(path, "wb") as file:
                file.write(content)
            return cls(_native.Searcher.from_embeddings(numbers, rows, path, device, options))

    def encode(self, histories: Iterable[History]) -> "npt.NDArray[np.float32]":
        """(B, D): query embeddings of B histories, each a :class:`History` or a tuple like one.

        Events before the model's longest history are left out. Raises ValueError if a history is empty or an id is not
        in the item table, or if there is no encoder.
        """
        found = [History(*history) for history in histories]
        most = np.iinfo(np.uint32).max
        item_ids = [_arrays.integers("item_ids", history.item_ids, 0, most) for history in found]
        least = np.iinfo(np.int64).min
        times = [_arrays.integers("timestamps", history.timestamps, least) for history in found]
        for items, stamps in zip(item_ids, times):
            if len(items) != len(stamps):
                raise ValueError(f"history: expected {len(items)} timestamps, found {len(stamps)}")
        nows = [
            int(stamps[-1]) if history.now is None and len(stamps) else int(history.now or 0)
            for history, stamps in zip(found, times)
        ]
        return self._native.encode(
            np.concatenate([np.empty(0, np.uint32), *item_ids]).astype(np.uint32),
            np.concatenate([np.empty(0, np.int64), *times]).astype(np.int64),
            _arrays.offsets(item_ids),
            np.array([history.user_id for history in found], dtype=np.int64),
            np.array(nows, dtype=np.int64),
        )

    def search(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]":
        """The k best items of each query: ids (B, k) and scores (B, k), by score descending, then id ascending.

        ``queries`` (B, D) are raw query embeddings, 1 <= k <= N. ``user_ids`` (B,) are needed by models with uid
        embeddings only. ``algorithm`` is ``exact``, ``mips``, ``tangent:1000``, ... as in the README. ``exclude`` names
        items that a query must not find: B lists of ids (or one (B, m) array); negative numbers in it are padding.
        ``allow`` (m,) are the only ids that any query may find. Where fewer than k items are left, a row ends in
        ``NO_ITEM`` (-1) and ``-inf``.

        Raises ValueError or DeviceError.
        """
        ids, scores, _ = self._search(queries, k, user_ids, algorithm, exclude, allow, False)
        return ids, scores

    def search_with_stats(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Stats]":
        """As :meth:`search`, and what it took. On a GPU it takes longer than that: every kernel is timed by itself."""
        ids, scores, (counts, seconds, kernels) = self._search(queries, k, user_ids, algorithm, exclude, allow, True)
        return ids, scores, Stats(*counts, dict(seconds), [KernelTime(*kernel) for kernel in kernels])

    def _search(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any],
        algorithm: str,
        exclude: Optional[Sequence[Any]],
        allow: Optional[Any],
        profile: bool,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], _native._Took]":
        if k < 0:
            raise ValueError(f"k: expected 1..={len(self)} (the number of items), found {k}")
        return self._native.search(
            _arrays.floats("queries", queries),
            k,
            _users(user_ids),
            algorithm,
            None if exclude is None else _arrays.id_lists("exclude", exclude),
            None if allow is None else _arrays.ids("allow", allow),
            profile,
        )

    def distill(self, queries: Any, user_ids: Optional[Any] = None) -> None:
        """Learns what the algorithms ``distilled`` and ``cascade`` need and ``tangent`` is better with.

        ``queries`` (B, D) should be like those that will be asked; a few hundred are enough. An index of a folder keeps
        it there. Raises ValueError if there is no Mixture-of-Logits similarity.
        """
        self._native.distill(_arrays.floats("queries", queries), _users(user_ids))

    def compact(self) -> None:
        """Rewrites the index without the deleted items and with as few segments as may be."""
        self._native.compact()

    def add(self, ids: Any, embeddings: Any) -> None:
        """Adds items ``ids`` (n,) with raw embeddings (n, D), replacing those that are there.

        Searches that begin afterwards find them. On ValueError nothing has changed.
        """
        self._native.add(_arrays.ids("ids", ids), _arrays.floats("embeddings", embeddings))

    def remove(self, ids: Any) -> int:
        """Removes items ``ids`` (n,), passing over those that are not there; returns how many were."""
        return self._native.remove(_arrays.ids("ids", ids))

    def __len__(self) -> int:
        """N: number of items that can be found."""
        return len(self._native)

    def __contains__(self, id: object) -> bool:
        """Whether item ``id`` can be found."""
        if not isinstance(id, (int, np.integer)) or id < 0:
            return False
        return int(id) < 2**64 and int(id) in self._native

    def __repr__(self) -> str:
        return f"<rails_wgpu.Searcher: {len(self)} items, D = {self.dim}, on {self.device}>"

    @property
    def ids(self) -> "npt.NDArray[np.int64]":
        """(N,): ids that can be found, ascending."""
        return np.array(self._native.ids(), dtype=np.int64)

    @property
    def dim(self) -> int:
        """D: width of raw item and query embeddings."""
        return self._native.dim

    @property
    def device(self) -> str:
        """Name of the device in use."""
        return self._native.device


def _users(user_ids: Optional[Any]) -> "Optional[npt.NDArray[np.int64]]":
    if user_ids is None:
        return None
    return np.ascontiguousarray(_arrays.integers("user_ids", user_ids, np.iinfo(np.int64).min), dtype=np.int64)
