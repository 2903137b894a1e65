"""The folder of an index in shards: which index folders are its present version.

::

    index/
      shards.json                      the present version: names the index folder of each shard
      build-1f0c/shard-00000           an index folder, immutable once ``shards.json`` names it
      build-1f0c/shard-00001-00000002-77aa   the shard after change 2: unchanged files are hard links
      new-77aa                         a build before its first step
      lock                             locked by whoever makes a new version
      build.lock                       locked by whoever builds

A change makes new index folders beside the old ones, and then replaces ``shards.json``: a reader sees all of it or nothing,
and a process that is killed on the way leaves the old version. Folders that neither the present version nor the one before
names are removed by the next change.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import struct
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import numpy.typing as npt

NAME = "shards.json"
FORMAT = "rails-wgpu shards"
PLAN = "plan.json"
LAYOUT = 1
# Results of this many changes are remembered, for those whose answer was lost on the way.
REMEMBERED = 256


class Version(NamedTuple):
    """A version of an index in shards."""

    number: int
    """Grows by one with each change."""
    shards: Tuple[str, ...]
    """The index folder of each shard, below the folder."""
    previous: Tuple[str, ...]
    """Those of the version before, which searches may still be reading."""
    model: str
    """Fingerprint of the similarity and the options that all shards have."""
    changes: Dict[str, int]
    """Results of the last changes, by their tokens."""

    def next(self, shards: Sequence[str], token: str, result: int) -> "Version":
        """The version after a change."""
        changes = dict(list(self.changes.items())[1 - REMEMBERED :])
        changes[token] = result
        return Version(self.number + 1, tuple(shards), self.shards, self.model, changes)


def read(folder: str) -> Version:
    """The present version. Raises ValueError if there is none, or it is damaged."""
    path = os.path.join(folder, NAME)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: expected a folder that rails_wgpu.ray.build made, found no {NAME} in it"
        ) from None
    try:
        text = json.loads(content)
        if text["format"] != FORMAT or text["layout"] != LAYOUT:
            raise ValueError(f"{path}: expected {FORMAT!r} of layout {LAYOUT}, found {text['format']!r} of {text['layout']!r}")
        version, sum = text["version"], text["sha256"]
        if sum != _sha256(version):
            raise ValueError(f"{path}: expected a file with the checksum {sum}, found {_sha256(version)}: it is damaged")
        shards, previous = tuple(version["shards"]), tuple(version["previous"])
        if not shards or not all(_is_inside(name) for name in shards + previous):
            raise ValueError(f"{path}: expected names of folders below it, found {shards + previous}")
        return Version(int(version["number"]), shards, previous, str(version["model"]), dict(version["changes"]))
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected {FORMAT!r}, found a damaged file: {error!r}") from None


def commit(folder: str, version: Version) -> None:
    """Makes `version` the present one, at once. The caller holds the lock."""
    text = {"format": FORMAT, "layout": LAYOUT, "sha256": _sha256(version._asdict()), "version": version._asdict()}
    write_json(os.path.join(folder, NAME), text)


def write_json(path: str, value: Any) -> None:
    """Replaces a file at once."""
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    with open(temporary, "w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(os.path.dirname(path))


def sync(path: str) -> None:
    """Returns when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: str, name: str = "lock", wait: float = 0) -> Iterator[None]:
    """Holds a lock of the folder; the system takes it from a process that is killed. Raises ValueError after `wait` seconds."""
    descriptor = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise ValueError(f"{folder}: expected nobody else to write, found {name} locked") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def derived(name: str, number: int) -> str:
    """A new name for the shard `name` in version `number`."""
    build, shard = os.path.split(name)
    return os.path.join(build, f"{'-'.join(shard.split('-')[:2])}-{number:08}-{secrets.token_hex(4)}")


def link(source: str, target: str) -> None:
    """Makes `target` an index folder with the content of `source`, without copying what never changes, and all of it on the disk."""
    os.mkdir(target)
    for entry in os.scandir(source):
        path = os.path.join(target, entry.name)
        if entry.name.endswith((".safetensors", ".sqlite")):
            try:
                os.link(entry.path, path)
            except OSError:  # a file system without hard links
                _copy(entry.path, path)
        elif entry.name == "manifest.json":
            _copy(entry.path, path)
    sync(target)
    sync(os.path.dirname(target))


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    sync(target)


def collect(folder: str) -> None:
    """Removes index folders that nobody needs, as the present version says. The caller holds the lock."""
    version = read(folder)
    needed = set(version.shards + version.previous)
    for build in os.scandir(folder):
        # That of an unfinished build is none of ours.
        if not build.name.startswith("build-") or not build.is_dir() or os.path.exists(os.path.join(build.path, PLAN)):
            continue
        for entry in os.scandir(build.path):
            if os.path.join(build.name, entry.name) in needed:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.remove(entry.path)
        if not os.listdir(build.path):
            os.rmdir(build.path)


def fingerprint(shard: str) -> str:
    """What all shards of an index have in common: similarity, width, number format, form and attributes.

    Raises ValueError if this is no index folder.
    """
    path = os.path.join(shard, "manifest.json")
    try:
        with open(path) as file:
            manifest = json.load(file)
        content = manifest["content"]
        files = {entry["name"]: entry for entry in manifest["files"]}
        common: List[Any] = [content[key] for key in ("dim", "dtype", "form")]
        if content.get("attributes"):
            common.append(content["attributes"])
        if content.get("model") is not None:
            # Eight digits for the header, which has the file's own name in it; then those of the tensors.
            common.append(files[content["model"]]["crc32"][8:])
            common.append(_metadata(os.path.join(shard, content["model"])))
    except (OSError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"{shard}: expected an index folder, found {error}") from None
    return _sha256(common)[:16]


def check(folder: str, version: Version) -> None:
    """Raises ValueError if the shards do not belong together."""
    for name in version.shards:
        found = fingerprint(os.path.join(folder, name))
        if found != version.model:
            raise ValueError(
                f"{os.path.join(folder, name)}: expected the model, options and attributes of the other shards "
                f"({version.model}), found others ({found})"
            )


def shard_of(ids: "npt.NDArray[Any]", n_shards: int) -> "npt.NDArray[np.int64]":
    """The shard that each id belongs to: a hash, so that shards are equally large whatever the ids are."""
    mixed = ids.astype(np.uint64)  # the finalizer of splitmix64; a copy, which the caller's ids must survive
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(n_shards)).astype(np.int64)


def _metadata(path: str) -> Dict[str, str]:
    """The metadata of a file of tensors, without its name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > os.fstat(file.fileno()).st_size:
            raise ValueError(f"a header of {length} bytes in {path}")
        metadata = json.loads(file.read(length)).get("__metadata__", {})
    return {key: value for key, value in metadata.items() if key != "file"}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _is_inside(name: Any) -> bool:
    parts = str(name).split("/")
    return len(parts) == 2 and all(part and not part.startswith(".") for part in parts)
