"""What is asked of shards, what they answer, and how answers become one."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from .._searcher import NO_ITEM, KernelTime, Stats
from . import _folder

IdLists = Tuple["npt.NDArray[np.uint64]", "npt.NDArray[np.uint64]"]
Condition = Tuple[str, List[Any]]
"""An SQL expression, and the values of its parameters."""


class How(NamedTuple):
    """What queries must have in common to be answered in one batch."""

    k: int
    algorithm: str
    certify: bool
    profile: bool


class Queries(NamedTuple):
    """Some queries, checked."""

    rows: "npt.NDArray[np.float32]"
    """(B, D)"""
    users: "Optional[npt.NDArray[np.int64]]"
    """(B,)"""
    exclude: Optional[IdLists]
    """B lists one after the other, and where each begins and the last one ends."""
    allow: "Optional[npt.NDArray[np.uint64]]"
    """The only ids that may be found."""
    conditions: Sequence[Condition] = ()
    """One for each query, or none at all."""

    def for_shards(self, n_shards: int) -> "List[Queries]":
        """Those for each shard, without the allowed ids of the others."""
        if self.allow is None:
            return [self] * n_shards
        shards = _folder.shard_of(self.allow, n_shards)
        order = np.argsort(shards, kind="stable")
        ends = np.searchsorted(shards[order], np.arange(1, n_shards))
        return [self._replace(allow=allow) for allow in np.split(self.allow[order], ends)]


class Answer(NamedTuple):
    """Hits of some queries among some items, by score descending, then id ascending."""

    ids: "npt.NDArray[np.int64]"
    """(B, k')"""
    scores: "npt.NDArray[np.float32]"
    """(B, k')"""
    bounds: "npt.NDArray[np.float32]"
    """(B,) what an item that was missed can score at most; empty unless asked for."""
    stats: Optional[Stats]
    items: int
    """How many items there are."""
    missing: Tuple[int, ...] = ()
    """Shards that did not answer."""

    def of_rows(self, begin: int, end: int) -> "Answer":
        """That of some of the queries."""
        return self._replace(
            ids=self.ids[begin:end], scores=self.scores[begin:end], bounds=self.bounds[begin:end]
        )


def together(queries: Sequence[Queries]) -> Queries:
    """One batch of all of them. All have users or none, likewise exclusions and conditions; `allow` is that of the first."""
    first = queries[0]
    if len(queries) == 1:
        return first
    users = [some.users for some in queries if some.users is not None]
    lists = [some.exclude for some in queries if some.exclude is not None]
    exclude = None
    if lists:
        lengths = np.concatenate([np.diff(offsets) for _, offsets in lists])
        offsets = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths, dtype=np.uint64)])
        exclude = (np.concatenate([ids for ids, _ in lists]), offsets)
    rows = np.concatenate([some.rows for some in queries])
    conditions = [condition for some in queries for condition in some.conditions]
    return Queries(rows, np.concatenate(users) if users else None, exclude, first.allow, conditions)


def merge(answers: Sequence[Answer], k: int, missing: Sequence[int] = ()) -> Answer:
    """The answer of one index with the items of all of them. At least one answer; a score is finite or belongs to no item."""
    n_items = sum(answer.items for answer in answers)
    ids = np.concatenate([answer.ids for answer in answers], axis=1)
    scores = np.concatenate([answer.scores for answer in answers], axis=1)
    # Sorted by the last key first. 0 and -0 are equal here, as they are in a search.
    order = np.lexsort((ids, -scores))[:, : min(k, n_items)]
    ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
    bounds = np.empty(0, np.float32)
    if len(answers[0].bounds):
        bounds = np.max([answer.bounds for answer in answers], axis=0)
        # Nothing was missed that is below the k-th hit. A row with fewer hits has all that there are.
        exact = bounds < scores[:, -1] if scores.shape[1] else np.ones(len(bounds), bool)
        bounds = np.where(exact, np.float32(-np.inf), bounds)
    stats = [answer.stats for answer in answers if answer.stats is not None]
    return Answer(ids, scores, bounds, _all_stats(stats) if stats else None, n_items, tuple(missing))


def _all_stats(stats: List[Stats]) -> Stats:
    """Work is added up; times, which pass at once, are those of the slowest."""
    pairs, pruned, candidates, read = (int(sum(counts)) for counts in list(zip(*stats))[:4])
    seconds = {stage: max(one.seconds[stage] for one in stats) for stage in stats[0].seconds}
    kernels: List[KernelTime] = [kernel for one in stats for kernel in one.kernels]
    return Stats(pairs, pruned, candidates, read, seconds, kernels)


__all__ = ["NO_ITEM", "Answer", "Condition", "How", "IdLists", "Queries", "merge", "together"]
