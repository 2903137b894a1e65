"""Evaluation by judgments of relevance, against trec_eval by way of `pytrec_eval`."""

import random

import pytest

from rails_wgpu import evaluate_run, write_run

# trec_eval's names of the metrics.
NAMES = {
    "ndcg@1": "ndcg_cut_1",
    "ndcg@5": "ndcg_cut_5",
    "ndcg@100": "ndcg_cut_100",
    "recall@1": "recall_1",
    "recall@5": "recall_5",
    "precision@5": "P_5",
    "precision@100": "P_100",
    "hr@1": "success_1",
    "hr@5": "success_5",
    "mrr": "recip_rank",
}


def made_up(seed):
    """Judgments and results with ties, unjudged documents, negative grades, and queries that only one of the two has."""
    chosen = random.Random(seed)
    documents = [f"d{number}" for number in range(40)]
    qrels = {
        f"q{query}": {document: chosen.randint(-2, 3) for document in chosen.sample(documents, chosen.randint(1, 25))}
        for query in range(0, 30)
    }
    # trec_eval reads memory that is not its own if all grades of a query are negative.
    for grades in qrels.values():
        grades[next(iter(grades))] = chosen.randint(0, 3)
    # Few different scores, some of which only 64 bits tell apart.
    scores = [0.5, 0.5 + 1e-12, -1.0, 0.0, 2.0, 1.5]
    run = {
        f"q{query}": {document: chosen.choice(scores) for document in chosen.sample(documents, chosen.randint(1, 40))}
        for query in range(5, 35)
    }
    return qrels, run


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_metrics_are_those_of_trec_eval(seed, level, tmp_path):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels, run = made_up(seed)
    measures = {"ndcg_cut.1,5,100", "recall.1,5", "P.5,100", "success.1,5", "recip_rank"}
    known = pytrec_eval.RelevanceEvaluator(qrels, measures, relevance_level=level).evaluate(run)
    found = evaluate_run(qrels, run, list(NAMES), relevance_level=level)
    for name, theirs in NAMES.items():
        values = [values[theirs] for values in known.values()]
        assert found[name] == pytest.approx(sum(values) / len(values), abs=1e-12), name
    every = evaluate_run(qrels, run, list(NAMES), relevance_level=level, all_judged=True)
    for name in NAMES:
        assert every[name] == pytest.approx(found[name] * len(known) / len(qrels), abs=1e-12), name

    # MRR@5 is that of the first five results.
    first = {}
    for query, scores in run.items():
        ranked = sorted(scores, key=lambda document: (float_32(scores[document]), document), reverse=True)
        first[query] = {document: scores[document] for document in ranked[:5]}
    cut = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}, relevance_level=level).evaluate(first)
    mean = sum(values["recip_rank"] for values in cut.values()) / len(cut)
    assert evaluate_run(qrels, run, ["mrr@5"], relevance_level=level)["mrr@5"] == pytest.approx(mean, abs=1e-12)

    # Files say the same.
    write_run(run, tmp_path / "run.txt")
    lines = [f"{query} 0 {document} {grade}\n" for query, grades in qrels.items() for document, grade in grades.items()]
    (tmp_path / "qrels.txt").write_text("".join(lines))
    assert evaluate_run(tmp_path / "qrels.txt", str(tmp_path / "run.txt"), list(NAMES), level) == found


def test_judged_queries_that_a_run_lacks_are_told(caplog):
    qrels, run = {"1": {"a": 1}, "2": {"a": 1}, "3": {"a": 1}}, {"2": {"a": 1.0}}
    with caplog.at_level("INFO", logger="rails_wgpu"):
        assert evaluate_run(qrels, run, ["mrr"]) == {"mrr": 1.0}
        assert "judged queries that the run lacks are left out: 2" in caplog.text
        caplog.clear()
        evaluate_run({"2": {"a": 1}}, run, ["mrr"])
        assert "lacks" not in caplog.text


def float_32(number):
    import numpy as np

    return np.float32(number)


def test_what_is_wrong_is_said(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("1 Q0 a 1 0.5 x\n1 Q0 b 2 x\n")
    with pytest.raises(ValueError, match=r"run.txt:2: expected 6 fields"):
        evaluate_run({"1": {"a": 1}}, path)
    with pytest.raises(FileNotFoundError):
        evaluate_run({"1": {"a": 1}}, tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"metric: expected .*, found `ndcg`"):
        evaluate_run({"1": {"a": 1}}, {"1": {"a": 1.0}}, ["ndcg"])
    with pytest.raises(ValueError, match=r"queries that were judged"):
        evaluate_run({"1": {"a": 1}}, {"2": {"a": 1.0}})
    one = {"1": {"a": 1}}
    for arguments, words in [
        ((one, one, "ndcg@10"), "metrics: expected a list of names, found the string 'ndcg@10'"),
        (({"1": {"a": 1.5}}, one), r"qrels\['1'\]\['a'\]: expected an integer, found 1.5"),
        (({1: {"a": 1}}, one), r"qrels: expected strings as keys, found 1 \(int\)"),
        ((one, {"1": {2: 1.0}}), r"run\['1'\]: expected strings as keys, found 2"),
        ((one, {"1": {"a": "good"}}), r"run\['1'\]\['a'\]: expected a number, found 'good'"),
        ((one, {"1": ["a"]}), r"run\['1'\]: expected a dictionary, found list"),
        (([1], one), "qrels: expected a dictionary, found list"),
    ]:
        with pytest.raises(TypeError, match=words):
            evaluate_run(*arguments)
    with pytest.raises(ValueError, match=r"qrels\['1'\]\['a'\]: expected -2147483647 to 2147483647"):
        evaluate_run({"1": {"a": 2**40}}, one)
    with pytest.raises(ValueError, match=r"without blanks"):
        write_run({"1": {"two words": 1.0}}, path)
    assert path.read_text().startswith("1 Q0 a 1")
