"""Files of items: ids and, unless they are those of a model's own table, embeddings."""

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
Items = Tuple["npt.NDArray[np.uint64]", "Optional[npt.NDArray[np.float32]]"]

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


def read(path: str, id_column: str, embedding_column: str) -> Items:
    """Ids (n,) and embeddings (n, D) of a file; ``None`` if it has no embeddings, or no rows."""
    try:
        ids, embeddings = (_parquet if path.endswith(".parquet") else _npz)(path, id_column, embedding_column)
        numbers = _arrays.ids(id_column, ids)
        rows = None if embeddings is None or not len(numbers) else _arrays.floats(embedding_column, embeddings)
    except (
        TypeError, ValueError, OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        kind = type(error) if type(error) in (TypeError, FileNotFoundError, PermissionError) else ValueError
        raise kind(f"{path}: {error}") from None
    if rows is not None and len(rows) != len(numbers):
        raise ValueError(f"{path}: expected {len(numbers)} embeddings, one per id, found {len(rows)}")
    return numbers, rows


def _npz(path: str, id_column: str, embedding_column: str) -> "Tuple[Any, Optional[Any]]":
    with np.load(path, allow_pickle=False) as arrays:
        if id_column not in arrays:
            raise ValueError(f"expected an array `{id_column}`, found {', '.join(arrays) or 'none'}")
        return arrays[id_column], arrays[embedding_column] if embedding_column in arrays else None


def _parquet(path: str, id_column: str, embedding_column: str) -> "Tuple[Any, Optional[Any]]":
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    if id_column not in names:
        raise ValueError(f"expected a column `{id_column}`, found {', '.join(names)}")
    table = file.read([name for name in (id_column, embedding_column) if name in names])
    ids = table.column(id_column).combine_chunks()
    if ids.null_count:
        raise ValueError(f"expected an id in every row, found {ids.null_count} rows without")
    if embedding_column not in names or not len(ids):  # without rows, types say nothing
        return ids.to_numpy(zero_copy_only=False), None
    lists = table.column(embedding_column).combine_chunks()
    if isinstance(lists, pyarrow.ExtensionArray):  # tensors of Ray Data and of Arrow: fixed lists beneath
        lists = lists.storage
    kinds = pyarrow.types
    if not any(is_list(lists.type) for is_list in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)):
        raise TypeError(f"{embedding_column}: expected lists of numbers, found {lists.type}")
    values = lists.flatten()
    if lists.null_count or values.null_count:
        raise ValueError(f"{embedding_column}: expected numbers in every row, found nulls")
    width = len(values) // max(len(lists), 1)
    if not kinds.is_fixed_size_list(lists.type) and not np.all(lists.value_lengths().to_numpy() == width):
        raise ValueError(f"{embedding_column}: expected lists of one length, found several")
    return ids.to_numpy(zero_copy_only=False), values.to_numpy(zero_copy_only=False).reshape(len(lists), width)
