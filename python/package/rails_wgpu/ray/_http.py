"""An HTTP endpoint of a service.

aiohttp in an actor, and not Ray Serve: a request is one call of the router, which batches, balances and fails over itself, so
Serve's proxies, controller and replicas would be a second layer of the same, and 30 more packages.
"""

import asyncio
import hmac
import io
import json
import lzma
import math
import os
import secrets
import socket
import zipfile
import zlib
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ._errors import ShardUnavailable

_NPY, _NPZ = "application/x-npy", "application/x-npz"
_OPTIONS = {"k", "algorithm", "partial", "where", "params"}
_ARRAYS = {"queries", "user_ids", "exclude", "allow"}
# Bytes of the values of parameters, as JSON.
_LONGEST_PARAMS = 65_536


class Limits(NamedTuple):
    """What an endpoint takes."""

    max_k: int
    max_batch: int
    max_body: int
    max_waiting: int


class Endpoint:
    """An HTTP endpoint that is being served."""

    def __init__(self, actor: Any, url: str, token: str) -> None:
        self._actor = actor
        self.url = url
        """Where it is."""
        self.token = token
        """What requests need: ``Authorization: Bearer TOKEN``."""

    def close(self) -> None:
        """Ends it. The service stays."""
        ray.kill(self._actor)

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<rails_wgpu.ray.Endpoint: {self.url}>"


def serve(service: Any, host: str, port: int, token: Optional[str], limits: Limits) -> Endpoint:
    """Starts an endpoint on this machine. Raises OSError if it cannot listen there."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise ImportError("an HTTP endpoint needs aiohttp, found none: pip install 'rails-wgpu[ray]'") from None
    if token is not None and len(token) < 16:
        raise ValueError(f"token: expected 16 characters at least, found {len(token)}")
    token = token or secrets.token_urlsafe(32)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: Dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": limits.max_waiting + 8}
    # Chosen here, so that it stays the same if the actor is started anew.
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        port = free.getsockname()[1]
    start: Any = ray.remote(**options)
    actor = start(_Server).options(scheduling_strategy=here).remote(service, (host, port), token, limits)
    try:
        ray.get(actor.listening.remote())
    except ray.exceptions.RayTaskError as error:
        ray.kill(actor)
        raise error.cause from None
    return Endpoint(actor, f"http://{f'[{host}]' if ':' in host else host}:{port}", token)


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Server:
    """The actor."""

    def __init__(self, service: Any, address: Tuple[str, int], token: str, limits: Limits) -> None:
        self._service = service
        self._token = token.encode()
        self._limits = limits
        self._waiting = 0
        self._started = asyncio.get_running_loop().create_task(self._listen(*address))

    async def listening(self) -> None:
        """Returns when it listens."""
        await self._started

    async def pid(self) -> int:
        """The process."""
        return os.getpid()

    async def _listen(self, host: str, port: int) -> None:
        from aiohttp import web

        app = web.Application(client_max_size=self._limits.max_body)
        app.router.add_post("/search", self._search)
        app.router.add_get("/status", self._status)
        app.router.add_get("/health", self._health)
        # A search whose client has gone is cancelled.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()

    async def _health(self, _: Any) -> Any:
        from aiohttp import web

        return web.json_response({"status": "ok"})

    async def _status(self, request: Any) -> Any:
        return await self._answered(request, self._status_of)

    async def _search(self, request: Any) -> Any:
        return await self._answered(request, self._search_for)

    async def _answered(self, request: Any, answer: Any) -> Any:
        """A response, whatever happens."""
        from aiohttp import web

        try:
            self._authorize(request)
            if self._waiting >= self._limits.max_waiting:
                raise _Refused(503, f"expected at most {self._limits.max_waiting} requests at once, found more: try again")
            self._waiting += 1
            try:
                return await answer(request)
            finally:
                self._waiting -= 1
        except _Refused as error:
            status, words = error.status, str(error)
        except web.HTTPRequestEntityTooLarge:
            status, words = 413, f"body: expected at most {self._limits.max_body} bytes, found more"
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            status, words = 400, str(error)
        except ShardUnavailable as error:
            status, words = 503, str(error)
        except TimeoutError as error:
            status, words = 504, str(error)
        except ConnectionError:
            status, words = 400, "body: expected as many bytes as its length says, found fewer"
        except Exception as error:
            status, words = 500, f"{type(error).__name__}: {error}"
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return web.json_response({"error": words}, status=status, headers=headers)

    def _authorize(self, request: Any) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # In constant time; of bytes, because a header may hold anything.
        same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if scheme.lower() != "bearer" or not same:
            raise _Refused(401, "expected `Authorization: Bearer TOKEN` with the token of this endpoint, found none or another")

    async def _status_of(self, _: Any) -> Any:
        from aiohttp import web

        return web.json_response(await asyncio.to_thread(self._service.status))

    async def _search_for(self, request: Any) -> Any:
        from aiohttp import web

        kind = request.content_type
        if kind not in ("application/json", _NPY, _NPZ):
            raise _Refused(415, f"Content-Type: expected application/json, {_NPY} or {_NPZ}, found {kind}")
        body = await request.read()
        options = list(request.query.items())
        given = _from_json(body) if kind == "application/json" else _from_binary(kind, body, options, self._limits)
        _check(given, self._limits)
        ids, scores, missing = await self._service.search_async(**given)
        if kind == "application/json":
            finite = [[score if math.isfinite(score) else None for score in row] for row in np.atleast_2d(scores).tolist()]
            found = finite if scores.ndim == 2 else finite[0]
            return web.json_response({"ids": ids.tolist(), "scores": found, "missing_shards": missing})
        content = io.BytesIO()
        np.savez(content, ids=ids, scores=scores, missing_shards=np.array(missing, np.int64))
        return web.Response(body=content.getvalue(), content_type=_NPZ)


def _from_json(body: bytes) -> Dict[str, Any]:
    given = _from_text("body", body)
    if not isinstance(given, dict):
        raise ValueError(f"body: expected an object, found {type(given).__name__}")
    return given


def _from_text(name: str, text: "Union[bytes, str]") -> Any:
    def constant(found: str) -> float:
        raise ValueError(f"{name}: expected finite numbers, found {found}")

    try:
        return json.loads(text, parse_constant=constant)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{name}: expected JSON, found {error}") from None


def _from_binary(kind: str, body: bytes, options: List[Tuple[str, str]], limits: Limits) -> Dict[str, Any]:
    """The arrays of a body, and what the query string says."""
    given: Dict[str, Any] = {}
    conditions: Dict[str, List[Any]] = {"where": [], "params": []}
    for name, value in options:
        if name not in _OPTIONS:
            raise ValueError(f"query string: expected {', '.join(sorted(_OPTIONS))}, found {name}")
        if name in given:
            raise ValueError(f"query string: expected {name} once, found it again")
        if name == "where":
            conditions[name].append(value)
        elif name == "params":
            conditions[name].append(_from_text("params", value))
        elif name == "k":
            if not value.isdecimal() or len(value) > 9:
                raise ValueError(f"k: expected a number, found {value!r}")
            given[name] = int(value)
        elif name == "partial":
            if value not in ("true", "false"):
                raise ValueError(f"partial: expected true or false, found {value!r}")
            given[name] = value == "true"
        else:
            given[name] = value
    # One for all queries, or one for each.
    given.update({name: values if len(values) > 1 else values[0] for name, values in conditions.items() if values})
    if kind == _NPY:
        given["queries"] = _array("queries", body)
        return given
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            # Before anything is unpacked.
            if sum(entry.file_size for entry in entries) > limits.max_body:
                raise ValueError(f"body: expected at most {limits.max_body} bytes when it is unpacked, found more")
            for entry in entries:
                name = entry.filename[: -len(".npy")] if entry.filename.endswith(".npy") else entry.filename
                if name not in _ARRAYS:
                    raise ValueError(f"body: expected arrays {', '.join(sorted(_ARRAYS))}, found {name!r}")
                with archive.open(entry) as file:
                    given[name] = _array(name, file.read(limits.max_body))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"body: expected an .npz file, found a damaged one: {error}") from None
    return given


def _array(name: str, content: bytes) -> "npt.NDArray[Any]":
    """The array of a ``.npy`` file, whose size must be what its header says before there is memory for it."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = reader(file, max_header_size=4096)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name}: expected a .npy file of version 1 or 2, found a damaged one: {error}") from None
    if dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers, found dtype {dtype}")
    found, expected = len(content) - file.tell(), dtype.itemsize * math.prod(shape)
    if found != expected:
        raise ValueError(f"{name}: expected {expected} bytes for shape {shape} of {dtype}, found {found}")
    array = np.frombuffer(content, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _check(given: Dict[str, Any], limits: Limits) -> None:
    """Raises _Refused or ValueError for what the endpoint does not take."""
    unknown = sorted(set(given) - _OPTIONS - _ARRAYS)
    if unknown:
        raise ValueError(f"expected {', '.join(sorted(_OPTIONS | _ARRAYS))}, found {unknown[0][:100]!r}")
    for name in ("queries", "k"):
        if name not in given:
            raise ValueError(f"{name}: expected in every request, found none")
    k = given["k"]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= limits.max_k:
        raise ValueError(f"k: expected a number from 1 to {limits.max_k}, found {str(k)[:100]}")
    for name, kind in (("algorithm", str), ("partial", bool)):
        if name in given and not isinstance(given[name], kind):
            raise ValueError(f"{name}: expected a {kind.__name__}, found {type(given[name]).__name__}")
    queries = given["queries"]
    if not isinstance(queries, (list, np.ndarray)):
        raise ValueError(f"queries: expected a list, found {type(queries).__name__}")
    axes = queries.ndim if isinstance(queries, np.ndarray) else _axes(queries)
    if axes not in (1, 2):
        raise ValueError(f"queries: expected one (D,) or several (B, D), found {axes} axes")
    if axes == 2 and len(queries) > limits.max_batch:
        raise _Refused(413, f"queries: expected at most {limits.max_batch}, found {len(queries)}")
    for name in ("user_ids", "exclude", "allow", "where", "params"):
        if name in given and given[name] is None:
            del given[name]
    if len(json.dumps(given.get("params"))) > _LONGEST_PARAMS:
        raise _Refused(413, f"params: expected at most {_LONGEST_PARAMS} bytes, found more")


def _axes(values: Any) -> int:
    """How deep lists lie in each other, as the first of each says."""
    axes = 0
    while isinstance(values, list):
        axes, values = axes + 1, values[0] if values else None
    return axes


__all__: List[str] = ["Endpoint", "Limits", "serve"]
