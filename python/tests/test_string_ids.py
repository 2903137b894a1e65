"""Ids that are strings, and components that are given as they are."""

import numpy as np
import pytest

from rails_wgpu import Searcher, export_gate


def test_string_ids_go_in_and_come_out(tmp_path):
    items = np.eye(4, dtype=np.float32)
    names = ["apple", "pear", "fig", "höhle 4"]
    made = Searcher.from_embeddings(names, items, device="cpu", folder=tmp_path / "index")
    opened = Searcher.from_index(tmp_path / "index", device="cpu")
    query = [[4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 1.0, 2.0]]
    for searcher in (made, opened, Searcher.from_embeddings(np.array(names), items, device="cpu")):
        ids, scores = searcher.search(query, k=3)
        assert ids[0].tolist() == ["apple", "pear", "fig"] and scores[0].tolist() == [4.0, 3.0, 2.0]
        assert ids[1][:2].tolist() == ["höhle 4", "fig"]
        assert sorted(searcher.ids.tolist()) == sorted(names)
        assert "fig" in searcher and "plum" not in searcher and 3 not in searcher
        ids, scores = searcher.search(query, k=4, exclude=[["apple", "plum"], []])
        assert ids[0].tolist() == ["pear", "fig", "höhle 4", None] and scores[0][3] == -np.inf
        assert searcher.search(query[0], k=1, allow=["fig", "plum"])[0].tolist() == ["fig"]
        assert searcher.rescore(query[0], ["fig", "apple"]).tolist() == [2.0, 4.0]
        with pytest.raises(ValueError, match="plum"):
            searcher.rescore(query[0], ["fig", "plum"])

        # Sets, and rows of results, which end in None.
        for exclude in ([{"apple", "pear", "höhle 4"}], np.array([["apple", "pear", "höhle 4", None]], dtype=object)):
            assert searcher.search(query[:1], k=4, exclude=exclude)[0].tolist() == [["fig", None, None, None]]
        assert searcher.search(query[0], k=1, allow={"fig", "plum"})[0].tolist() == ["fig"]
        assert searcher.rescore(query[0], ["fig", None]).tolist() == [2.0, -np.inf]
        for wrong in (["apple", 1], [1, 2], "apple", 1):
            with pytest.raises(TypeError, match="exclude: expected .*strings, as the ids of the index are, found"):
                searcher.search(query[:1], k=4, exclude=[wrong])
            with pytest.raises(TypeError, match="allow: expected .*strings, as the ids of the index are, found"):
                searcher.search(query, k=4, allow=wrong)
        with pytest.raises(TypeError, match="ids: expected values in order, found a set"):
            searcher.add({"plum"}, items[:1])

    # Added, replaced and removed by string, in the folder.
    made.add(["plum", "fig"], [[9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 7.0, 0.0]])
    assert made.remove({"apple", "apple pie"}) == 1 and made.remove([]) == 0
    opened.refresh()
    for searcher in (made, opened):
        assert searcher.search(query[0], k=9)[0].tolist() == ["plum", "fig", "pear", "höhle 4"]
    made.compact()
    made.save(tmp_path / "copy")
    assert Searcher.from_index(tmp_path / "copy", device="cpu").search(query[0], k=2)[0].tolist() == ["plum", "fig"]

    for wrong, words in [
        (lambda: made.add([7], [[1.0, 0.0, 0.0, 0.0]]), "strings, as those of the index"),
        (lambda: Searcher.from_embeddings(["a", "b", "a", "c"], items, device="cpu"), "each id once, found `a` twice"),
        (lambda: Searcher.from_embeddings(["a", "b"], items, device="cpu"), "one per"),
        (lambda: Searcher.from_embeddings(["a", "", "b", "c"], items, device="cpu"), "an empty one"),
    ]:
        with pytest.raises(ValueError, match=words):
            wrong()
    numbered = Searcher.from_embeddings([1, 2, 3, 4], items, device="cpu")
    with pytest.raises(ValueError, match="numbers, as those of the index"):
        numbered.add(["a"], [[1.0, 0.0, 0.0, 0.0]])
    assert numbered.search(items[:1], k=4, exclude=[{1, 3}], allow={1, 2, 3})[0].tolist() == [[2, -1, -1, -1]]
    assert numbered.remove({1, 9}) == 1


def softmax(values):
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("hidden", [None, 0, 5])
def test_given_components_are_scored_by_definition(hidden):
    generator = np.random.default_rng(hidden or 0)
    queries = generator.normal(size=(3, 2, 4)).astype(np.float32)
    items = generator.normal(size=(20, 3, 4)).astype(np.float32)

    def logits(a, b):
        a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a.astype(float), b.astype(float)))
        return np.einsum("qnd,xmd->qxnm", a, b).reshape(len(a), len(b), 6) / 0.5

    z = logits(queries, items)
    layer = lambda n_in, n_out: (generator.normal(size=(n_out, n_in)), generator.normal(size=n_out))
    layers = None if hidden is None else [layer(6, 6)] if hidden == 0 else [layer(6, hidden), layer(hidden, 6)]
    g = z
    if layers:
        if hidden:
            g = g @ layers[0][0].T + layers[0][1]
            g = g / (1.0 + np.exp(-g))
        g = g @ layers[-1][0].T + layers[-1][1]
        g = g / (1.0 + np.exp(-g))
    expected = (softmax(g) * z).sum(axis=-1)
    gate = export_gate(
        2, 3, 4, layers=layers, temperature=0.5, l2_norm=True, gating_combination="glu_silu" if layers else "none"
    )
    searcher = Searcher.from_embeddings(np.arange(20), items, mol=gate, device="cpu")
    for algorithm in ("exact", "exact-pruned", "avg:20", "naive:20", "tangent:20"):
        ids, scores = searcher.search(queries, k=20, algorithm=algorithm)
        np.testing.assert_array_equal(ids, np.argsort(-expected, axis=-1, kind="stable"))
        np.testing.assert_allclose(scores, -np.sort(-expected, axis=-1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="Mixture-of-Logits"):
        searcher.search(queries, k=1, algorithm="mips")
    with pytest.raises(ValueError, match=r"shape \(N, 3, 4\) or \(N, 12\)"):
        searcher.add([99], np.zeros((1, 4, 4)))
    searcher.add([99], items[:1])
    assert searcher.search(queries[:1], k=21)[0].tolist()[0].index(99) == np.argsort(-expected[0]).tolist().index(0) + 1


def test_a_gate_of_another_shape_is_refused():
    for layers in ([(np.eye(5), np.zeros(5))], [(np.eye(6), np.zeros(5))], [(np.ones((4, 6)), np.zeros(4))], []):
        with pytest.raises(ValueError, match="layers: expected one linear layer 6 -> 6"):
            export_gate(2, 3, 4, layers=layers)
    with pytest.raises(ValueError, match="gating_combination"):
        export_gate(2, 3, 4, gating_combination="sum")
    for sizes, options, words in [
        ((0, 8, 4), {}, "n_query_components: expected 1 to"),
        ((-1, -3, 4), {}, "n_query_components: expected 1 to"),
        ((2, 3, 0), {}, "width: expected 1 to"),
        ((100_000, 100_000, 4), {}, "a product of at most 4096, found 10000000000"),
        ((2, 3, 4), {"temperature": 0.0}, "temperature: expected a finite number above 0, found 0.0"),
        ((2, 3, 4), {"temperature": float("nan")}, "temperature: expected a finite number above 0, found nan"),
        ((2, 3, 4), {"eps": -1.0}, "eps: expected a finite number above 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            export_gate(*sizes, **options)
    with pytest.raises(TypeError, match="width: expected an integer, found 2.5"):
        export_gate(2, 3, 2.5)
