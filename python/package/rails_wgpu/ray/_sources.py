"""Files of items: ids, attributes and, unless they are those of a model's own table, embeddings."""

import glob
import lzma
import os
import zipfile
import zlib
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from .. import _arrays

Path = Union[str, "os.PathLike[str]"]
Column = Tuple[Optional[str], List[Any]]
"""The type of an attribute's values, as far as there are any, and the values, None where one is missing."""
Items = Tuple["npt.NDArray[np.uint64]", "Optional[npt.NDArray[np.float32]]", List[Column]]

_KINDS = (".parquet", ".npz")


def files(items: Union[Path, Sequence[Path]]) -> List[str]:
    """The files that `items` stands for, in order: of paths, folders and patterns such as ``items/*.parquet``."""
    if hasattr(items, "write_parquet"):
        raise TypeError("items: expected files, found a dataset: write it with its write_parquet(folder), and give that folder")
    paths = [items] if isinstance(items, (str, os.PathLike)) else list(items)
    found: List[str] = []
    for path in [os.fspath(path) for path in paths]:
        if "://" in path:
            raise ValueError(f"items: expected files on a file system that all machines see, found {path}: mount or copy it")
        pattern = os.path.join(glob.escape(path), "*") if os.path.isdir(path) else path
        matching = sorted(glob.glob(pattern)) if pattern != path or not os.path.exists(path) else [path]
        matching = [name for name in matching if name.endswith(_KINDS)]
        if not matching:
            raise ValueError(f"items: expected {' or '.join(_KINDS)} files, found none at {path}")
        found += map(os.path.abspath, matching)
    if not found:
        raise ValueError("items: expected at least one file, found an empty list")
    return found


def read(path: str, id_column: str, embedding_column: str, attributes: Sequence[str]) -> Items:
    """Ids (n,), embeddings (n, D) and attributes of a file; ``None`` if it has no embeddings, or no rows."""
    try:
        ids, embeddings, values = (_parquet if path.endswith(".parquet") else _npz)(path, id_column, embedding_column, attributes)
        numbers = _arrays.ids(id_column, ids)
        rows = None if embeddings is None or not len(numbers) else _arrays.floats(embedding_column, embeddings)
        columns = [_arrays.column(f"attribute `{name}`", of_name) for name, of_name in zip(attributes, values)]
        for name, (_, of_name) in zip(attributes, columns):
            if len(of_name) != len(numbers):
                raise ValueError(f"attribute `{name}`: expected {len(numbers)} values, one per id, found {len(of_name)}")
    except (
        TypeError, ValueError, OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        kind = type(error) if type(error) in (TypeError, FileNotFoundError, PermissionError) else ValueError
        raise kind(f"{path}: {error}") from None
    if rows is not None and len(rows) != len(numbers):
        raise ValueError(f"{path}: expected {len(numbers)} embeddings, one per id, found {len(rows)}")
    return numbers, rows, columns


def _expect(kind: str, names: Sequence[str], found: Sequence[str]) -> None:
    for name in names:
        if name not in found:
            raise ValueError(f"expected {kind} `{name}`, found {', '.join(found) or 'none'}")


def _npz(
    path: str, id_column: str, embedding_column: str, attributes: Sequence[str]
) -> "Tuple[Any, Optional[Any], List[Any]]":
    with np.load(path, allow_pickle=False) as arrays:
        _expect("an array", [id_column], list(arrays))
        ids = arrays[id_column]
        if not np.size(ids):
            return ids, None, [[] for _ in attributes]
        _expect("an array", attributes, list(arrays))
        embeddings = arrays[embedding_column] if embedding_column in arrays else None
        return ids, embeddings, [arrays[name] for name in attributes]


def _parquet(
    path: str, id_column: str, embedding_column: str, attributes: Sequence[str]
) -> "Tuple[Any, Optional[Any], List[Any]]":
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    _expect("a column", [id_column], names)
    if file.metadata.num_rows:  # without rows, columns say nothing
        _expect("a column", attributes, names)
    table = file.read([name for name in (id_column, embedding_column, *attributes) if name in names])
    ids = table.column(id_column).combine_chunks()
    if ids.null_count:
        raise ValueError(f"expected an id in every row, found {ids.null_count} rows without")
    values = [table.column(name).to_pylist() if len(ids) else [] for name in attributes]
    if embedding_column not in names or not len(ids):  # without rows, types say nothing
        return ids.to_numpy(zero_copy_only=False), None, values
    lists = table.column(embedding_column).combine_chunks()
    if isinstance(lists, pyarrow.ExtensionArray):  # tensors of Ray Data and of Arrow: fixed lists beneath
        lists = lists.storage
    kinds = pyarrow.types
    if not any(is_list(lists.type) for is_list in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)):
        raise TypeError(f"{embedding_column}: expected lists of numbers, found {lists.type}")
    numbers = lists.flatten()
    if lists.null_count or numbers.null_count:
        raise ValueError(f"{embedding_column}: expected numbers in every row, found nulls")
    width = len(numbers) // max(len(lists), 1)
    if not kinds.is_fixed_size_list(lists.type) and not np.all(lists.value_lengths().to_numpy() == width):
        raise ValueError(f"{embedding_column}: expected lists of one length, found several")
    rows = numbers.to_numpy(zero_copy_only=False).reshape(len(lists), width)
    return ids.to_numpy(zero_copy_only=False), rows, values
