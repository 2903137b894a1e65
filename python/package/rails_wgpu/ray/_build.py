"""Building the shards of an index.

Ray tasks over files, and not Ray Data: an item's shard depends on its id alone, so all there is to do is a shuffle, and one
whose parts lie in files can go on after the driver was killed, which a Ray Data pipeline cannot. Each file is divided among
the shards (a task per file), then each shard is built from its parts (a task per shard). A task writes under a name of its own
and renames it when it is whole, so it may be repeated at any time, by Ray or by another driver.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import ray

from .. import _arrays
from .._mol import export_mol
from .._searcher import Searcher
from . import _folder, _sources
from ._sources import Path

_logger = logging.getLogger("rails_wgpu.ray")

# How often a task is begun again whose worker was killed.
_RETRIES = 20


def build(
    items: Any,
    model: Optional[Any],
    folder: Path,
    shards: int,
    *,
    id_column: str = "id",
    embedding_column: str = "embedding",
    attributes: Sequence[str] = (),
    dtype: str = "f32",
    form: str = "components",
    n_lists: Optional[int] = None,
    device: str = "cpu",
    cpus: float = 1,
    replace: bool = False,
) -> int:
    """Builds an index in ``shards`` shards on the Ray cluster; returns the number of items.

    ``items`` are ``.parquet`` or ``.npz`` files: a path, a folder, a pattern, or a list of them. They have an integer column
    ``id_column`` and a column ``embedding_column`` of lists of D numbers; in ``.npz`` files, arrays of these names. A file
    should fit into the memory of a worker. A ``ray.data.Dataset`` is written with its ``write_parquet`` first.
    Without embeddings, ids are rows of the item table of ``model``, a whole checkpoint, whose encoder goes along.
    ``attributes`` are columns (arrays) of all files with whole numbers, numbers or strings (null or NaN: missing), for ``where``
    of searches. A column has values of one type in all files.

    ``model`` is the similarity as for :meth:`rails_wgpu.Searcher.from_embeddings`, ``None`` for the inner product. ``dtype``,
    ``form`` and ``n_lists`` are as there, but all shards have the same form: there is no ``auto``. ``folder`` is one that all
    machines see. ``cpus`` are the processors of a task.

    A task whose worker is killed is repeated. After a killed driver, the same call goes on from the files and shards that are
    whole. Nobody sees the index before all of it is there. ``replace``: make the next version of the index in ``folder``; a
    running service goes to it at its next ``refresh()``.

    Raises ValueError, TypeError or OSError with words that say what was expected and what was found.
    """
    if "://" in os.fspath(folder):
        raise ValueError(f"folder: expected one that all machines see, found {os.fspath(folder)}: mount it")
    folder = os.path.abspath(os.fspath(folder))
    n_shards = _arrays.integer("shards", shards, 1, 65_536)
    if form not in ("components", "raw"):
        raise ValueError(f"form: expected components or raw, the same for all shards, found {form!r}")
    names = _attribute_names(attributes, (id_column, embedding_column))
    os.makedirs(folder, exist_ok=True)
    if not ray.is_initialized():
        ray.init(ignore_reinit_error=True)
    with _folder.locked(folder, "build.lock"):
        base = _present(folder, replace)
        columns = _Columns(id_column, embedding_column, names)
        options = {"dtype": dtype, "form": form, "n_lists": n_lists, "device": device}
        _forget_finished(folder, base)
        where = _Work.begin(folder, items, model, n_shards, columns, options)
        retried = {"num_cpus": cpus, "max_retries": _RETRIES}
        try:
            n_items = where.run(retried)
        except (ValueError, TypeError):  # of the items or the options: the next call will have others
            shutil.rmtree(where.path, ignore_errors=True)
            raise
        _publish(folder, where, base, n_items)
    return n_items


def _attribute_names(attributes: Any, others: Sequence[str]) -> List[str]:
    """The names of attributes, checked as far as they can be without the files."""
    if isinstance(attributes, (str, bytes, Mapping)) or not hasattr(attributes, "__iter__"):
        raise TypeError(f"attributes: expected a list of names of columns, found {type(attributes).__name__}")
    names = list(attributes)
    taken = {name.lower() for name in (*others, "id")}
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"attributes: expected names of columns, found {name!r}")
        if name.lower() in taken:
            raise ValueError(
                f"attributes: expected different names (case makes no difference), none of them id or that of another column, "
                f"found `{name}`"
            )
        taken.add(name.lower())
    return names


class _Columns(NamedTuple):
    """What columns of the files are called."""

    id: str
    embedding: str
    attributes: List[str]


class _Work:
    """An unfinished build in a folder."""

    def __init__(self, folder: str, name: str, plan: Dict[str, Any]) -> None:
        self.folder = folder
        self.name = name
        self.plan = plan

    @classmethod
    def begin(
        cls, folder: str, items: Any, model: Any, n_shards: int, columns: _Columns, options: Dict[str, Any]
    ) -> "_Work":
        """The unfinished build of these arguments, or a new one."""
        for name in os.listdir(folder):  # of drivers that were killed before their plan was there
            if name.startswith("new-"):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        unfinished = [name for name in os.listdir(folder) if os.path.exists(os.path.join(folder, name, _folder.PLAN))]
        content, suffix = _model_bytes(model)
        plan: Dict[str, Any] = {
            "shards": n_shards,
            "columns": list(columns),
            "options": options,
            "model": None if content is None else [suffix, [hashlib.sha256(part).hexdigest() for part in content]],
        }
        plan["items"] = [[path, os.path.getsize(path), os.stat(path).st_mtime_ns] for path in _sources.files(items)]
        for name in unfinished:
            with open(os.path.join(folder, name, _folder.PLAN)) as file:
                found = json.load(file)
            if found != plan:
                different = [key for key in plan if plan[key] != found.get(key)]
                raise ValueError(
                    f"{os.path.join(folder, name)}: expected the arguments of the unfinished build in it, found other "
                    f"{', '.join(different)}: repeat the call with the same ones, or remove that folder"
                )
            _logger.info("going on with the build in %s", os.path.join(folder, name))
            return cls(folder, name, found)
        # Under another name until the plan is there, since a change of a running service removes builds that have none.
        key = secrets.token_hex(4)
        name, path = f"build-{key}", os.path.join(folder, f"new-{key}")
        os.makedirs(os.path.join(path, "parts"))
        for part, ending in zip(content or (), (suffix, ".gin")):
            with open(os.path.join(path, f"model{ending}"), "wb") as file:
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
        _folder.write_json(os.path.join(path, _folder.PLAN), plan)
        os.rename(path, os.path.join(folder, name))
        _folder.sync(folder)
        return cls(folder, name, plan)

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def shards(self) -> List[str]:
        """The folders of the shards, below the folder of the index."""
        return [os.path.join(self.name, f"shard-{shard:05}") for shard in range(self.plan["shards"])]

    def run(self, task_options: Dict[str, Any]) -> int:
        """Does what is left of it. Returns the number of items."""
        sources = [entry[0] for entry in self.plan["items"]]
        n_shards = self.plan["shards"]
        columns = _Columns(*self.plan["columns"])
        divide = ray.remote(**task_options)(_divide)
        parts = [divide.remote(self.path, at, source, n_shards, columns) for at, source in enumerate(sources)]
        # Files without rows are passed over.
        parts_of = {source: part for source, part in zip(sources, _all(parts)) if part.n}
        widths = {source: part.width for source, part in parts_of.items()}
        if not widths:
            raise ValueError("items: expected at least one item in the files, found none")
        without = [source for source, width in widths.items() if width is None]
        if 0 < len(without) < len(widths):
            raise ValueError(f"items: expected embeddings in all files or in none, found none in {without[0]}")
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"items: expected embeddings of one width in all files, found widths {sorted(set(widths.values()))}"
            )
        attributes = [
            (name, _kind(name, {source: part.kinds[at] for source, part in parts_of.items()}))
            for at, name in enumerate(columns.attributes)
        ]
        make = ray.remote(**task_options)(_make_shard)
        model = None if self.plan["model"] is None else os.path.join(self.path, f"model{self.plan['model'][0]}")
        made = [
            make.remote(self.path, shard, len(sources), model, attributes, self.plan["options"]) for shard in range(n_shards)
        ]
        return sum(_all(made))


def _kind(name: str, kinds: Dict[str, Optional[str]]) -> str:
    """The type of an attribute whose types in the files are these, as far as they have values."""
    (first, expected), *others = [(source, kind) for source, kind in kinds.items() if kind is not None] or [("", "INTEGER")]
    for source, kind in others:
        if kind != expected:
            raise ValueError(f"{source}: attribute `{name}`: expected {expected} as in {first}, found {kind}")
    return expected


def _all(tasks: Sequence[Any]) -> List[Any]:
    """Results of tasks. The first one that fails ends the others."""
    waiting = list(tasks)
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
        return list(ray.get(list(tasks)))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        for task in waiting:
            ray.cancel(task)
        if waiting:  # what they write must not outlive this
            ray.wait(waiting, num_returns=len(waiting), timeout=60)


class _Part(NamedTuple):
    """What there is in a file."""

    n: int
    """The number of items."""
    width: Optional[int]
    """That of the embeddings, if there are any."""
    kinds: List[Optional[str]]
    """The types of the attributes, as far as they have values."""


def _divide(build: str, at: int, source: str, n_shards: int, columns: _Columns) -> _Part:
    """Divides file number `at` among the shards."""
    target = os.path.join(build, "parts", f"{at:06}")
    summary = os.path.join(target, "summary")
    if not os.path.exists(target):
        ids, rows, attributes = _sources.read(source, *columns)
        own = f"{target}.{secrets.token_hex(8)}.tmp"
        os.mkdir(own)
        order = np.argsort(shards := _folder.shard_of(ids, n_shards), kind="stable")
        ends = np.searchsorted(shards[order], np.arange(n_shards + 1))
        for shard in range(n_shards):
            chosen = order[ends[shard] : ends[shard + 1]]
            np.save(os.path.join(own, f"{shard}.ids.npy"), ids[chosen])
            if rows is not None:
                np.save(os.path.join(own, f"{shard}.embeddings.npy"), rows[chosen])
            with open(os.path.join(own, f"{shard}.attributes.json"), "w") as file:
                json.dump([[values[row] for row in chosen] for _, values in attributes], file)
        with open(os.path.join(own, "summary"), "w") as file:
            json.dump(_Part(len(ids), None if rows is None else rows.shape[1], [kind for kind, _ in attributes]), file)
        _rename(own, target)
    with open(summary) as file:
        return _Part(*json.load(file))


def _make_shard(
    build: str, shard: int, n_files: int, model: Optional[str], attributes: Sequence[Tuple[str, str]], options: Dict[str, Any]
) -> int:
    """Builds a shard from its parts, with attributes of these names and types. Returns its number of items."""
    target = os.path.join(build, f"shard-{shard:05}")
    if not os.path.exists(target):
        parts = [os.path.join(build, "parts", f"{at:06}", str(shard)) for at in range(n_files)]
        of_parts = {part: np.load(f"{part}.ids.npy") for part in parts}
        parts = [part for part, ids in of_parts.items() if len(ids)]
        if not parts:
            raise ValueError(f"shards: expected so few that each has items, found none for shard {shard}")
        ids = np.concatenate([of_parts[part] for part in parts])
        named = _attributes(ids, parts, attributes) if attributes else None
        own = f"{target}.{secrets.token_hex(8)}.tmp"
        if os.path.exists(f"{parts[0]}.embeddings.npy"):
            rows = [np.load(f"{part}.embeddings.npy", mmap_mode="r") for part in parts]
            embeddings = np.empty((len(ids), rows[0].shape[1]), np.float32)
            np.concatenate(rows, out=embeddings)
            Searcher.from_embeddings(ids, embeddings, model, folder=own, attributes=named, **options)
        elif model is None:
            raise ValueError("items: expected embeddings, or a checkpoint whose item table has them, found neither")
        else:
            Searcher.from_checkpoint(model, None, ids, folder=own, attributes=named, **options)
        _rename(own, target)
    return len(Searcher.from_index(target, device="cpu"))


def _attributes(
    ids: "npt.NDArray[np.uint64]", parts: Sequence[str], attributes: Sequence[Tuple[str, str]]
) -> _arrays.Attributes:
    """Those of the items of a shard. A type is that of all files: here, there may be no value."""
    of_parts = []
    for part in parts:
        with open(f"{part}.attributes.json") as file:
            of_parts.append(json.load(file))
    columns = [[value for columns in of_parts for value in columns[at]] for at in range(len(attributes))]
    return _arrays.Attributes(ids, [(name, kind, values) for (name, kind), values in zip(attributes, columns)])


def _rename(own: str, target: str) -> None:
    """Gives a whole folder its name, unless another one of the same content has it."""
    try:
        os.rename(own, target)
    except OSError:
        if not os.path.exists(target):
            raise
        shutil.rmtree(own)
    _folder.sync(os.path.dirname(target))


def _present(folder: str, replace: bool) -> Optional[_folder.Version]:
    """The version that the build will replace."""
    if not os.path.exists(os.path.join(folder, _folder.NAME)):
        return None
    if not replace:
        raise ValueError(f"{folder}: expected a new folder, found an index: give replace=True to make its next version")
    return _folder.read(folder)


def _forget_finished(folder: str, base: Optional[_folder.Version]) -> None:
    """Removes the plans of builds that were published, by a driver that was killed then."""
    for name in base.shards + base.previous if base else ():
        plan = os.path.join(folder, os.path.dirname(name), _folder.PLAN)
        if os.path.exists(plan):
            os.remove(plan)


def _model_bytes(model: Optional[Any]) -> "Tuple[Optional[List[bytes]], str]":
    """The file of a model, with its ``.gin`` file if there is one, and the ending of its name."""
    if model is None or isinstance(model, bytes):
        return (None, "") if model is None else ([model], ".safetensors")
    if not isinstance(model, (str, os.PathLike)):
        return [export_mol(model)], ".safetensors"
    stem, ending = os.path.splitext(os.fspath(model))
    beside = [f"{stem}.gin", os.path.join(os.path.dirname(stem), "config.gin")]
    names = [os.fspath(model)] + [name for name in beside if os.path.exists(name)][:1]
    content = []
    for name in names:
        with open(name, "rb") as file:
            content.append(file.read())
    return content, ending


def _publish(folder: str, where: _Work, base: Optional[_folder.Version], n_items: int) -> None:
    """Makes the shards the present version, and removes what they were made of."""
    prints = [_folder.fingerprint(os.path.join(folder, name)) for name in where.shards]
    for name, found in zip(where.shards, prints):
        if found != prints[0]:
            raise ValueError(f"{os.path.join(folder, name)}: expected the model of shard 0, found another one")
    with _folder.locked(folder, wait=600):
        now = _folder.read(folder) if os.path.exists(os.path.join(folder, _folder.NAME)) else None
        if (now and now.number) != (base and base.number):
            raise ValueError(
                f"{folder}: expected version {base and base.number}, as when the build began, found {now and now.number}: "
                "build again to replace these changes, too; what was built is kept"
            )
        first = _folder.Version(0, (), (), "", {}) if now is None else now
        version = first.next(where.shards, f"build of {where.name}", n_items)._replace(model=prints[0])
        _folder.commit(folder, version)
        # From here on it is no unfinished build, whatever of this is not removed.
        os.remove(os.path.join(where.path, _folder.PLAN))
        _folder.collect(folder)
