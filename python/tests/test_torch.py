"""With real PyTorch, where it is installed: tensors as arrays, and a live module exported while it is still warm."""

import mixture
import numpy as np
import pytest

from rails_wgpu import Searcher, export_mol

torch = pytest.importorskip("torch", reason="PyTorch is a large download and no dependency")
F = torch.nn.functional
D, D_P, P_Q, P_X, UIDS = 12, 8, 3, 2, 50


class SwiGLU(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self._w, self._b = torch.nn.Parameter(torch.randn(D, 2 * width) / 3), torch.nn.Parameter(torch.randn(1, 2 * width))

    def forward(self, x):
        first, second = (x @ self._w + self._b).chunk(2, dim=-1)
        return F.silu(first) * second


def part(*layers):
    return torch.nn.Sequential(*layers)


class Similarity(torch.nn.Module):
    """A similarity with the attributes and names of the reference."""

    def __init__(self):
        super().__init__()
        linear, dropout, silu = torch.nn.Linear, torch.nn.Dropout(0.3), torch.nn.SiLU()
        logits = P_Q * P_X
        self._temperature, self._dot_product_l2_norm, self._eps = 0.05, True, 1e-6
        self._query_embeddings_fn = torch.nn.Module()
        self._query_embeddings_fn._query_emb_proj_module = part(dropout, SwiGLU(9), linear(9, (P_Q - 1) * D_P))
        self._query_embeddings_fn._uid_embeddings_0 = torch.nn.Embedding(UIDS + 1, D_P)
        self._item_embeddings_fn = torch.nn.Module()
        self._item_embeddings_fn._item_emb_proj_module = part(dropout, linear(D, P_X * D_P))
        self._gating_fn = torch.nn.Module()
        self._gating_fn._combination_type = "glu_silu"
        self._gating_fn._query_only_partial_module = part(linear(D, 5), silu, linear(5, logits, bias=False))
        self._gating_fn._item_only_partial_module = part(dropout, linear(D, 6), silu, linear(6, logits, bias=False))
        self._gating_fn._qi_partial_module = part(dropout, linear(logits, 7), silu, linear(7, logits))

    def forward(self, queries, items, users):
        f = self._query_embeddings_fn._query_emb_proj_module(queries).reshape(len(queries), -1, D_P)
        f = torch.cat([f, self._query_embeddings_fn._uid_embeddings_0(users % UIDS + 1)[:, None]], dim=1)
        g = self._item_embeddings_fn._item_emb_proj_module(items).reshape(len(items), -1, D_P)
        z = torch.einsum("bnd,xmd->bxnm", F.normalize(f, dim=-1), F.normalize(g, dim=-1)).flatten(2) / self._temperature
        gate = self._gating_fn._query_only_partial_module(queries)[:, None]
        gate = gate * self._gating_fn._item_only_partial_module(items) + self._gating_fn._qi_partial_module(z)
        return ((gate * gate.sigmoid()).softmax(-1) * z).sum(-1)


@pytest.fixture
def case():
    torch.manual_seed(0)
    return Similarity().eval(), torch.randn(4, D), torch.randn(150, D), torch.tensor([1, 2, 51, 99])


def test_a_live_module_scores_as_it_does_in_pytorch(case):
    module, queries, items, users = case
    ids = torch.randperm(1000)[:150]
    with torch.no_grad():
        truth = module.double()(queries.double(), items.double(), users).numpy()
    around = torch.nn.Module()
    around._ndp_module = module.float()
    for mol in [module, around, export_mol(module)]:
        searcher = Searcher.from_embeddings(ids, items, mol=mol, device="cpu")
        found = searcher.search(queries.requires_grad_(), k=20, user_ids=users)
        mixture.assert_best(*found, truth, ids.numpy(), mixture.rounding(0.05))


def test_tensors_of_any_type_are_arrays(case):
    _, queries, items, _ = case
    searcher = Searcher.from_embeddings(torch.arange(150, dtype=torch.int32), items.bfloat16(), device="cpu")
    as_floats = Searcher.from_embeddings(np.arange(150), items.bfloat16().float().numpy(), device="cpu")
    np.testing.assert_array_equal(searcher.search(queries.T.contiguous().T, 9), as_floats.search(queries.numpy(), 9))
    seen = torch.tensor([[3, -1], [4, 5], [-1, -1], [0, 1]])
    ids, _ = searcher.search(queries, 150, exclude=seen)
    assert [(row == -1).sum() for row in ids] == [1, 2, 0, 2]
