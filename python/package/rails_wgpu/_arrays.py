"""Whatever people have, as contiguous arrays of the type that the compiled half takes."""

import operator
import os
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

LARGEST = np.iinfo(np.int64).max
_LEAST = np.iinfo(np.int64).min


def to_numpy(name: str, values: Any) -> "npt.NDArray[Any]":
    """`values` as an array, without a copy where there can be one."""
    layout = str(getattr(values, "layout", "torch.strided"))
    if layout.startswith("torch.") and layout != "torch.strided":
        raise TypeError(f"{name}: expected a dense tensor, found layout {layout} (use .to_dense())")
    if isinstance(values, (set, frozenset)):
        raise TypeError(f"{name}: expected values in order, found a {type(values).__name__} (use a list)")
    if hasattr(values, "toarray") and hasattr(values, "nnz"):  # a matrix of SciPy
        raise TypeError(f"{name}: expected a dense array, found {type(values).__name__} (use .toarray())")
    try:
        if hasattr(values, "detach") and hasattr(values, "cpu"):  # a PyTorch tensor, maybe on a GPU and with gradients
            values = values.detach().cpu()
            if str(values.dtype) == "torch.bfloat16":  # which NumPy does not know
                values = values.float()
            return np.asarray(values.numpy())
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.asarray(np.from_dlpack(values))
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: expected an array of numbers, found {type(values).__name__}: {error}") from error


def floats(name: str, values: Any) -> "npt.NDArray[np.float32]":
    """A (rows, D) array of f32; of components (rows, P, D) those of a row lie side by side."""
    array = to_numpy(name, values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, found dtype {array.dtype}")
    if array.ndim == 3:
        array = array.reshape(len(array), array.shape[1] * array.shape[2])
    if array.ndim != 2:
        raise ValueError(f"{name}: expected an array of two axes (rows, D), or (rows, P, D), found shape {array.shape}")
    with np.errstate(over="ignore"):  # an infinity is refused by name
        return np.ascontiguousarray(array, dtype=np.float32)


def token_embeddings(name: str, texts: Any) -> "Tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64]]":
    """The vectors (T, D) of all texts, one after the other, and how many each has: of arrays (n, D), or of one (B, n, D)."""
    arrays = [floats(f"{name}[{i}]", text) for i, text in enumerate(texts)]
    if len({array.shape[1] for array in arrays}) != 1:
        widths = sorted({array.shape[1] for array in arrays})
        raise ValueError(f"{name}: expected at least one array (n, D), all of one width, found widths {widths}")
    return np.concatenate(arrays), np.array([len(array) for array in arrays], dtype=np.uint64)


def has_tokens(values: Any) -> bool:
    """Whether these are several vectors for each query: a list of arrays (n, D), or an array (B, n, D)."""
    if hasattr(values, "ndim"):
        return int(values.ndim) == 3
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(getattr(v, "ndim", 0) == 2 for v in values)


def integers(name: str, values: Any, least: int, most: int = LARGEST) -> "npt.NDArray[Any]":
    """A one-dimensional array of integers from `least` to `most`, of whatever type it has."""
    array = to_numpy(name, values)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one axis, found shape {array.shape}")
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind == "O" and all(isinstance(value, int) for value in array):  # beyond 64 bits
        found = max(array, key=abs)
        raise ValueError(f"{name}: expected {least} to {most}, found {found}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, found dtype {array.dtype}")
    for found in (int(array.min()), int(array.max())):
        if not least <= found <= most:
            raise ValueError(f"{name}: expected {least} to {most}, found {found}")
    return array


def integer(name: str, value: Any, least: int, most: int = LARGEST) -> int:
    """One integer from `least` to `most`."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, found {value!r}") from None
    if not least <= found <= most:
        raise ValueError(f"{name}: expected {least} to {most}, found {found}")
    return found


def ids(name: str, values: Any) -> "npt.NDArray[np.uint64]":
    """Item ids: 0 to 2**63 - 1."""
    return np.ascontiguousarray(integers(name, values, 0), dtype=np.uint64)


def strings(values: Any) -> Optional[List[str]]:
    """The values, if all are strings."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "UO":
        values = values.tolist()
    if isinstance(values, (list, tuple)) and len(values) > 0 and all(isinstance(value, str) for value in values):
        return [str(value) for value in values]
    return None


def unordered(values: Any) -> Any:
    """Values whose order does not matter: those of a set as a list."""
    return list(values) if isinstance(values, (set, frozenset)) else values


def string_ids(name: str, values: Any) -> "List[Optional[str]]":
    """String ids; ``None`` is padding."""
    values = unordered(values)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name}: expected a list of strings, as the ids of the index are, found {type(values).__name__}")
    for value in values:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name}: expected strings, as the ids of the index are, found {value!r}")
    return [None if value is None else str(value) for value in values]


def item_ids(name: str, values: Any) -> "Union[npt.NDArray[np.uint64], List[str]]":
    """Item ids: 0 to 2**63 - 1, or strings."""
    found = strings(values)
    return ids(name, values) if found is None else found


def users(values: Any) -> "npt.NDArray[np.int64]":
    """User ids: any 64-bit integers."""
    return np.ascontiguousarray(integers("user_ids", values, _LEAST), dtype=np.int64)


def id_lists(name: str, lists: Any) -> "Tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]":
    """Lists of ids one after the other, and where each begins and the last one ends. Negative numbers are padding."""
    arrays = [integers(name, unordered(values), _LEAST) for values in lists]
    arrays = [array[array >= 0].astype(np.uint64) for array in arrays]
    return np.concatenate([np.empty(0, np.uint64), *arrays]), offsets(arrays)


def score_lists(
    name: str, lists: Any
) -> "Tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.float32]]":
    """Ids of dictionaries one after the other, where each begins and the last one ends, and a score for each id."""
    keys = [ids(name, list(scores.keys())) for scores in lists]
    values = [float(score) for scores in lists for score in scores.values()]
    return np.concatenate([np.empty(0, np.uint64), *keys]), offsets(keys), np.array(values, dtype=np.float32)


def offsets(arrays: "list[npt.NDArray[Any]]") -> "npt.NDArray[np.uint64]":
    """Where each list begins if they lie one after the other, and where the last one ends."""
    return np.cumsum([0, *(len(array) for array in arrays)]).astype(np.uint64)


class Attributes(NamedTuple):
    """Attributes as the compiled half takes them."""

    ids: "Union[npt.NDArray[np.uint64], List[str]]"
    """Whose they are (n,)."""
    columns: "List[Tuple[str, str, List[Any]]]"
    """Name, type (``INTEGER``, ``REAL`` or ``TEXT``) and n values of each, None where one is missing."""


def attributes(given: Any, ids: Any) -> "Union[None, str, os.PathLike[str], Attributes]":
    """A path as it is, or attributes of `ids`.

    `given` is a path, or a dictionary or a data frame of columns, with one value for each of `ids`, unless it has a column `id`.
    """
    if given is None or isinstance(given, (str, os.PathLike, Attributes)):
        return given
    names = getattr(given, "columns", None)
    if names is None and not isinstance(given, Mapping):
        raise TypeError(
            f"attributes: expected a path, a dictionary of columns or a data frame, found {type(given).__name__}"
        )
    columns = {name: given[name] for name in (given if names is None else names)}
    if "id" in columns:
        ids = columns.pop("id")
    if ids is None:
        raise ValueError("attributes: expected a column `id`, which says whose they are, found none")
    return Attributes(item_ids("ids", ids), [_column(str(name), values) for name, values in columns.items()])


def _column(name: str, values: Any) -> "Tuple[str, str, List[Any]]":
    kind, found = column(f"attributes: column `{name}`", values)
    # As in a file, where nothing says of which type it is.
    return name, kind or "TEXT", found


def column(name: str, values: Any) -> "Tuple[Optional[str], List[Any]]":
    """The type of values, if there are any, and the values, None where one is missing."""
    values = values.tolist() if hasattr(values, "tolist") else values
    found = [None if _is_missing(value) else value for value in _listed(f"{name}: expected a list of values", values)]
    kinds = {type(value) for value in found if value is not None}
    if not kinds:
        return None, found
    if all(issubclass(kind, (int, np.integer)) for kind in kinds):
        known = [value for value in found if value is not None]
        for value in (min(known), max(known)):
            _check_whole(name, value)
        return "INTEGER", found
    if all(issubclass(kind, (int, float, np.integer, np.floating)) for kind in kinds):
        for infinity in (float("inf"), float("-inf")):
            if infinity in found:
                raise ValueError(f"{name}: expected finite numbers, found {infinity}")
        return "REAL", found
    if all(issubclass(kind, str) for kind in kinds):
        for value in found:
            if value is not None:
                _check_text(name, value)
        return "TEXT", found
    words = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(f"{name}: expected whole numbers, numbers or strings, found {words}")


def _check_whole(name: str, value: int) -> None:
    if not _LEAST <= value <= LARGEST:
        raise ValueError(f"{name}: expected whole numbers of 64 bits, found {value}")


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected text of whole characters, found half of one: {error.object[error.start]!r}") from None


def _is_missing(value: Any) -> bool:
    # What pandas has in place of a value is not equal to itself, or to nothing that can be told.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)


def conditions(where: Any, params: Any, n_queries: int) -> "List[Tuple[str, List[Any]]]":
    """Conditions with the values of their parameters: none, one for all queries, or one for each."""
    if where is None:
        if params is not None:
            raise ValueError("params: expected none without `where`, found some")
        return []
    if isinstance(where, str):
        return [_condition(where, params)]
    conditions = _listed("where: expected an SQL expression, or a list of them", where)
    lists = [None] * len(conditions)
    if params is not None:
        lists = _listed("params: expected a list of lists, one for each condition", params)
    if len(conditions) != n_queries:
        raise ValueError(f"where: expected one for all queries, or {n_queries}, one per query, found {len(conditions)}")
    if len(lists) != len(conditions):
        raise ValueError(f"params: expected {len(conditions)} lists, one for each condition, found {len(lists)}")
    return [_condition("TRUE" if sql is None else sql, values) for sql, values in zip(conditions, lists)]


def _condition(sql: Any, params: Any) -> "Tuple[str, List[Any]]":
    if not isinstance(sql, str):
        raise TypeError(f"where: expected an SQL expression, found {type(sql).__name__}")
    _check_text("where", sql)
    values = [] if params is None else _listed("params: expected a list of values", params)
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in values:
        if isinstance(value, int):
            _check_whole("params", value)
        elif isinstance(value, str):
            _check_text("params", value)
        elif value is not None and not isinstance(value, float):
            raise TypeError(f"params: expected whole numbers, numbers, strings or None, found {type(value).__name__}")
    return sql, values


def _listed(expected: str, values: Any) -> "List[Any]":
    if isinstance(values, (str, bytes, Mapping, set, frozenset)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{expected}, found {type(values).__name__}")
    return list(values)
