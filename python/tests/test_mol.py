"""Scores against the definition in float64, for every variant, by way of `export_mol`."""

import mixture
import numpy as np
import pytest
from mixture import Shape

from rails_wgpu import Searcher, export_mol

TEMPERATURE, EPS = 0.05, 1e-6
VARIANTS = {
    "plain": (Shape(), "glu_silu", True, "", ""),
    "swiglu query": (Shape(query_hidden=9), "glu_silu", True, "swiglu", ""),
    "geglu both": (Shape(query_hidden=9, item_hidden=10), "glu_silu", True, "geglu", "geglu"),
    "uids": (Shape(uids=(50, 7)), "glu_silu", True, "", ""),
    "no l2 norm": (Shape(), "glu_silu", False, "", ""),
    "layer norm": (Shape(), "glu_silu_ln", True, "", ""),
    "sum": (Shape(), "none", True, "", ""),
    "cross part only": (Shape(gate_q=0, gate_x=0), "none", True, "", ""),
    "linear cross part": (Shape(gate_qi=0), "glu_silu", True, "", ""),
    "one by one": (Shape(p_q=1, p_x=1), "glu_silu", True, "", ""),
}
N = 150


def case(shape, seed=1):
    rng = np.random.default_rng(seed)
    queries, items = rng.standard_normal((4, shape.d), np.float32), rng.standard_normal((N, shape.d), np.float32)
    return queries, items, np.array([7, 57, 1, 123456]), rng.permutation(1000)[:N]


def hyper_parameters(variant):
    _, combination, l2_norm, query_glu, item_glu = variant
    return {
        "temperature": TEMPERATURE,
        "dot_product_l2_norm": l2_norm,
        "eps": EPS,
        "gating_combination": combination,
        "query_nonlinearity": query_glu or None,
        "item_nonlinearity": item_glu or None,
    }


def expected(state, variant, queries, items, users, temperature=TEMPERATURE):
    shape, combination, l2_norm, query_glu, item_glu = variant
    args = (temperature, l2_norm, EPS, combination, query_glu, item_glu)
    return mixture.scores(state, shape, queries, items, users, *args)


def bound(scores):
    """Logits that are not normalised can be larger than 1 / temperature."""
    return mixture.rounding(TEMPERATURE) * max(1, np.abs(scores).max() * TEMPERATURE)


@pytest.mark.parametrize("name", VARIANTS)
def test_scores_are_those_of_the_definition(name):
    variant = VARIANTS[name]
    state = mixture.random_state(variant[0])
    queries, items, users, ids = case(variant[0])
    mol = export_mol(state, **hyper_parameters(variant))
    searcher = Searcher.from_embeddings(ids, items, mol=mol, device="cpu")
    truth = expected(state, variant, queries, items, users)
    found_ids, scores = searcher.search(queries, k=N, user_ids=users)
    mixture.assert_best(found_ids, scores, truth, ids, bound(truth))
    found_ids, scores = searcher.search(queries, k=9, user_ids=users)
    mixture.assert_best(found_ids, scores, truth, ids, bound(truth))


def test_the_comparison_rejects_what_is_slightly_wrong():
    variant = VARIANTS["plain"]
    state = mixture.random_state(variant[0])
    queries, items, users, ids = case(variant[0])
    searcher = Searcher.from_embeddings(ids, items, mol=export_mol(state, **hyper_parameters(variant)), device="cpu")
    found = searcher.search(queries, k=9)
    truth = expected(state, variant, queries, items, users)
    mixture.assert_best(*found, truth, ids, bound(truth))
    with pytest.raises(AssertionError):
        wrong = expected(state, variant, queries, items, users, temperature=TEMPERATURE * 1.001)
        mixture.assert_best(*found, wrong, ids, bound(truth))
    with pytest.raises(AssertionError, match="left out"):
        mixture.assert_best(found[0][:, 1:], found[1][:, 1:], truth, ids, bound(truth))
    with pytest.raises(AssertionError):
        mixture.assert_best(found[0][:, ::-1], found[1], truth, ids, bound(truth))


def test_approximate_algorithms_rescore_with_the_same_similarity():
    variant = VARIANTS["uids"]
    state = mixture.random_state(variant[0])
    queries, items, users, ids = case(variant[0])
    searcher = Searcher.from_embeddings(ids, items, mol=export_mol(state, **hyper_parameters(variant)), device="cpu")
    exact = searcher.search(queries, k=20, user_ids=users)
    for algorithm in [f"avg:{N}", f"tangent:{N}", f"naive:{N}", "exact-pruned"]:
        ids_, scores = searcher.search(queries, k=20, user_ids=users, algorithm=algorithm)
        np.testing.assert_array_equal(ids_, exact[0], err_msg=algorithm)
        np.testing.assert_array_equal(scores, exact[1], err_msg=algorithm)


def test_models_with_uid_embeddings_need_users():
    variant = VARIANTS["uids"]
    queries, items, users, ids = case(variant[0])
    mol = export_mol(mixture.random_state(variant[0]), **hyper_parameters(variant))
    searcher = Searcher.from_embeddings(ids, items, mol=mol, device="cpu")
    with pytest.raises(ValueError, match="user ids: expected one per query"):
        searcher.search(queries, k=3)
    with pytest.raises(ValueError, match="4, one per query"):
        searcher.search(queries, k=3, user_ids=users[:2])


def test_names_of_wrappers_and_of_the_model_around_do_not_matter(tmp_path):
    variant = VARIANTS["plain"]
    state = mixture.random_state(variant[0])
    plain = export_mol(state, **hyper_parameters(variant))
    wrapped = {f"module._ndp_module.{name}": array for name, array in state.items()}
    wrapped["module._embedding_module._item_emb.weight"] = np.zeros((3, 3), np.float32)
    assert export_mol(wrapped, **hyper_parameters(variant)) == plain
    compiled = {f"_orig_mod.{name}": array for name, array in state.items()}
    assert export_mol(compiled, **hyper_parameters(variant)) == plain
    legacy = {name.replace(mixture.ITEM, "_item_proj_module"): array for name, array in state.items()}
    assert export_mol(legacy, **hyper_parameters(variant)) == plain
    path = tmp_path / "mol.safetensors"
    assert export_mol(state, path, **hyper_parameters(variant)) == str(path)
    assert path.read_bytes() == plain
    searcher = Searcher.from_embeddings([1], np.zeros((1, 12), np.float32), mol=path, device="cpu")
    assert len(searcher) == 1


class Module:
    """As much of a live module as `export_mol` looks at."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def children(self):
        return self.layers


class SwiGLU:
    pass


def live(state, combination="glu_silu"):
    similarity = Module(
        _temperature=TEMPERATURE,
        _dot_product_l2_norm=True,
        _eps=EPS,
        _gating_fn=Module(_combination_type=combination),
        _query_embeddings_fn=Module(_query_emb_proj_module=Module(layers=[object(), SwiGLU(), object()])),
        state_dict=lambda: state,
    )
    return Module(_ndp_module=similarity, state_dict=lambda: pytest.fail("the model around was asked"))


def test_a_live_module_knows_what_its_weights_do_not_say():
    variant = VARIANTS["swiglu query"]
    state = mixture.random_state(variant[0])
    expected_bytes = export_mol(state, **hyper_parameters(variant))
    assert export_mol(live(state)) == expected_bytes
    assert export_mol(Module(module=live(state))) == expected_bytes
    assert export_mol(live(state), temperature=0.1) != expected_bytes
    queries, items, _, ids = case(variant[0])
    from_module = Searcher.from_embeddings(ids, items, mol=live(state), device="cpu").search(queries, k=5)
    from_bytes = Searcher.from_embeddings(ids, items, mol=expected_bytes, device="cpu").search(queries, k=5)
    np.testing.assert_array_equal(from_module, from_bytes)


def test_what_is_missing_or_does_not_fit_is_named():
    variant = VARIANTS["swiglu query"]
    state, given = mixture.random_state(variant[0]), hyper_parameters(variant)
    with pytest.raises(ValueError, match="temperature, dot_product_l2_norm, eps, gating_combination, query_nonlin"):
        export_mol(state)
    with pytest.raises(ValueError, match="glu_silu.*found 'sum'"):
        export_mol(state, **{**given, "gating_combination": "sum"})
    with pytest.raises(ValueError, match="geglu.*found 'reglu'"):
        export_mol(state, **{**given, "query_nonlinearity": "reglu"})
    with pytest.raises(ValueError, match="expected a tensor .*item_emb_proj"):
        export_mol({}, **given)
    with pytest.raises(ValueError, match="PyTorch module or a state_dict"):
        export_mol(object())
    with pytest.raises(ValueError, match="finite"):
        export_mol({**state, "x": np.array([np.nan])}, **given)
    narrow = {**state, f"{mixture.ITEM}.1.weight": np.zeros((15, 12), np.float32)}
    with pytest.raises(ValueError, match="P_Q D_P, P_X D_P and P_Q P_X, found 24, 15 and 6"):
        export_mol(narrow, **given)
    # What only the compiled half can see.
    items = np.zeros((1, 12), np.float32)
    for broken, words in [
        ({**given, "temperature": 0.0}, "temperature"),
        ({**given, "eps": -1.0}, "eps"),
    ]:
        with pytest.raises(ValueError, match=words):
            Searcher.from_embeddings([1], items, mol=export_mol(state, **broken), device="cpu")
    with pytest.raises(ValueError, match="no place"):
        more = export_mol({**state, "_stranger.weight": np.zeros((1, 1))}, **given)
        Searcher.from_embeddings([1], items, mol=more, device="cpu")
    with pytest.raises(ValueError, match=r"shape \(N, 12\)"):
        Searcher.from_embeddings([1], np.zeros((1, 11)), mol=export_mol(state, **given), device="cpu")
    with pytest.raises(ValueError, match="safetensors"):
        Searcher.from_embeddings([1], items, mol=b"nonsense", device="cpu")
    with pytest.raises(ValueError, match="rails.mol.*version 1"):
        later = export_mol(state, **given).replace(b'{\\"format\\": 1', b'{\\"format\\": 2')
        Searcher.from_embeddings([1], items, mol=later, device="cpu")
