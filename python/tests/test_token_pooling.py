"""Pooling of token states, beside the same in PyTorch."""

import numpy as np
import pytest

import rails_wgpu
from rails_wgpu import Searcher, TokenPooling, export_gate

torch = pytest.importorskip("torch")

N, P, T, D, WIDTH = 6, 3, 5, 20, 8
# Padding on the right, on the left, none, and texts longer than T and shorter than P.
MASK = np.array(
    [
        [1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 0, 0],
    ]
)


@pytest.fixture(scope="module")
def layers():
    torch.manual_seed(7)
    return torch.randn(N, MASK.shape[1], D), torch.nn.Linear(D, WIDTH), 3 * torch.randn(P, T)


def padded(states):
    """(N, n, D): the states of each text from the first on, padded on the right; and (N, n): which are of a text."""
    texts = [text[torch.tensor(mask, dtype=torch.bool)] for text, mask in zip(states, MASK)]
    lengths = torch.tensor([len(text) for text in texts])
    texts = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    return texts, torch.arange(texts.shape[1])[None] < lengths[:, None]


def first_tokens(states, linear):
    texts, mask = padded(states)
    components = torch.nn.functional.normalize(linear(texts[:, :P]), dim=-1, eps=1e-6)
    return components * mask[:, :P, None]


def mixture(states, linear, weights, softmax):
    texts, mask = padded(states)
    texts, mask = texts[:, :T], mask[:, None, :T]
    if softmax:
        weights = weights.expand(N, P, T).masked_fill(~mask, -torch.inf).softmax(dim=-1)
    else:
        weights = weights * mask
    return torch.nn.functional.normalize(linear(weights @ texts), dim=-1, eps=1e-6)


@pytest.mark.parametrize("method", ["first_tokens", "softmax", "plain"])
def test_components_are_those_of_pytorch(layers, method, tmp_path):
    states, linear, weights = layers
    if method == "first_tokens":
        pooling = TokenPooling.first_tokens(P, projection=linear, l2_norm=True)
        expected = first_tokens(states, linear)
    else:
        softmax = method == "softmax"
        pooling = TokenPooling.mixture(weights, softmax=softmax, projection=linear, l2_norm=True)
        expected = mixture(states, linear, weights, softmax)
    assert pooling.n_components == P
    pooled = pooling.pool(states, MASK, device="cpu")
    assert pooled.shape == (N, P, WIDTH) and pooled.dtype == np.float32
    expected = expected.detach().numpy()
    # Unit vectors of sums of at most 20 * 5 products.
    assert np.abs(pooled - expected).max() < 1e-5 < np.abs(pooled - expected[::-1]).max()
    # Arrays of the states that count say the same, and so does a file.
    texts = [text[mask.astype(bool)] for text, mask in zip(states.numpy(), MASK)]
    pooling.save(tmp_path / "pooling.safetensors")
    again = TokenPooling.open(tmp_path / "pooling.safetensors").pool(texts, device="cpu")
    np.testing.assert_array_equal(pooled, again)
    # The states themselves, and zeros where a text has none.
    plain = TokenPooling.first_tokens(P).pool(texts, device="cpu")
    np.testing.assert_array_equal(plain[3], np.concatenate([texts[3], np.zeros((P - 1, D), np.float32)]))


def test_pooled_texts_are_searched(layers, tmp_path):
    states, linear, weights = layers
    components = TokenPooling.mixture(weights, projection=(linear.weight, linear.bias), l2_norm=True).pool(
        states, MASK, device="cpu"
    )
    gate = export_gate(P, P, WIDTH, tmp_path / "gate.safetensors", temperature=0.1)
    searcher = Searcher.from_embeddings(np.arange(N), components, mol=gate, device="cpu")
    ids, scores = searcher.search(components, k=N)
    logits = np.einsum("bpd,nqd->bnpq", components, components, dtype=np.float64).reshape(N, N, -1) / 0.1
    expected = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) * logits).sum(-1)
    np.testing.assert_array_equal(ids, np.argsort(-expected, axis=1))
    np.testing.assert_allclose(scores, np.take_along_axis(expected, ids, axis=1), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused(layers, tmp_path):
    states, linear, weights = layers
    pooling = TokenPooling.mixture(weights, projection=linear.weight)
    for call, error, words in [
        (lambda: TokenPooling.first_tokens(0), ValueError, "n_components: expected 1"),
        (lambda: TokenPooling.first_tokens(5000), ValueError, "1 to 4096 components, found 5000"),
        (lambda: TokenPooling.first_tokens(2.5), TypeError, "an integer"),
        (lambda: TokenPooling.mixture(weights[0]), ValueError, "weights: expected an array of two axes"),
        (lambda: TokenPooling.mixture(weights, projection=(linear.weight, weights)), ValueError, "a bias"),
        (lambda: TokenPooling.mixture(weights, projection=(linear.weight, linear.bias[1:])), ValueError, "a bias (8)"),
        (lambda: TokenPooling.mixture(weights, l2_norm=True, eps=0.0), ValueError, "eps above 0"),
        (lambda: pooling.pool(states[:, :, 1:]), ValueError, "expected width 20"),
        (lambda: pooling.pool(states, MASK[:, 1:]), ValueError, "mask: expected shape (N, n)"),
        (lambda: pooling.pool(states, 2 * MASK), ValueError, "zeros and ones"),
        (lambda: pooling.pool(states, 0 * MASK), ValueError, "at least 1 token each, found 0 at 0"),
        (lambda: pooling.pool(states * np.inf), ValueError, "finite numbers"),
        (lambda: pooling.pool(states, device="no such device"), rails_wgpu.DeviceError, "no such device"),
        (lambda: TokenPooling.open(tmp_path / "none.safetensors"), FileNotFoundError, "none.safetensors"),
    ]:
        with pytest.raises(error) as raised:
            call()
        assert words in str(raised.value), (words, str(raised.value))
