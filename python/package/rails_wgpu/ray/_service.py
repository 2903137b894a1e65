"""A running index in shards, as its users see it."""

import asyncio
import os
import secrets
import time
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from .. import _arrays
from .._searcher import History, Stats
from . import _folder
from ._answer import Answer, How, Queries
from ._http import Endpoint, Limits, serve
from ._replica import Replica
from ._router import Router, Settings
from ._sources import Path

_ray: Any = ray  # whose types do not know all of it

# Requests that a replica takes at once; those that only ask or cancel must not wait for searches.
_CONCURRENCY = 32


def deploy(
    folder: Path,
    replicas: int = 1,
    devices: Union[str, Sequence[str]] = "auto",
    *,
    cpus: float = 1,
    gpus: float = 0,
    device_memory: Optional[int] = None,
    batch_wait: float = 0.002,
    max_batch: int = 256,
    timeout: float = 30,
    failover: float = 20,
    start_timeout: float = 600,
) -> "Service":
    """Starts actors that answer searches in an index that :func:`build` made, and returns when all are ready.

    Each of the ``replicas`` of a shard runs on a machine of its own, as far as there are so many, and searches on one of
    ``devices`` (as for :meth:`rails_wgpu.Searcher.from_index`; replica r on ``devices[r % len(devices)]``) with
    ``device_memory`` bytes there. It takes ``cpus`` processors, and as many threads, and ``gpus`` of what Ray counts. Files
    are memory-mapped.

    A query waits ``batch_wait`` seconds for others, up to ``max_batch``, to share a scan with. A search without an answer
    after ``timeout`` seconds is cancelled. An actor that dies is started anew; meanwhile others answer, and a shard without
    any is waited for ``failover`` seconds.

    Raises ValueError if the folder is damaged or its shards do not belong together, TimeoutError if the cluster does not have
    the processors within ``start_timeout`` seconds.
    """
    folder = os.path.abspath(os.fspath(folder))
    n_replicas = _arrays.integer("replicas", replicas, 1, 1024)
    names = [devices] if isinstance(devices, str) else list(devices)
    if not names:
        raise ValueError("devices: expected at least one, found an empty list")
    version = _folder.read(folder)
    _folder.check(folder, version)
    if not ray.is_initialized():
        ray.init(ignore_reinit_error=True)
    machines = [
        node["NodeID"]
        for node in sorted(_ray.nodes(), key=lambda node: str(node["NodeID"]))
        if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus and node["Resources"].get("GPU", 0) >= gpus
    ]
    if not machines:
        raise ValueError(f"cpus, gpus: expected what a machine of the cluster has, found {cpus} and {gpus}: none has so many")
    actor = _ray.remote(max_restarts=-1, max_concurrency=_CONCURRENCY, num_cpus=cpus, num_gpus=gpus)(Replica)

    namespace, prefix = ray.get_runtime_context().namespace, f"rails-wgpu-{secrets.token_hex(8)}"
    shards = range(len(version.shards))
    replica_names = [[f"{prefix}-shard-{shard}-replica-{at}" for at in range(n_replicas)] for shard in shards]

    def start(shard: int, at: int) -> Any:
        near = NodeAffinitySchedulingStrategy(machines[(shard + at) % len(machines)], soft=True)
        device = names[at % len(names)]
        return actor.options(name=replica_names[shard][at], scheduling_strategy=near).remote(folder, shard, device, device_memory, max(1, int(cpus)))

    actors = [[start(shard, at) for at in range(n_replicas)] for shard in shards]
    settings = Settings(batch_wait, max_batch, 2 * n_replicas, failover)
    # Where its owner is, so that it is lost with no other machine.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    start_router = _ray.remote(max_restarts=-1, num_cpus=0)(Router).options(name=f"{prefix}-router", scheduling_strategy=here)
    router = start_router.remote(folder, replica_names, namespace, settings)
    service = Service(router, actors, timeout, (f"{prefix}-router", namespace))
    try:
        ray.get([one.pid.remote() for some in actors for one in some] + [router.pid.remote()], timeout=start_timeout)
    except ray.exceptions.GetTimeoutError:
        service.close()
        found = _ray.cluster_resources()
        raise TimeoutError(
            f"deploy: expected {len(version.shards)} x {n_replicas} actors with {cpus} processors and {gpus} GPUs each to start "
            f"within {start_timeout} s, found {found.get('CPU', 0)} processors and {found.get('GPU', 0)} GPUs in the cluster"
        ) from None
    except ray.exceptions.ActorDiedError as error:
        service.close()
        raise ValueError(f"deploy: expected replicas that can open their shards: {_cause(error)}") from None
    return service


class Service:
    """Searches in an index in shards. Any number of threads and processes may use one; it may be pickled for Ray's tasks."""

    def __init__(self, router: Any, replicas: List[List[Any]], timeout: float, name: Tuple[str, str]) -> None:
        self._router = router
        self._name = name
        self._replicas = replicas
        self._timeout = timeout
        self._closed = False

    def __reduce__(self) -> "Tuple[Any, Tuple[Any, ...]]":
        return _found, (self._name, [len(actors) for actors in self._replicas], self._timeout)

    def search(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]":
        """As :meth:`rails_wgpu.Searcher.search`, over the items of all shards.

        Numbers of candidates, such as that of ``tangent:1000``, are per shard. Raises ValueError or DeviceError as there,
        ShardUnavailable if a shard does not answer, TimeoutError.
        """
        answer, single = self._search(queries, k, user_ids, algorithm, exclude, allow, (where, params))
        return (answer.ids[0], answer.scores[0]) if single else (answer.ids, answer.scores)

    def search_partial(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], List[int]]":
        """As :meth:`search`, of the shards that answer, and the numbers of those that do not. At least one does."""
        answer, single = self._search(queries, k, user_ids, algorithm, exclude, allow, (where, params), partial=True)
        missing = list(answer.missing)
        return (answer.ids[0], answer.scores[0], missing) if single else (answer.ids, answer.scores, missing)

    def search_with_stats(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], Stats]":
        """As :meth:`search`, and what it took: the counts of all shards together, the times of the slowest."""
        answer, single = self._search(queries, k, user_ids, algorithm, exclude, allow, (where, params), profile=True)
        assert answer.stats is not None
        return (answer.ids[0], answer.scores[0], answer.stats) if single else (answer.ids, answer.scores, answer.stats)

    def search_with_bounds(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]":
        """As :meth:`rails_wgpu.Searcher.search_with_bounds`, over the items of all shards."""
        answer, single = self._search(queries, k, user_ids, algorithm, exclude, allow, (where, params), certify=True)
        bounds = answer.bounds
        return (answer.ids[0], answer.scores[0], bounds[0]) if single else (answer.ids, answer.scores, bounds)

    async def search_async(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any] = None,
        algorithm: str = "exact",
        exclude: Optional[Sequence[Any]] = None,
        allow: Optional[Any] = None,
        partial: bool = False,
        where: "Optional[Union[str, Sequence[Optional[str]]]]" = None,
        params: Optional[Sequence[Any]] = None,
    ) -> "Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], List[int]]":
        """As :meth:`search` or :meth:`search_partial`, awaited. Cancelling the task cancels the search in all shards."""
        asked, single = _checked(queries, k, user_ids, algorithm, exclude, allow, (where, params), False, False)
        end = time.monotonic() + self._timeout
        while True:
            reference = self._router.search.remote(*asked, partial)
            try:
                answer = await asyncio.wait_for(_awaited(reference), end - time.monotonic())
            except (asyncio.CancelledError, asyncio.TimeoutError) as error:
                ray.cancel(reference)
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise self._too_late() from None
            except ray.exceptions.RayError as error:
                self._unless_retried(error, end)
                await asyncio.sleep(0.05)
                continue
            missing = list(answer.missing)
            return (answer.ids[0], answer.scores[0], missing) if single else (answer.ids, answer.scores, missing)

    def _search(
        self,
        queries: Any,
        k: int,
        user_ids: Optional[Any],
        algorithm: str,
        exclude: Optional[Sequence[Any]],
        allow: Optional[Any],
        conditions: Tuple[Any, Any],
        *,
        certify: bool = False,
        profile: bool = False,
        partial: bool = False,
    ) -> Tuple[Answer, bool]:
        asked, single = _checked(queries, k, user_ids, algorithm, exclude, allow, conditions, certify, profile)
        return self._call("search", *asked, partial, timeout=self._timeout), single

    def encode(self, histories: Iterable[History]) -> "npt.NDArray[np.float32]":
        """(B, D): query embeddings, as of :meth:`rails_wgpu.Searcher.encode`. The model is in every shard."""
        encoded: "npt.NDArray[np.float32]" = self._call("ask", 0, "encode", ([tuple(one) for one in histories],))
        return encoded

    def add(self, ids: Any, embeddings: Any, attributes: Optional[Any] = None) -> None:
        """Adds items ``ids`` (n,) with raw embeddings (n, D), replacing those that are there.

        ``attributes`` as for :meth:`rails_wgpu.Searcher.add`: a dictionary or a data frame of columns; items without have none
        afterwards. Searches that begin after this has returned find all of them; no search finds some of them only. On
        ValueError nothing has changed. The change is on disk when this returns, and outlives every actor.
        """
        numbers, rows = _arrays.ids("ids", ids), _arrays.floats("embeddings", embeddings)
        if len(numbers) != len(rows):
            raise ValueError(f"ids: expected {len(rows)}, one per embedding, found {len(numbers)}")
        columns = _columns(attributes, numbers)
        self._change("add", numbers, (rows,) if columns is None else (rows, columns))

    def remove(self, ids: Any) -> int:
        """Removes items ``ids`` (n,), passing over those that are not there; returns how many were."""
        return self._change("remove", _arrays.ids("ids", _arrays.unordered(ids)), ())

    def distill(self, queries: Any, user_ids: Optional[Any] = None) -> None:
        """As :meth:`rails_wgpu.Searcher.distill`, in every shard."""
        rows, users, _ = _queries(queries, user_ids)
        self._change("distill", None, (rows, users))

    def compact(self) -> None:
        """Rewrites all shards without the deleted items and with as few segments as may be."""
        self._change("compact", None, ())

    def refresh(self) -> bool:
        """Goes to the present version of the folder, which another service has changed, or :func:`build` has replaced.

        Replicas open it one after the other, and answer from the old one until all are ready. Returns whether it is another
        version. Raises ValueError if it has another number of shards.
        """
        return bool(self._call("refresh"))

    @property
    def attributes(self) -> Dict[str, str]:
        """Names and types of the attributes of items, as of a Searcher."""
        attributes: Dict[str, str] = self._call("ask", 0, "attributes", ())
        return attributes

    def status(self) -> Dict[str, Any]:
        """The version, the number of replicas of each shard, and how many queries, batches and failovers there were."""
        status: Dict[str, Any] = self._call("status")
        return status

    def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: Optional[str] = None,
        *,
        max_k: int = 1000,
        max_batch: int = 256,
        max_body: int = 16 << 20,
        max_waiting: int = 256,
    ) -> Endpoint:
        """Starts an HTTP endpoint on the machine of the caller. ``docs/SCALE.md`` describes its requests.

        Only this machine reaches it unless ``host`` says otherwise; port 0: any free one. Requests need ``token``; by default
        a random one, which the endpoint has as ``token``. It answers at most ``max_waiting`` requests at once, of ``max_body``
        bytes with ``max_batch`` queries for ``max_k`` items each. It does not encrypt: put a proxy with TLS before it.
        """
        limits = Limits(max_k, max_batch, max_body, max_waiting)
        return serve(self, host, port, token, limits)

    def close(self) -> None:
        """Ends all actors. The folder stays. Only the process that deployed it can."""
        if self._replicas[0][0] is None:
            raise RuntimeError("a service is closed by the process that deployed it: expected that, found another")
        self._closed = True
        for actor in [self._router] + [actor for actors in self._replicas for actor in actors]:
            ray.kill(actor)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """N: number of items that can be found."""
        return int(self._call("count"))

    def __contains__(self, id: object) -> bool:
        """Whether item ``id`` can be found."""
        if not isinstance(id, (int, np.integer)) or not 0 <= id <= _arrays.LARGEST:
            return False
        shard = _folder.shard_of(np.array([id], np.uint64), len(self._replicas))[0]
        return bool(self._call("ask", int(shard), "contains", (int(id),)))

    def __repr__(self) -> str:
        return f"<rails_wgpu.ray.Service: {len(self._replicas)} shards with {len(self._replicas[0])} replicas>"

    def _change(self, operation: str, ids: Any, arguments: Sequence[Any]) -> int:
        if ids is not None and not len(ids):
            return 0
        # Of one token, a change is made once, however often a router dies over it.
        return int(self._call("change", operation, secrets.token_hex(16), ids, tuple(arguments)))

    def _call(self, method: str, *arguments: Any, timeout: Optional[float] = None) -> Any:
        """What the router answers; asked again while it is being started anew."""
        end = None if timeout is None else time.monotonic() + timeout
        retry_end = None
        while True:
            reference = getattr(self._router, method).remote(*arguments)
            try:
                return ray.get(reference, timeout=None if end is None else max(0, end - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                ray.cancel(reference)
                raise self._too_late() from None
            except KeyboardInterrupt:
                ray.cancel(reference)
                raise
            except ray.exceptions.RayError as error:
                retry_end = retry_end or time.monotonic() + self._timeout
                self._unless_retried(error, retry_end)
                time.sleep(0.05)

    def _unless_retried(self, error: Any, end: float) -> None:
        """Raises an error of the request itself; returns if the router died of something else and there is time left."""
        if isinstance(error, ray.exceptions.RayTaskError):
            raise _cause(error) from None
        if self._closed:
            raise RuntimeError("this service has been closed") from None
        if time.monotonic() >= end:
            raise error

    def _too_late(self) -> TimeoutError:
        return TimeoutError(f"expected an answer within {self._timeout} s, found none")


def _found(name: Tuple[str, str], replicas: List[int], timeout: float) -> Service:
    """The service whose router has this name, in another process, which cannot close it."""
    return Service(ray.get_actor(*name), [[None] * n for n in replicas], timeout, name)


def _checked(
    queries: Any,
    k: int,
    user_ids: Optional[Any],
    algorithm: str,
    exclude: Optional[Sequence[Any]],
    allow: Optional[Any],
    conditions: Tuple[Any, Any],
    certify: bool,
    profile: bool,
) -> Tuple[Tuple[Queries, How], bool]:
    """A search as the router takes it, and whether it is for one query and not a batch."""
    rows, users, single = _queries(queries, user_ids)
    if single and exclude is not None:
        exclude = [exclude]
    lists = None if exclude is None else _arrays.id_lists("exclude", exclude)
    if lists is not None and len(lists[1]) != len(rows) + 1:
        raise ValueError(f"exclude: expected {len(rows)} lists, one per query, found {len(lists[1]) - 1}")
    if users is not None and len(users) != len(rows):
        raise ValueError(f"user_ids: expected {len(rows)}, one per query, found {len(users)}")
    where = _arrays.conditions(*conditions, len(rows))
    if isinstance(conditions[0], str):
        where = where * len(rows)
    allowed = None if allow is None else _arrays.ids("allow", _arrays.unordered(allow))
    how = How(_arrays.integer("k", k, 1, 2**32 - 1), str(algorithm), certify, profile)
    return (Queries(rows, users, lists, allowed, where), how), single


def _columns(attributes: Optional[Any], ids: "npt.NDArray[np.uint64]") -> "Optional[Dict[str, npt.NDArray[Any]]]":
    """Columns of attributes with one value for each of `ids`, as objects, None where one is missing."""
    found = _arrays.attributes(attributes, ids)
    if found is None:
        return None
    if not isinstance(found, _arrays.Attributes):
        raise TypeError("attributes: expected a dictionary of columns or a data frame, found a path: read the file first")
    given = list(found.ids)
    for name, _, values in found.columns:
        if len(values) != len(given):
            raise ValueError(f"attributes: expected {len(given)} values, one per item, found {len(values)} in column `{name}`")
    if not np.array_equal(given, ids):  # those of a column `id`, in another order
        place = {id: row for row, id in enumerate(given)}
        if len(place) != len(given):
            raise ValueError("attributes: expected different ids in column `id`, found some twice")
        others = sorted(set(given) - set(ids))
        if others:
            raise ValueError(
                f"attributes: expected those of items that are added, found {len(others)} of other ids, the first {others[0]}"
            )
        rows = [place.get(id) for id in ids]
        found = found._replace(columns=[
            (name, kind, [None if row is None else values[row] for row in rows]) for name, kind, values in found.columns
        ])  # fmt: skip
    names = [name.lower() for name, _, _ in found.columns]
    if len(set(names)) != len(names):
        raise ValueError(f"attributes: expected columns of different names (case makes no difference), found {names}")
    return {name: _objects(values) for name, _, values in found.columns}


def _objects(values: List[Any]) -> "npt.NDArray[Any]":
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _queries(
    queries: Any, user_ids: Optional[Any]
) -> "Tuple[npt.NDArray[np.float32], Optional[npt.NDArray[np.int64]], bool]":
    """Queries (B, D), their users, and whether there is one query and not a batch."""
    array = _arrays.to_numpy("queries", queries)
    single = array.ndim == 1
    if single:
        array = array[None]
        if user_ids is not None:
            user_ids = np.atleast_1d(_arrays.to_numpy("user_ids", user_ids))
    return _arrays.floats("queries", array), None if user_ids is None else _arrays.users(user_ids), single


async def _awaited(reference: Any) -> Answer:
    answer: Answer = await reference
    return answer


def _cause(error: Any) -> Any:
    """What went wrong in an actor, without Ray's wrapping."""
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    return error
