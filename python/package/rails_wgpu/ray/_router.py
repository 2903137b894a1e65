"""The actor that all requests go through: batches, scatters, gathers, and makes changes."""

import asyncio
import logging
import os
import secrets
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Hashable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import ray

from . import _folder
from ._answer import Answer, How, Queries, merge, together
from ._errors import OutOfDate, ShardUnavailable

_logger = logging.getLogger("rails_wgpu.ray")

# Seconds for which a replica that has failed is asked last.
_DISTRUST = 2.0
# Seconds that a change waits for another writer of the folder.
_LOCK_WAIT = 60.0
# Seconds that replicas get to open a new version before searches go to it; those that are late open it when asked.
_OPEN_WAIT = 10.0


class Settings(NamedTuple):
    """What a router is told about itself."""

    batch_wait: float
    """Seconds that a query waits for others to share a batch with."""
    max_batch: int
    """Queries of a batch."""
    max_running: int
    """Batches at work at the same time; meanwhile, queries gather in larger batches."""
    failover: float
    """Seconds until a shard without an answering replica is an error."""


@dataclass
class _Replica:
    name: str
    namespace: str
    busy: int = 0
    failed: float = float("-inf")
    found: Any = None

    def actor(self) -> Any:
        """The actor. Raises RayActorError if it is dead for good."""
        if self.found is None:
            try:
                self.found = ray.get_actor(self.name, self.namespace)
            except ValueError as error:
                raise ray.exceptions.RayActorError(error_msg=str(error)) from None
        return self.found


@dataclass
class _Waiting:
    queries: Queries
    answer: "asyncio.Future[Answer]"


@dataclass
class _Group:
    """Requests that may share a batch."""

    how: How
    partial: bool
    waiting: List[_Waiting] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Router:
    """Answers requests from the replicas of all shards.

    A request sees one version of the index from its beginning to its end. The router keeps nothing that is not in the folder:
    one that was started anew goes on from there.
    """

    def __init__(self, folder: str, replicas: Sequence[Sequence[str]], namespace: str, settings: Settings) -> None:
        # By name: Ray starts an actor anew only as long as it has the arguments, and it would not keep handles.
        self._folder = folder
        self._settings = settings
        self._replicas = [[_Replica(name, namespace) for name in names] for names in replicas]
        self._version = _folder.read(folder)
        self._groups: Dict[Hashable, _Group] = {}
        self._running = asyncio.Semaphore(settings.max_running)
        self._changing = asyncio.Lock()
        self._tasks: "set[asyncio.Task[Any]]" = set()
        self._counts = {"queries": 0, "batches": 0, "failovers": 0}
        self._turn = 0

    # -- searches

    async def search(self, queries: Queries, how: How, partial: bool) -> Answer:
        """The best items of all shards; with `partial`, of those that answer."""
        # A filter is the same for a whole batch, and statistics are those of one request.
        alone = queries.allow is not None or how.profile
        has = (queries.users is not None, queries.exclude is not None, bool(queries.conditions))
        key = object() if alone else (how, partial, has, queries.rows.shape[1])
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(how, partial)
            self._spawn(self._serve(key, group, 0 if alone else self._settings.batch_wait))
        waiting = _Waiting(queries, asyncio.get_running_loop().create_future())
        group.waiting.append(waiting)
        if sum(len(one.queries.rows) for one in group.waiting) >= self._settings.max_batch:
            group.full.set()
        try:
            return await waiting.answer
        finally:
            waiting.answer.cancel()

    def _spawn(self, work: Any) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself would forget it
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, key: Hashable, group: _Group, wait: float) -> None:
        """Answers what waits in a group."""
        if wait > 0:
            try:
                await asyncio.wait_for(group.full.wait(), wait)
            except asyncio.TimeoutError:
                pass
        while True:
            await self._running.acquire()
            batch = self._take(group)
            if not batch:
                self._running.release()
                del self._groups[key]
                return
            self._spawn(self._run(group, batch)).add_done_callback(lambda _: self._running.release())

    def _take(self, group: _Group) -> List[_Waiting]:
        """The next batch, which has one request at least, if there is any."""
        batch: List[_Waiting] = []
        rows = 0
        while group.waiting:
            waiting = group.waiting[0]
            if batch and rows + len(waiting.queries.rows) > self._settings.max_batch:
                break
            del group.waiting[0]
            if not waiting.answer.done():
                batch.append(waiting)
                rows += len(waiting.queries.rows)
        return batch

    async def _run(self, group: _Group, batch: List[_Waiting]) -> None:
        """Answers a batch."""
        queries = together([waiting.queries for waiting in batch])
        work = asyncio.ensure_future(self._answer(queries, group.how, group.partial))

        def given_up(_: Any) -> None:
            if all(waiting.answer.cancelled() for waiting in batch):
                work.cancel()

        for waiting in batch:
            waiting.answer.add_done_callback(given_up)
        self._counts["batches"] += 1
        self._counts["queries"] += len(queries.rows)
        try:
            answer = await work
        except asyncio.CancelledError:
            return
        except Exception as error:
            if len(batch) > 1 and isinstance(error, (ValueError, TypeError)):
                # One request is wrong, and the others must not suffer from it.
                for waiting in batch:
                    await self._run(group, [waiting])
                return
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        begin = 0
        for waiting in batch:
            end = begin + len(waiting.queries.rows)
            if not waiting.answer.done():
                waiting.answer.set_result(answer.of_rows(begin, end))
            begin = end

    async def _answer(self, queries: Queries, how: How, partial: bool) -> Answer:
        while True:
            version = self._version
            try:
                return await self._scatter(version, queries, how, partial)
            except OutOfDate:
                # Another service has changed the folder twice meanwhile.
                await self.refresh()
                if self._version.number == version.number:
                    raise

    async def _scatter(self, version: _folder.Version, queries: Queries, how: How, partial: bool) -> Answer:
        n, token = len(version.shards), secrets.token_hex(8)
        asked = [
            self._ask(shard, "search", (name, token, how, of_shard), not partial, token)
            for shard, (name, of_shard) in enumerate(zip(version.shards, queries.for_shards(n)))
        ]
        found = await asyncio.gather(*asked, return_exceptions=True)
        answers = [answer for answer in found if isinstance(answer, Answer)]
        missing = [shard for shard, answer in enumerate(found) if isinstance(answer, ShardUnavailable)]
        for error in found:
            if isinstance(error, BaseException) and not (partial and answers and isinstance(error, ShardUnavailable)):
                raise error
        return merge(answers, how.k, missing)

    async def _ask(
        self, shard: int, method: str, arguments: "Tuple[Any, ...] | Callable[[], Tuple[Any, ...]]", patient: bool,
        token: Optional[str] = None,
    ) -> Any:  # fmt: skip
        """What a replica of a shard answers. A patient caller waits for replicas that are being started anew."""
        now = asyncio.get_running_loop().time
        end, failure = now() + self._settings.failover, ""
        while True:
            for replica in self._by_turns(shard, now()):
                given = arguments() if callable(arguments) else arguments
                replica.busy += 1
                try:
                    return await getattr(replica.actor(), method).remote(*given)
                except asyncio.CancelledError:
                    if token is not None:
                        replica.actor().cancel.remote(token)
                    raise
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:  # the process, or its machine
                    replica.failed, failure = now(), str(error).strip().splitlines()[0]
                    self._counts["failovers"] += 1
                finally:
                    replica.busy -= 1
            if not patient or now() >= end:
                n = len(self._replicas[shard])
                raise ShardUnavailable([shard], f"shard {shard}: expected one of {n} replicas to answer, none does: {failure}")
            await asyncio.sleep(0.05)

    def _by_turns(self, shard: int, now: float) -> List[_Replica]:
        """Replicas in the order in which to ask them: working ones, those with least to do, by turns."""
        self._turn += 1
        replicas = self._replicas[shard]
        turned = [replicas[(at + self._turn) % len(replicas)] for at in range(len(replicas))]
        return sorted(turned, key=lambda replica: (now - replica.failed < _DISTRUST, replica.busy))

    # -- other questions

    async def ask(self, shard: int, method: str, arguments: Sequence[Any]) -> Any:
        """What a replica of one shard says about the present version."""
        while True:
            version = self._version
            try:
                return await self._ask(shard, method, (version.shards[shard], *arguments), True)
            except OutOfDate:
                await self.refresh()
                if self._version.number == version.number:
                    raise

    async def count(self) -> int:
        """The number of items."""
        shards = range(len(self._replicas))
        return sum(await asyncio.gather(*(self.ask(shard, "open", ()) for shard in shards)))

    def status(self) -> Dict[str, Any]:
        """Numbers about this router since it was started."""
        waiting = sum(len(group.waiting) for group in self._groups.values())
        replicas = [len(replicas) for replicas in self._replicas]
        return {"version": self._version.number, "replicas": replicas, "waiting": waiting, **self._counts}

    def pid(self) -> int:
        """The process."""
        return os.getpid()

    # -- changes

    async def change(self, operation: str, token: str, ids: Any, arguments: Sequence[Any]) -> int:
        """A change of all shards at once; what its parts count. Asked again with the same token, it is done once.

        With `ids`, each shard gets its own ids, and the rows of `arguments`, or of what these name, that belong to them.
        """
        await self._changing.acquire()
        # A change that has begun goes on to its end: its threads would outlive a cancelled one, and the lock of the folder.
        change = self._spawn(self._locked_change(operation, token, ids, arguments))
        change.add_done_callback(lambda _: self._changing.release())
        return await asyncio.shield(change)

    async def _locked_change(self, operation: str, token: str, ids: Any, arguments: Sequence[Any]) -> int:
        lock = _folder.locked(self._folder, wait=_LOCK_WAIT)
        await asyncio.to_thread(lock.__enter__)
        try:
            await self._adopt()
            done = self._version.changes.get(token)
            return await self._change(operation, token, ids, arguments) if done is None else done
        finally:
            lock.__exit__(None, None, None)

    async def _change(self, operation: str, token: str, ids: Any, arguments: Sequence[Any]) -> int:
        version = self._version
        names = list(version.shards)
        concerned = self._parts(len(names), ids, arguments)
        try:
            made = await asyncio.gather(
                *(self._change_shard(version, shard, operation, given) for shard, given in concerned.items()),
                return_exceptions=True,
            )
            result = 0
            for shard, found in zip(concerned, made):
                if isinstance(found, BaseException):
                    raise found
                names[shard], count = found
                result += count
            version = version.next(names, token, result)
            await self._open(version, concerned, _OPEN_WAIT)
            await asyncio.to_thread(_folder.commit, self._folder, version)
            self._version = version
            return version.changes[token]
        finally:
            await asyncio.to_thread(_folder.collect, self._folder)

    def _parts(self, n: int, ids: Any, arguments: Sequence[Any]) -> Dict[int, Tuple[Any, ...]]:
        """The arguments of each shard that a change concerns."""
        if ids is None:
            return {shard: tuple(arguments) for shard in range(n)}
        shards = _folder.shard_of(ids, n)
        chosen = {int(shard): np.flatnonzero(shards == shard) for shard in np.unique(shards)}
        return {shard: (ids[at], *(_rows(argument, at) for argument in arguments)) for shard, at in chosen.items()}

    async def _change_shard(
        self, version: _folder.Version, shard: int, operation: str, given: Tuple[Any, ...]
    ) -> Tuple[str, int]:
        name = version.shards[shard]

        def arguments() -> Tuple[Any, ...]:
            # A new name for every attempt: what a dead replica has begun is no version of anything.
            return (name, _folder.derived(name, version.number + 1), operation, *given)

        result: Tuple[str, int] = await self._ask(shard, "change", arguments, True)
        return result

    async def _open(self, version: _folder.Version, shards: Any, wait: Optional[float]) -> None:
        """Has replicas open a version, one of each shard after the other, so that the others can answer meanwhile."""
        for at in range(max(map(len, self._replicas))):
            chosen = [(shard, self._replicas[shard][at]) for shard in shards if at < len(self._replicas[shard])]
            opened = [asyncio.ensure_future(_opened(replica, version.shards[shard])) for shard, replica in chosen]
            if opened:
                await asyncio.wait(opened, timeout=wait)

    async def refresh(self) -> bool:
        """Goes to the present version of the folder. Whether it is another one."""
        async with self._changing:
            return await self._adopt()

    async def _adopt(self) -> bool:
        version = await asyncio.to_thread(_folder.read, self._folder)
        if version.number == self._version.number:
            return False
        if len(version.shards) != len(self._replicas):
            raise ValueError(
                f"{self._folder}: expected {len(self._replicas)} shards, as many as are deployed, found "
                f"{len(version.shards)}: deploy it anew"
            )
        await asyncio.to_thread(_folder.check, self._folder, version)
        await self._open(version, range(len(version.shards)), None)
        _logger.info("version %d takes the place of %d", version.number, self._version.number)
        self._version = version
        return True


def _rows(argument: Any, at: "npt.NDArray[np.int64]") -> Any:
    """Rows of an array, or of each array that has a name."""
    return {name: rows[at] for name, rows in argument.items()} if isinstance(argument, dict) else argument[at]


async def _opened(replica: _Replica, name: str) -> None:
    try:
        await replica.actor().open.remote(name)
    except ray.exceptions.RayError:
        pass  # dead, or being started: it will open what it is asked for
