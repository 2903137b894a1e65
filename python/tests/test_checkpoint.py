"""Trained models of the repository, against the tensors of an independent implementation."""

import json
import struct
from pathlib import Path

import mixture
import numpy as np
import pytest

from rails_wgpu import History, Searcher

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "assets" / "demo.safetensors"
MODELS = ROOT / "tests" / "oracle"
SEEN = History(item_ids=[12, 31, 5], timestamps=[100, 160, 300], now=400, user_id=7)


def tensors(path):
    """All tensors of a .safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    dtypes = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4"}
    found = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = np.frombuffer(content[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return found


@pytest.mark.parametrize("name", ["tiny_hstu_mol", "tiny_hstu_mol_uids2", "tiny_sasrec_mol", "tiny_hstu_dot"])
def test_queries_and_hits_are_those_of_pytorch(name):
    truth = tensors(MODELS / name / "oracle.safetensors")
    searcher = Searcher.from_checkpoint(
        MODELS / name / "model.pt", MODELS / name / "config.gin", item_ids=truth["in.all_item_ids"], device="cpu"
    )
    users = truth["in.user_ids"]
    rows = zip(truth["in.past_ids"], truth["in.timestamps"], truth["in.past_lengths"], users)
    # The time of the request follows that of the last event.
    histories = [History(ids[:n], times[:n], int(times[n]), int(user)) for ids, times, n, user in rows]
    queries = searcher.encode(histories)
    np.testing.assert_allclose(queries, truth["enc.query_embeddings"], rtol=0, atol=1e-5)
    algorithm = "MIPSBruteForceTopK" if name.endswith("dot") else "MoLBruteForceTopK"
    ids, scores = searcher.search(truth["enc.query_embeddings"], k=50, user_ids=users, algorithm=algorithm)
    np.testing.assert_array_equal(ids, truth[f"topk.{algorithm}.ids"][:, :50])
    np.testing.assert_allclose(scores, truth[f"topk.{algorithm}.scores"][:, :50], rtol=0, atol=mixture.rounding(0.05))


def test_hyper_parameters_are_found_inside_or_beside_the_file(tmp_path):
    inside = Searcher.from_checkpoint(DEMO, device="cpu")
    assert len(inside) == 220 and inside.dim == 16 and inside.device == "cpu"
    given = Searcher.from_checkpoint(
        str(MODELS / "tiny_hstu_mol" / "model.pt"), str(MODELS / "tiny_hstu_mol" / "config.gin"), device="cpu"
    )
    beside = Searcher.from_checkpoint(MODELS / "tiny_hstu_mol" / "model.pt", device="cpu")
    for other in [given, beside]:
        np.testing.assert_array_equal(other.encode([SEEN]), inside.encode([SEEN]))
    alone = tmp_path / "model.pt"
    alone.write_bytes((MODELS / "tiny_hstu_mol" / "model.pt").read_bytes())
    with pytest.raises(ValueError, match="holds no hyper-parameters"):
        Searcher.from_checkpoint(alone, device="cpu")
    with pytest.raises(FileNotFoundError, match="no/such.pt"):
        Searcher.from_checkpoint("no/such.pt")
    with pytest.raises(ValueError, match="1 to 220"):
        Searcher.from_checkpoint(DEMO, item_ids=[221], device="cpu")


def test_histories_are_checked():
    searcher = Searcher.from_checkpoint(DEMO, item_ids=np.arange(1, 100), device="cpu")
    assert searcher.encode([]).shape == (0, 16)
    both = searcher.encode([SEEN, ([4], [50])])
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[:1], searcher.encode([tuple(SEEN)]))
    np.testing.assert_array_equal(both[1:], searcher.encode([History(np.array([4]), np.array([50]), now=50)]))
    for wrong, words in [
        (History([], []), "at least one event"),
        (History([4, 5], [1]), "expected 2 timestamps, found 1"),
        (History([500], [1], user_id=3), "item id 500 of user 3"),
        (History([-1], [1]), "expected 0 to 4294967295, found -1"),
    ]:
        with pytest.raises(ValueError, match=words):
            searcher.encode([SEEN, wrong])
    with pytest.raises(TypeError, match="item_ids: expected integers"):
        searcher.encode([SEEN, History([1.5], [1])])
    with pytest.raises(TypeError, match="user_id: expected an integer"):
        searcher.encode([History([4], [1], user_id=1.5)])


def test_a_checkpoint_lends_its_similarity_and_its_encoder():
    truth = tensors(MODELS / "tiny_hstu_mol" / "oracle.safetensors")
    own = Searcher.from_embeddings(truth["in.all_item_ids"], truth["item.embeddings"], mol=DEMO, device="cpu")
    whole = Searcher.from_checkpoint(DEMO, item_ids=truth["in.all_item_ids"], device="cpu")
    queries = own.encode([SEEN])
    np.testing.assert_array_equal(own.search(queries, 9, [7]), whole.search(queries, 9, [7]))
