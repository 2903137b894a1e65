"""Searching and encoding."""

import logging
import os
import tempfile
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from . import _arrays, _native
from ._native import Cancel
from ._mol import export_mol

Path = Union[str, "os.PathLike[str]"]

NO_ITEM = -1
"""Fills a row of ids that has fewer than k items; its scores are ``-inf`` there."""


_logger = logging.getLogger("rails_wgpu")


class History(NamedTuple):
    """What one user has done: item ids (n,), oldest first, their Unix times (n,) in seconds, the time of the request, the user."""

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

    Made by :meth:`from_checkpoint`, :meth:`from_embeddings`, :meth:`from_token_embeddings` or :meth:`from_index`. Any number of threads may use one at once: the
    interpreter is released while it works.
    """

    def __init__(self, native: _native.Searcher, opened: "Optional[Tuple[str, str, bool, Optional[int]]]" = None) -> None:
        self._searcher = native
        self._opened = opened  # arguments of `from_index` that give the same searcher

    @property
    def _inner(self) -> _native.Searcher:
        # What nobody listens to is not handed over to Python: that takes the interpreter.
        _native.set_log_level(_logger.getEffectiveLevel())
        return self._searcher

    def __reduce__(self) -> "Tuple[Callable[..., Searcher], Tuple[Any, ...]]":
        if self._opened is None:
            raise TypeError(
                "a Searcher in memory cannot be pickled: save() it to a folder, and open that with Searcher.from_index()"
            )
        return Searcher.from_index, self._opened

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
        attributes: Optional[Any] = None,
    ) -> "Searcher":
        """A searcher over items of a model's own item table, with the model's encoder.

        ``checkpoint`` is a ``.pt`` or ``.safetensors`` file; nothing in it is executed. ``config`` is the ``.gin`` file the
        model was trained with; by default the one beside the checkpoint, or what is inside it. ``item_ids`` (N,) are
        the rows to index; by default all, from 1 on. ``device`` is ``auto``, ``cpu``, ``gpu`` or a part of what
        :func:`devices` lists, name, API and driver; ``dtype`` is the format of the tables: ``f32``, ``f16`` or ``int8``.

        ``form`` says how item components are kept: ``components``, ``raw`` (computed in every search, for a fraction of
        the memory) or ``auto``, by size. ``n_lists`` inverted lists serve ``naive-ivf`` and ``tangent-ivf``; 0: as many as
        suit the number of items, ``None``: none. ``device_memory`` are the bytes of tables that may stay on the device;
        what exceeds them passes through it in every search. ``folder``: a new folder that the index is stored in, with
        the model; :meth:`from_index` opens it again. ``attributes`` of items, for ``where`` of :meth:`search`: a CSV or TSV
        file with a column ``id`` or ``item_id``, or a dictionary or data frame of columns (whole numbers, numbers or strings; None or
        NaN: missing) with one value for each of ``item_ids``, or with a column ``id``.

        Raises OSError, ValueError or DeviceError, with words that say what was expected and what was found.
        """
        ids = None if item_ids is None else _arrays.ids("item_ids", item_ids)
        options = _options(dtype, form, n_lists, device_memory)
        native = _native.Searcher.from_checkpoint(
            checkpoint, config, ids, device, options, folder, _arrays.attributes(attributes, item_ids)
        )
        return cls(native, _opened(folder, device, device_memory))

    @classmethod
    def from_index(
        cls, folder: Path, device: str = "auto", check: bool = False, device_memory: Optional[int] = None
    ) -> "Searcher":
        """Opens an index folder that ``rails-bench index build``, :meth:`save` or ``folder=`` made.

        Everything is in it: items, similarity, and the encoder if it was built with one. Items that are added or removed
        are changed in the folder too. ``check``: whether to compare all files with their checksums first.
        ``device_memory`` as for :meth:`from_checkpoint`.

        What such a searcher pickles into is the folder and these arguments: another process opens the folder anew.

        Raises ValueError or DeviceError.
        """
        memory = _memory(device_memory)
        return cls(_native.Searcher.from_index(folder, device, check, memory), _opened(folder, device, memory, check))

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
        folder: Optional[Path] = None,
        attributes: Optional[Any] = None,
    ) -> "Searcher":
        """A searcher over items with embeddings of your own.

        ``ids`` (N,) are distinct integers from 0 to 2**63 - 1, or distinct strings, which every method takes and returns then;
        ``embeddings`` (N, D) are their raw embeddings. ``mol`` is the
        similarity: a file that :func:`export_mol` wrote or a whole checkpoint, the bytes :func:`export_mol` returned, or
        a live PyTorch module; ``None``: the inner product. With a whole checkpoint, :meth:`encode` works too. With what
        :func:`export_gate` made, ``embeddings`` are component embeddings (N, P_X, D_P), and queries (B, P_Q, D_P). ``folder``: a
        new folder that the index is stored in, with its similarity, and with the encoder of a whole checkpoint. ``attributes`` as for
        :meth:`from_checkpoint`, one value for each of ``ids``.

        Raises as :meth:`from_checkpoint`.
        """
        numbers, rows = _arrays.item_ids("ids", ids), _arrays.floats("embeddings", embeddings)
        options = _options(dtype, form, n_lists, device_memory)
        named = _arrays.attributes(attributes, ids)

        def build(mol: Optional[Path]) -> "Searcher":
            native = _native.Searcher.from_embeddings(numbers, rows, mol, device, options, folder, named)
            return cls(native, _opened(folder, device, device_memory))

        if mol is None or isinstance(mol, (str, os.PathLike)):
            return build(mol)
        content = mol if isinstance(mol, bytes) else export_mol(mol)
        with tempfile.TemporaryDirectory() as temporary:
            path = os.path.join(temporary, "mol.safetensors")
            with open(path, "wb") as file:
                file.write(content)
            return build(path)

    @classmethod
    def from_token_embeddings(
        cls,
        ids: Any,
        token_embeddings: Any,
        device: str = "auto",
        dtype: str = "f32",
        n_lists: Optional[int] = None,
        device_memory: Optional[int] = None,
        folder: Optional[Path] = None,
        attributes: Optional[Any] = None,
    ) -> "Searcher":
        """A searcher over items of several vectors each, for late interaction (MaxSim, as in ColBERT).

        ``ids`` (N,) are whole numbers; ``token_embeddings`` are N arrays (n, D) with n >= 1, which may differ, or one
        array (N, n, D). The score of a query and an item is, for each vector of the query, its greatest inner product with
        a vector of the item, summed. Queries come the same way: to :meth:`search`, as B arrays (n, D) or one array
        (B, n, D). Algorithms: ``exact``, ``centroids:K``, ``avg:K``, ``naive:K`` and ``mips``, as in
        docs/LATE_INTERACTION.md. ``n_lists`` centroids serve ``centroids:K``; 0: as many as suit the number of vectors, ``None``:
        none.

        Raises as :meth:`from_checkpoint`.
        """
        vectors, lengths = _arrays.token_embeddings("token_embeddings", token_embeddings)
        options = _options(dtype, "auto", n_lists, device_memory)
        numbers = _arrays.ids("ids", ids)
        native = _native.Searcher.from_token_embeddings(
            numbers, vectors, lengths, device, options, folder, _arrays.attributes(attributes, ids)
        )
        return cls(native, _opened(folder, device, device_memory))

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
            int(stamps[-1]) if history.now is None and len(stamps) else _arrays.integer("now", history.now or 0, least)
            for history, stamps in zip(found, times)
        ]
        users = [_arrays.integer("user_id", history.user_id, least) for history in found]
        return self._inner.encode(
            np.concatenate([np.empty(0, np.uint32), *item_ids]).astype(np.uint32),
            np.concatenate([np.empty(0, np.int64), *times]).astype(np.int64),
            _arrays.offsets(item_ids),
            np.array(users, dtype=np.int64),
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
        scores: Optional[Sequence[Mapping[Any, float]]] = None,
        weight: float = 1.0,
        cancel: Optional[Cancel] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[Any], npt.NDArray[np.float32]]":
        """The k best items of each query: ids (B, k) and scores (B, k), by score descending, then id ascending.

        ``queries`` (B, D) are raw query embeddings, or (B, P_Q, D_P) given components (for an index of token embeddings B arrays (n, D),
        or one (B, n, D)), k >= 1; where k is greater than N, there are N columns. One query (D,)
        gives ids (k,) and scores (k,); it has one user, and one list of excluded ids. ``user_ids`` (B,) are needed by models
        with uid embeddings only. ``algorithm`` is ``exact``, ``mips``, ``tangent:1000``, ... as in the README. ``exclude`` names
        items that a query must not find: B lists or sets of ids (or one (B, m) array); negative numbers in it are padding.
        ``allow`` (m,), a list or a set, are the only ids that any query may find. ``scores``: for each query a dictionary of ids and scores, from a
        search by words, say; results are then ordered by, and have, ``weight * similarity + score``, with a score of 0 for other items.
        Where fewer than k items are left, a row ends in ``NO_ITEM`` (-1) and ``-inf``. Where ids are strings, so are those of
        ``exclude``, ``allow`` and ``scores`` (None is padding), and ids (B, k) are an array of objects, strings and, where items are missing, None.
        ``cancel`` ends the search when another thread calls its ``cancel()``. ``where`` is what attributes of an item must be for it to be
        found, an SQL expression such as ``"year >= ?1 AND genre = ?2"`` with the values ``params`` of its parameters; or one (or None) for
        each query, and as many lists of values (docs/FILTERS.md).

        Raises ValueError, TypeError, DeviceError or Cancelled.
        """
        return self._search(queries, k, user_ids, algorithm, exclude, allow, (scores, weight), False, False, cancel, (where, params))[:2]

    def search_with_stats(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        scores: Optional[Sequence[Mapping[Any, float]]] = None,
        weight: float = 1.0,
        cancel: Optional[Cancel] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[Any], npt.NDArray[np.float32], Stats]":
        """As :meth:`search`, and what it took. On a GPU it takes longer than that: every kernel is timed by itself."""
        found = self._search(queries, k, user_ids, algorithm, exclude, allow, (scores, weight), True, False, cancel, (where, params))
        ids, found_scores, (counts, seconds, kernels), _ = found
        return ids, found_scores, Stats(*counts, dict(seconds), [KernelTime(*kernel) for kernel in kernels])

    def search_with_bounds(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        cancel: Optional[Cancel] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32]]":
        """As :meth:`search`, and certificates: bounds (B,), what an item that a query has missed can score at most.

        A bound of ``-inf`` says that nothing was missed: the row is that of an exact search. One query (D,) has one bound.
        It takes another scan of the item components.
        """
        found = self._search(queries, k, user_ids, algorithm, exclude, allow, (None, 1.0), False, True, cancel, (where, params))
        return found[0], found[1], found[3]

    def _search(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any],
        algorithm: str,
        exclude: Optional[Sequence[Any]],
        allow: Optional[Any],
        fusion: "Tuple[Optional[Sequence[Mapping[Any, float]]], float]",
        profile: bool,
        certify: bool,
        cancel: Optional[Cancel],
        conditions: "Tuple[Any, Any]",
    ) -> "Tuple[npt.NDArray[Any], npt.NDArray[np.float32], _native._Took, npt.NDArray[np.float32]]":
        rows, lengths, users, single = self._queries(queries, user_ids)
        if single and exclude is not None:
            exclude = [exclude]
        added, weight = fusion
        if single and isinstance(added, Mapping):
            added = [added]
        if self._searcher.has_string_ids:
            exclude = None if exclude is None else [self._known("exclude", ids) for ids in exclude]
            allow = None if allow is None else self._known("allow", allow)
            added = None if added is None else [self._scores(of_query) for of_query in added]
        ids: "npt.NDArray[Any]"
        ids, scores, took, strings, bounds = self._inner.search(
            rows,
            lengths,
            _arrays.integer("k", k, 1),
            users,
            algorithm,
            None if exclude is None else _arrays.id_lists("exclude", exclude),
            None if allow is None else _arrays.ids("allow", _arrays.unordered(allow)),
            None if added is None else (float(weight), *_arrays.score_lists("scores", added)),
            profile,
            certify,
            cancel,
            _arrays.conditions(*conditions, len(rows) if lengths is None else len(lengths)),
        )
        if self._searcher.has_string_ids:
            ids = np.full(ids.shape, None, dtype=object)
            for row, found in zip(ids, strings):
                row[: len(found)] = found
        return (ids[0], scores[0], took, bounds[0] if certify else bounds) if single else (ids, scores, took, bounds)

    def _numbers(self, strings: Any) -> "List[int]":
        """Numbers of string ids, all of which can be found; -1 where there is padding."""
        found = _arrays.string_ids("candidates", strings)
        known = iter(self._searcher.numbers([string for string in found if string is not None]))
        numbers = [-1 if string is None else next(known) for string in found]
        missing = [string for string, number in zip(found, numbers) if number is None]
        if missing:
            raise ValueError(f"candidates: expected string ids of items in the index, found {missing}")
        return [number for number in numbers if number is not None]

    def _scores(self, of_query: "Mapping[str, float]") -> "Dict[int, float]":
        """Scores by number, of the string ids that can be found."""
        numbers = self._searcher.numbers(list(of_query))
        return {number: score for number, score in zip(numbers, of_query.values()) if number is not None}

    def _known(self, name: str, strings: Any) -> "npt.NDArray[np.uint64]":
        """Numbers of the string ids that can be found."""
        found = [string for string in _arrays.string_ids(name, strings) if string is not None]
        return np.array([number for number in self._searcher.numbers(found) if number is not None], dtype=np.uint64)

    def _queries(
        self, queries: Any, user_ids: Optional[Any]
    ) -> "Tuple[npt.NDArray[np.float32], Optional[npt.NDArray[np.uint64]], Optional[npt.NDArray[np.int64]], bool]":
        """Queries (B, D), or (T, D) and how many of these each query has; their users; whether there is one query, not a batch."""
        users = None if user_ids is None else np.atleast_1d(_arrays.to_numpy("user_ids", user_ids))
        if self._searcher.has_token_embeddings and _arrays.has_tokens(queries):
            vectors, lengths = _arrays.token_embeddings("queries", queries)
            return vectors, lengths, None if users is None else _arrays.users(users), False
        array = _arrays.to_numpy("queries", queries)
        single = array.ndim == 1
        if single:
            array = array[None]
        else:
            users = user_ids
        return _arrays.floats("queries", array), None, None if users is None else _arrays.users(users), single

    def rescore(self, queries: Any, candidates: Any, user_ids: Optional[Any] = None) -> "npt.NDArray[np.float32]":
        """Scores (B, m) of ``candidates``: B lists of at most m ids of items that are there, or a (B, m) array.

        Scores have the order of the candidates; what a list lacks to m, and negative numbers (None among strings), which are padding, score
        ``-inf``. One query (D,) and its candidates (m,) give scores (m,). Raises ValueError, naming ids that are not there.
        """
        rows, lengths, users, single = self._queries(queries, user_ids)
        least = np.iinfo(np.int64).min
        candidates = [candidates] if single else candidates
        if self._searcher.has_string_ids:
            candidates = [self._numbers(ids) for ids in candidates]
        lists = [_arrays.integers("candidates", ids, least) for ids in candidates]
        scores = np.full((len(lists), max(map(len, lists), default=0)), -np.inf, dtype=np.float32)
        known = np.zeros(scores.shape, dtype=bool)
        for row, ids in zip(known, lists):
            row[: len(ids)] = ids >= 0
        scores[known] = self._inner.rescore(rows, lengths, _arrays.id_lists("candidates", lists), users)
        return scores[0] if single else scores

    def distill(
        self,
        queries: Any,
        user_ids: Optional[Any] = None,
        progress: "Optional[Callable[[float], object]]" = None,
    ) -> None:
        """Learns what the algorithms ``distilled`` and ``cascade`` need and ``tangent`` is better with.

        ``queries`` (B, D) should be like those that will be asked; a few hundred are enough. An index of a folder keeps
        it there. ``progress`` is called with the share that is done, from 0 to 1; Ctrl-C, or whatever it raises, ends the
        learning, and nothing is learned then. Raises ValueError if there is no Mixture-of-Logits similarity.
        """
        rows, _, users, _ = self._queries(queries, user_ids)
        self._inner.distill(rows, users, progress)

    def compact(self) -> None:
        """Rewrites the index without the deleted items and with as few segments as may be."""
        self._inner.compact()

    def refresh(self) -> bool:
        """Goes to the latest version of the folder, where another process may have changed it.

        Returns whether it is another version; False for an index in memory. Raises ValueError if the folder is damaged.
        """
        return self._inner.refresh()

    def save(self, folder: Path) -> None:
        """Writes the items as they are now into a new folder; :meth:`from_index` opens it. This searcher stays where it is.

        The similarity goes along, and what :meth:`distill` learned; the encoder if this searcher was opened from a folder
        that has one, or made with ``folder=``. Raises ValueError if there is an index already.
        """
        if self._opened is None and self._searcher.encodes:
            raise ValueError(
                "folder: expected a searcher without an encoder, or one made with folder=, which stores its encoder: "
                "found a searcher of a whole model in memory"
            )
        self._inner.save(folder)

    def add(self, ids: Any, embeddings: Any, attributes: Optional[Any] = None) -> None:
        """Adds items ``ids`` (n,) with raw embeddings (n, D), replacing those that are there.

        Searches that begin afterwards find them. ``attributes`` as for :meth:`from_embeddings`, of an index that has such; items without
        have none afterwards. On ValueError nothing has changed.
        """
        named = _arrays.attributes(attributes, ids)
        self._inner.add(_arrays.item_ids("ids", ids), _arrays.floats("embeddings", embeddings), named)

    def add_token_embeddings(self, ids: Any, token_embeddings: Any) -> None:
        """As :meth:`add`, for an index of token embeddings: n arrays, each of one item, as in :meth:`from_token_embeddings`."""
        vectors, lengths = _arrays.token_embeddings("token_embeddings", token_embeddings)
        self._inner.add_token_embeddings(_arrays.ids("ids", ids), vectors, lengths)

    def remove(self, ids: Any) -> int:
        """Removes items ``ids`` (n,), a list or a set, passing over those that are not there; returns how many were."""
        return self._inner.remove(_arrays.item_ids("ids", _arrays.unordered(ids)))

    @property
    def attributes(self) -> "Dict[str, str]":
        """Names and types (``INTEGER``, ``REAL`` or ``TEXT``) of the attributes of items; none if they have none."""
        return dict(self._inner.attributes)

    def __len__(self) -> int:
        """N: number of items that can be found."""
        return len(self._inner)

    def __contains__(self, id: object) -> bool:
        """Whether item ``id`` can be found."""
        if isinstance(id, str):
            return self._inner.numbers([id])[0] is not None
        if self._inner.has_string_ids or not isinstance(id, (int, np.integer)) or id < 0:
            return False
        return int(id) < 2**64 and int(id) in self._inner

    def __repr__(self) -> str:
        return f"<rails_wgpu.Searcher: {len(self)} items, D = {self.dim}, on {self.device}>"

    @property
    def ids(self) -> "npt.NDArray[Any]":
        """(N,): ids that can be found, ascending; strings, as objects, in the order of the numbers that stand for them."""
        if self._inner.has_string_ids:
            return np.array(self._inner.string_ids(), dtype=object)
        return self._inner.ids().astype(np.int64)

    @property
    def dim(self) -> int:
        """D: width of raw item embeddings; P_X * D_P of given components."""
        return self._inner.dim

    @property
    def device(self) -> str:
        """Name of the device in use."""
        return self._inner.device


def _options(
    dtype: str, form: str, n_lists: Optional[int], device_memory: Optional[int]
) -> "Tuple[str, str, Optional[int], Optional[int]]":
    most = 2**32 - 1
    return dtype, form, None if n_lists is None else _arrays.integer("n_lists", n_lists, 0, most), _memory(device_memory)


def _memory(device_memory: Optional[int]) -> Optional[int]:
    return None if device_memory is None else _arrays.integer("device_memory", device_memory, 0)


def _opened(
    folder: Optional[Path], device: str, device_memory: Optional[int], check: bool = False
) -> "Optional[Tuple[str, str, bool, Optional[int]]]":
    return None if folder is None else (os.path.abspath(os.fspath(folder)), device, check, device_memory)

