"""Quality of results by judgments of relevance."""

import logging
import os
from typing import Any, Callable, Dict, Mapping, Sequence, Union

from . import _arrays, _native

Path = Union[str, "os.PathLike[str]"]

_logger = logging.getLogger("rails_wgpu")
# The largest grade.
_MOST = 2**31 - 1


def evaluate_run(
    qrels: "Union[Path, Mapping[str, Mapping[str, int]]]",
    run: "Union[Path, Mapping[str, Mapping[str, float]]]",
    metrics: Sequence[str] = ("ndcg@10", "recall@10", "recall@100", "mrr@10"),
    relevance_level: int = 1,
    all_judged: bool = False,
) -> Dict[str, float]:
    """Means over queries of ``metrics``: ``ndcg@N``, ``recall@N``, ``precision@N``, ``hr@N``, ``mrr@N`` and ``mrr``.

    ``qrels`` are grades of documents by query, ``{query: {document: grade}}``, or a TREC qrels file; ``run`` scores of the
    documents that were found, or a TREC run file. All is defined as in trec_eval: scores (as 32-bit floats) say the order, and of
    the same score the alphabetically last document comes first; a grade of at least ``relevance_level`` is relevant, and grades
    are the gains of NDCG; what was not judged, or has a negative grade, is not relevant. Judged queries without results are left
    out, or count 0 with ``all_judged`` (``trec_eval -c``); queries that were not judged count nowhere.

    How many judged queries have no results is logged by ``logging.getLogger("rails_wgpu")`` as information.

    Raises OSError, TypeError, or ValueError with file and line of what is wrong.
    """
    if isinstance(metrics, str):
        raise TypeError(f"metrics: expected a list of names, found the string {metrics!r}")
    _native.set_log_level(_logger.getEffectiveLevel())
    level = _arrays.integer("relevance_level", relevance_level, 1, _MOST)
    grades, scores = _documents("qrels", qrels, _grade), _documents("run", run, _score)
    found = _native.evaluate_run(grades, scores, list(metrics), level, all_judged)
    places = {name: place for place, name in enumerate(metrics)}
    return dict(sorted(found.items(), key=lambda value: places.get(value[0], len(places))))


def write_run(run: "Mapping[str, Mapping[str, float]]", path: Path, name: str = "rails-wgpu") -> None:
    """Writes scores of documents by query, ``{query: {document: score}}``, as a TREC run file of this ``name``.

    Raises OSError, TypeError, or ValueError if a name has blanks or a score is not finite.
    """
    _native.write_run(_documents("run", run, _score), path, name)


def _documents(name: str, values: Any, number: "Callable[[str, Any], Any]") -> Any:
    """A path as it is, and grades or scores by query and document, checked."""
    if isinstance(values, (str, os.PathLike)):
        return os.fspath(values)
    found: Dict[str, Dict[str, Any]] = {}
    for query, documents in _mapping(name, values).items():
        place = f"{name}[{query!r}]"
        found[_key(name, query)] = {
            _key(place, document): number(f"{place}[{document!r}]", value)
            for document, value in _mapping(place, documents).items()
        }
    return found


def _mapping(name: str, values: Any) -> "Mapping[Any, Any]":
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a dictionary, found {type(values).__name__}")
    return values


def _key(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected strings as keys, found {value!r} ({type(value).__name__})")
    return value


def _grade(name: str, value: Any) -> int:
    return _arrays.integer(name, value, -_MOST, _MOST)


def _score(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, found {value!r}") from None
