"""Gradients of GRU4Rec and BERT4Rec equal those of PyTorch's own modules and autograd, where PyTorch is installed.

A run of one step with a learning rate of almost nothing keeps the weights that it began with, and the first moments of its optimiser
are a tenth of the gradients.
"""

import json
import struct

import numpy as np
import pytest

from rails_wgpu import History, train

torch = pytest.importorskip("torch", reason="PyTorch is a large download and no dependency")
nn = torch.nn
ITEMS, DIM, HIDDEN, HEADS, TEMPERATURE = 30, 8, 12, 2, 0.5
COMMON = f"""
train_fn.max_sequence_length = 9
train_fn.gr_output_length = 0
train_fn.item_embedding_dim = {DIM}
train_fn.user_embedding_norm = 'none'
train_fn.interaction_module_type = 'DotProduct'
train_fn.loss_module = 'FullSoftmaxLoss'
train_fn.temperature = {TEMPERATURE}
train_fn.dropout_rate = 0
train_fn.weight_decay = 0
train_fn.learning_rate = 1e-30
"""
GRU4REC = f"""
train_fn.main_module = 'GRU4Rec'
gru4rec_encoder.num_layers = 2
gru4rec_encoder.hidden_dim = {HIDDEN}
gru4rec_encoder.dense = True
"""
BERT4REC = f"""
train_fn.main_module = 'BERT4Rec'
bert4rec_encoder.num_blocks = 2
bert4rec_encoder.num_heads = {HEADS}
bert4rec_encoder.ffn_hidden_dim = {HIDDEN}
bert4rec_encoder.attn_dropout_rate = 0
bert4rec_encoder.hidden_dropout_rate = 0
"""


def histories():
    random = np.random.default_rng(3)
    ids = [random.integers(1, ITEMS + 1, 3 + user) for user in range(7)]
    return [History(row, np.arange(len(row)), user_id=user) for user, row in enumerate(ids)]


def state(path):
    """Weights as parameters of PyTorch, in double precision, and the gradients."""
    data = (path / "state.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, tensor in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__" and tensor["dtype"] == "F32":
            start, end = (8 + length + offset for offset in tensor["data_offsets"])
            values = np.frombuffer(data[start:end], "<f4").reshape(tensor["shape"])
            tensors[name] = torch.tensor(values, dtype=torch.float64)
    of = lambda prefix: {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    weights = {name: value.requires_grad_() for name, value in of("weights.").items()}
    return weights, {name: 10 * value for name, value in of("first_moments.").items()}


def gru4rec(weights, events, _):
    layers = nn.GRU(DIM, HIDDEN, 2, batch_first=True).double()
    own = {name: weights[f"gru.{name}"] for name, _ in layers.named_parameters()}
    states, _ = torch.func.functional_call(layers, own, (weights["item_embedding.weight"][events[None, :-1]],))
    return nn.functional.linear(states[0], weights["dense.weight"], weights["dense.bias"]), events[1:]


def bert4rec(weights, events, all_are_masked):
    masked = torch.full_like(events, all_are_masked, dtype=torch.bool)
    masked[-1] = True
    rows = events.masked_fill(masked, ITEMS + 1)
    norm = lambda x, name: nn.functional.layer_norm(x, (DIM,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)
    x = norm(weights["item_embedding.weight"][rows] + weights["position_embedding.weight"][: len(rows)], "embedding_norm")[None]
    parts = [("self_attn.", "attention."), ("linear1.", "ffn.0."), ("linear2.", "ffn.1."),
             ("norm1.", "attention_norm."), ("norm2.", "ffn_norm.")]  # fmt: skip
    for i in range(2):
        block = nn.TransformerEncoderLayer(DIM, HEADS, HIDDEN, 0.0, "gelu", 1e-12, batch_first=True).double()
        own = {}
        for name, _ in block.named_parameters():
            theirs, ours = next(part for part in parts if name.startswith(part[0]))
            own[name] = weights[f"blocks.{i}.{ours}{name[len(theirs) :]}"]
        x = torch.func.functional_call(block, own, (x,))
    return x[0][masked], events[masked]


def differences(found, expected):
    """Names of the gradients that are not as expected."""
    largest = max(gradient.abs().max() for gradient in expected.values())
    allowed = {name: 2e-5 * gradient.abs().max() + 1e-6 * largest for name, gradient in expected.items()}
    return [name for name in expected if (found[name] - expected[name]).abs().max() > allowed[name]]


@pytest.mark.parametrize(
    "encoder, gin, masked, output",
    [
        (gru4rec, GRU4REC, 0.2, {"separate": True, "bias": True}),
        (gru4rec, GRU4REC, 0.2, {}),
        (bert4rec, BERT4REC, 0.0, {"bias": True}),
        (bert4rec, BERT4REC, 1.0, {}),
    ],
)
def test_gradients_are_those_of_autograd(encoder, gin, masked, output, tmp_path):
    (tmp_path / "model.gin").write_text(COMMON + gin)
    output = {"separate": False, "bias": False} | output
    result = train(
        histories(), tmp_path / "run", config=tmp_path / "model.gin", model={"output": output}, item_ids=range(1, ITEMS + 1),
        epochs=1, mask_probability=masked, device="cpu",
    )  # fmt: skip
    weights, found = state(tmp_path / "run")
    assert set(found) == set(weights)
    pairs = [encoder(weights, torch.tensor(history.item_ids[:-1], dtype=torch.int64), masked == 1) for history in histories()]
    queries, targets = (torch.cat(parts) for parts in zip(*pairs))
    items = weights["output.weight" if output["separate"] else "item_embedding.weight"][1 : ITEMS + 1]
    logits = queries @ items.T + (weights["output.bias"][1 : ITEMS + 1] if output["bias"] else 0)
    loss = nn.functional.cross_entropy(logits / TEMPERATURE, targets - 1)
    assert result.epochs[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    names = list(weights)
    gradients = torch.autograd.grad(loss, [weights[name] for name in names], materialize_grads=True)
    expected = dict(zip(names, gradients))
    assert differences(found, expected) == []
    for name in names:
        if expected[name].abs().max() > 2e-3 * max(gradient.abs().max() for gradient in gradients):
            assert differences(found | {name: 1.001 * found[name]}, expected) == [name]
