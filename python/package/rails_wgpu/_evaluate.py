"""Quality of results by judgments of relevance."""

import os
from typing import Any, Dict, Mapping, Sequence, Union

from . import _native

Path = Union[str, "os.PathLike[str]"]


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

    Raises OSError, or ValueError with file and line of what is wrong.
    """
    found = _native.evaluate_run(_plain(qrels), _plain(run), list(metrics), relevance_level, all_judged)
    places = {name: place for place, name in enumerate(metrics)}
    return dict(sorted(found.items(), key=lambda value: places.get(value[0], len(places))))


def write_run(run: "Mapping[str, Mapping[str, float]]", path: Path, name: str = "rails-wgpu") -> None:
    """Writes scores of documents by query, ``{query: {document: score}}``, as a TREC run file of this ``name``.

    Raises OSError, or ValueError if a name has blanks or a score is not finite.
    """
    _native.write_run({query: dict(documents) for query, documents in run.items()}, path, name)


def _plain(values: Any) -> Any:
    """The same with dictionaries for other mappings."""
    if isinstance(values, (str, os.PathLike)):
        return os.fspath(values)
    return {query: dict(documents) for query, documents in values.items()}
