"""Training from fresh weights."""

import json
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from . import _arrays, _native
from ._searcher import History

Path = Union[str, "os.PathLike[str]"]
Metrics = Dict[str, Any]

_LARGEST_ID = 2**32 - 2


class TrainingResult(NamedTuple):
    """How a training has ended. Metrics are dictionaries by the names of the columns of ``metrics.csv``."""

    model: Optional[str]
    """The best model, a file for :meth:`Searcher.from_checkpoint`; ``None``: not all users were evaluated yet."""
    best: Optional[Metrics]
    """Metrics of the epoch that it is of."""
    test: Optional[Metrics]
    """Its metrics on the test split, where the validation split has chosen it."""
    epochs: List[Metrics]
    """Metrics of each epoch."""
    ending: str
    """Why the training has ended, in words."""


def train(
    data: "Union[Path, Sequence[History], None]",
    output: Path,
    *,
    preset: Optional[str] = None,
    config: Optional[Path] = None,
    model: Optional[Mapping[str, Any]] = None,
    item_ids: Optional[Any] = None,
    resume: bool = False,
    validation: bool = False,
    metric: str = "hr@10",
    max_steps: Optional[int] = None,
    patience: Optional[int] = None,
    time_limit: Optional[float] = None,
    save_every: float = 10.0,
    device: Optional[str] = None,
    threads: Optional[int] = None,
    callback: Optional[Callable[[Metrics], object]] = None,
    **hyper_parameters: Any,
) -> TrainingResult:
    """Trains a model as ``rails-bench train`` does, in the new folder ``output``.

    ``data`` is a CSV of sequences as ``rails-bench preprocess`` writes it, or a history for each user, held-out events
    included: at least three events, oldest first, item ids from 1, distinct user ids from 0, times in seconds; ``now`` is
    not looked at, and models know no ratings. ``item_ids`` (N,), or a file of them, are the items that negatives are drawn
    of and evaluations search; by default the ``.items.txt`` beside the CSV, else every id up to the largest.

    ``preset`` names a published configuration, such as ``ml-1m/hstu-mol``; or ``config`` is a ``.gin`` file of the reference.
    ``model`` and ``hyper_parameters`` change values of it, by the names that they have in the ``config.json`` of the folder
    under ``model`` and ``train``: ``train(data, "run", preset="ml-1m/sasrec", model={"max_sequence_length": 50}, epochs=20,
    batch_size=64, negatives=128, learning_rate=1e-3, seed=1, dropout={"input": 0.1})``.

    After each epoch ``callback`` is called with its metrics: ``epoch``, ``step``, ``loss``, ``is_best``, and, where there was
    an evaluation, ``split``, ``users``, ``hr@10``, ``ndcg@10``, ``mrr``, ... If it returns False, training stops. So it does
    after ``time_limit`` minutes, at Ctrl-C, and if the callback raises something; then ``resume=True`` goes on, to the same
    bits as without a break. The state is also saved every ``save_every`` minutes. A run that goes on has its configuration:
    only ``epochs`` may change; ``data`` must be the same, or ``None`` for the file that it was.

    With ``validation``, the last event but one of each user is held out, too, and chooses the best model by ``metric``
    (``hr@N``, ``ndcg@N`` or ``mrr``); else the last event does, as for the published tables. Training ends after
    ``max_steps`` steps, or ``patience`` evaluations without a better one.

    ``device`` is ``auto``, ``cpu``, ``gpu``, or part of a device's name, API and driver, as for :class:`Searcher`; by default
    ``auto``, or that of the run that goes on. The same seed makes the same bits on one device; on the CPU with any number
    of ``threads``.

    Raises ValueError, TypeError, OSError or DeviceError. If a loss is no finite number any more, that is a ValueError with the step and
    the tensor; the folder keeps the last state that was saved.
    """
    if resume and (preset is not None or config is not None or model is not None or validation or metric != "hr@10"):
        raise ValueError("resume: expected neither preset, config, model, validation nor metric: the run has its own")
    dataset, histories = None, None
    if isinstance(data, (str, os.PathLike)):
        dataset = os.fspath(data)
    elif data is not None:
        histories = _packed(data)
    items_file = os.fspath(item_ids) if isinstance(item_ids, (str, os.PathLike)) else None
    if items_file is not None and dataset is None:
        raise TypeError("item_ids: expected an array beside histories, found a path")
    if dataset is not None and item_ids is not None and items_file is None:
        raise TypeError(f"item_ids: expected a path beside a file of sequences, found {type(item_ids).__name__}")
    items = item_ids if items_file is None else None
    found = _native.train(
        dataset,
        histories,
        items_file,
        None if items is None else _arrays.integers("item_ids", items, 1, _LARGEST_ID).astype(np.uint32),
        os.fspath(output),
        resume,
        (preset, None if config is None else os.fspath(config), _json("model", model or {}), _json("train", hyper_parameters)),
        (
            validation,
            metric,
            None if max_steps is None else _arrays.integer("max_steps", max_steps, 0),
            None if patience is None else _arrays.integer("patience", patience, 1),
            time_limit,
            save_every,
        ),
        device,
        None if threads is None else _arrays.integer("threads", threads, 1, 4096),
        callback,
    )
    return TrainingResult(found["model"], found["best"], found["test"], found["epochs"], found["ending"])


def _json(name: str, values: Mapping[str, Any]) -> str:
    """Hyper-parameters as JSON; numbers of NumPy are numbers, too."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{name}: expected numbers, texts, lists and dictionaries, found {type(value).__name__}")

    try:
        return json.dumps(dict(values), default=plain, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: expected finite numbers: {error}") from None


def _packed(
    histories: "Sequence[History]",
) -> "Tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]":
    """Item ids and times of all histories one after the other, where each begins, and the users."""
    least = np.iinfo(np.int64).min
    found = [history if isinstance(history, History) else History(*history) for history in histories]
    item_ids = [_arrays.integers("item_ids of histories", history.item_ids, 1, _LARGEST_ID) for history in found]
    times = [_arrays.integers("timestamps", history.timestamps, least) for history in found]
    users = [_arrays.integer("user_id", history.user_id, 0) for history in found]
    for user, items, stamps in zip(users, item_ids, times):
        if len(items) != len(stamps):
            raise ValueError(f"history of user {user}: expected {len(items)} timestamps, found {len(stamps)}")
    if len(set(users)) < len(users):
        raise ValueError(f"user_id: expected another one for each history, found {len(set(users))} of {len(users)} histories")
    return (
        np.concatenate([np.empty(0, np.uint32), *item_ids]).astype(np.uint32),
        np.concatenate([np.empty(0, np.int64), *times]).astype(np.int64),
        _arrays.offsets(item_ids),
        np.array(users, dtype=np.int64),
    )
