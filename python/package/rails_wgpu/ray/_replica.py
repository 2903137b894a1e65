"""An actor that holds one shard."""

import os
import threading
from collections import OrderedDict
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from .._native import Cancel
from .._searcher import KernelTime, Searcher, Stats
from . import _folder
from ._answer import Answer, How, Queries
from ._errors import OutOfDate

# Versions that are held open: the present one, the one before for searches that began with it, and the next one.
_OPEN = 3


class Replica:
    """The items of one shard on one device.

    Every request names the index folder that it is about, so a replica has no state that could be wrong: one that was
    started anew, or has slept through a change, opens the folder when it is asked for it.
    """

    def __init__(self, folder: str, shard: int, device: str, device_memory: Optional[int], threads: int) -> None:
        # Read when the first search starts the threads.
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        self._folder = folder
        self._device = device
        self._device_memory = device_memory
        self._searchers: "OrderedDict[str, Searcher]" = OrderedDict()
        self._opening = threading.Lock()
        self._running: Dict[str, Cancel] = {}
        self.open(_folder.read(folder).shards[shard])

    def open(self, name: str) -> int:
        """Makes the shard's version `name` ready. Returns its number of items."""
        return len(self._searcher(name))

    def pid(self) -> int:
        """The process."""
        return os.getpid()

    def search(self, name: str, token: str, how: How, queries: Queries) -> Answer:
        """The best items of version `name`."""
        cancel = self._running.setdefault(token, Cancel())
        try:
            searcher = self._searcher(name)
            ids, scores, (counts, seconds, kernels), _, bounds = searcher._inner.search(
                queries.rows, None, how.k, queries.users, how.algorithm, queries.exclude, queries.allow, None, how.profile,
                how.certify, cancel, list(queries.conditions),
            )  # fmt: skip
            stats = Stats(*counts, dict(seconds), [KernelTime(*kernel) for kernel in kernels]) if how.profile else None
            return Answer(ids, scores, bounds, stats, len(searcher))
        finally:
            self._running.pop(token, None)

    def cancel(self, token: str) -> None:
        """Ends a search."""
        running = self._running.get(token)
        if running is not None:
            running.cancel()

    def encode(self, name: str, histories: Sequence[Any]) -> "npt.NDArray[np.float32]":
        """Query embeddings of histories."""
        return self._searcher(name).encode(histories)

    def contains(self, name: str, id: int) -> bool:
        """Whether an item is there."""
        return id in self._searcher(name)

    def attributes(self, name: str) -> Dict[str, str]:
        """Names and types of attributes."""
        return self._searcher(name).attributes

    def change(self, name: str, new: str, operation: str, *arguments: Any) -> Tuple[str, int]:
        """Makes version `new` of version `name`: ``add``, ``remove``, ``distill`` or ``compact``. `new`, and what that counts."""
        source, target = os.path.join(self._folder, name), os.path.join(self._folder, new)
        try:
            _folder.link(source, target)
        except FileNotFoundError:
            raise OutOfDate(f"{source} is gone") from None
        searcher = self._new(target)
        counted = getattr(searcher, operation)(*arguments)
        self._keep(new, searcher)
        return new, int(counted or 0)

    def _new(self, path: str) -> Searcher:
        return Searcher.from_index(path, self._device, device_memory=self._device_memory)

    def _searcher(self, name: str) -> Searcher:
        found = self._searchers.get(name)
        if found is not None:
            return found
        with self._opening:
            found = self._searchers.get(name)
            if found is not None:
                return found
            path = os.path.join(self._folder, name)
            try:
                found = self._new(path)
            except (ValueError, OSError):
                if os.path.exists(os.path.join(path, "manifest.json")):
                    raise
                raise OutOfDate(f"{path} is gone") from None
        self._keep(name, found)
        return found

    def _keep(self, name: str, searcher: Searcher) -> None:
        with self._opening:
            self._searchers[name] = searcher
            while len(self._searchers) > _OPEN:
                self._searchers.popitem(last=False)
