"""Training of a similarity on embeddings that stay as they are."""

import numpy as np
import pytest

from rails_wgpu import Searcher, train_similarity

N, DIM = 60, 8
generator = np.random.default_rng(1)
ITEMS = generator.normal(size=(N, DIM)).astype(np.float32)
QUERIES = np.roll(ITEMS, 3, axis=1)  # inner products do not see whose they are
PAIRS = np.column_stack([np.arange(N), np.arange(N)])
SMALL = {"n_query_components": 2, "n_item_components": 2, "width": 8, "gate_hidden": 8, "batch_size": 15, "negatives": 20}


def found(mol):
    searcher = Searcher.from_embeddings(np.arange(N), ITEMS, mol=mol, device="cpu")
    return float((searcher.search(QUERIES, k=1)[0][:, 0] == np.arange(N)).mean())


def test_what_belongs_together_is_learned_and_the_same_seed_gives_the_same_file(tmp_path):
    losses = []
    options = {**SMALL, "epochs": 40, "learning_rate": 1e-2, "callback": lambda epoch, loss: losses.append((epoch, loss))}
    mol = train_similarity(QUERIES, ITEMS, PAIRS, tmp_path / "mol.safetensors", **options)
    assert [epoch for epoch, _ in losses] == list(range(1, 41)) and losses[-1][1] < losses[0][1] / 5
    assert found(None) < 0.3 and found(mol) > 0.9
    train_similarity(QUERIES, ITEMS, PAIRS, tmp_path / "again.safetensors", **options)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "mol.safetensors").read_bytes()


def test_a_callback_ends_it_and_what_is_wrong_is_said(tmp_path):
    path, epochs = tmp_path / "mol.safetensors", []
    train_similarity(QUERIES, ITEMS, PAIRS, path, **SMALL, callback=lambda epoch, _: epochs.append(epoch) or epoch < 2)
    assert epochs == [1, 2] and path.exists()
    for arguments, options, words in [
        ((QUERIES, ITEMS, [[0, N]]), {}, f"one of {N} items, at least one, found"),
        ((QUERIES, ITEMS, np.zeros((0, 2), int)), {}, "found none"),
        ((QUERIES, ITEMS, [0, 1]), {}, r"an array \(n, 2\)"),
        ((QUERIES[:, :3], ITEMS, PAIRS), {}, r"shape \(B, 8\)"),
        ((QUERIES * np.nan, ITEMS, PAIRS), {}, "finite numbers"),
        ((QUERIES, ITEMS, PAIRS), {"learning_rate": -1.0}, "learning_rate"),
        ((QUERIES, ITEMS, PAIRS), {"width": 0}, "dot_product_dimension"),
    ]:
        with pytest.raises(ValueError, match=words):
            train_similarity(*arguments, tmp_path / "other.safetensors", **{**SMALL, **options})
    epochs.clear()
    with pytest.raises(OSError, match="nowhere"):
        train_similarity(QUERIES, ITEMS, PAIRS, tmp_path / "nowhere" / "mol.safetensors", **SMALL, callback=epochs.append)
    assert not epochs, "what cannot be written is not trained"
    with pytest.raises(ZeroDivisionError):
        train_similarity(QUERIES, ITEMS, PAIRS, path, **SMALL, callback=lambda *_: 1 / 0)
    assert not (tmp_path / "other.safetensors").exists()
