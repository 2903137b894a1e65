"""What is compared: each class answers a case, `run()` a batch at a time; `ids` turns what it returns into positions (B, k)."""

import numpy as np


class Ours:
    """This crate, by its Python package, CPU backend."""

    def __init__(self, case, inputs, threads, dtype="f32", algorithm=None):
        from rails_wgpu import Searcher, export_mol

        mol = export_mol(inputs.state, **inputs.settings) if case["kind"] == "mol" else None
        ids = np.arange(len(inputs.items))
        self.searcher = Searcher.from_embeddings(ids, inputs.items, mol=mol, device=case.get("device", "cpu"), dtype=dtype)
        self.queries, self.users, self.k = np.asarray(inputs.queries), inputs.users, case["k"]
        self.algorithm = algorithm or case["algorithm"]
        self.notes = [] if dtype == "f32" else [f"{dtype} tables"]

    def run(self):
        return self.searcher.search(self.queries, k=self.k, user_ids=self.users, algorithm=self.algorithm)[0]

    def ids(self, found):
        return found


class OursF16(Ours):
    def __init__(self, case, inputs, threads):
        super().__init__(case, inputs, threads, "f16")


class OursInt8(Ours):
    def __init__(self, case, inputs, threads):
        super().__init__(case, inputs, threads, "i8")


class OursExact(Ours):
    """Our own exact search, beside our own approximate one."""

    def __init__(self, case, inputs, threads):
        super().__init__(case, inputs, threads, algorithm="exact")


def torch_program(best, **options):
    def make(case, inputs, threads):
        import torch

        from mol_torch import Torch

        torch.set_num_threads(threads)
        # Its exact search is what an approximate algorithm of ours has to be faster than.
        return Torch({**case, "algorithm": case.get("torch_algorithm", case["algorithm"])}, inputs, best, **options)

    return make


def cuda(best, dtype):
    def make(case, inputs, threads):
        import torch

        return torch_program(best, device="cuda", dtype=getattr(torch, dtype))(case, inputs, threads)

    return make


class FaissFlat:
    def __init__(self, case, inputs, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.queries, self.k, self.notes = np.ascontiguousarray(inputs.queries), case["k"], []
        self.index = self.make(faiss, np.ascontiguousarray(inputs.items))

    def make(self, faiss, items):
        index = faiss.IndexFlatIP(items.shape[1])
        index.add(items)
        return index

    def run(self):
        return self.index.search(self.queries, self.k)[1]

    def ids(self, found):
        return found


class FaissIvf(FaissFlat):
    def make(self, faiss, items):
        n_lists = max(1, min(1024, len(items) // 64))
        quantizer = faiss.IndexFlatIP(items.shape[1])
        index = faiss.IndexIVFFlat(quantizer, items.shape[1], n_lists, faiss.METRIC_INNER_PRODUCT)
        index.train(items[: 64 * n_lists])
        index.add(items)
        index.nprobe = max(1, n_lists // 16)
        # The index does not own its quantizer.
        self.quantizer = quantizer
        self.notes.append(f"{n_lists} lists, {index.nprobe} of them probed")
        return index


class NumPy:
    def __init__(self, case, inputs, threads):
        # OpenBLAS wants both sides in memory that is its own.
        self.items, self.queries = np.array(inputs.items), np.array(inputs.queries)
        self.k, self.notes = case["k"], []

    def run(self):
        scores = self.queries @ self.items.T
        best = np.argpartition(-scores, self.k - 1, axis=1)[:, : self.k]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)

    def ids(self, found):
        return found


class Usearch:
    def __init__(self, case, inputs, threads):
        from usearch.index import MetricKind, search

        self.items, self.queries = np.array(inputs.items), np.array(inputs.queries)
        self.search = lambda: search(self.items, self.queries, case["k"], MetricKind.IP, exact=True, threads=threads)
        self.k, self.notes = case["k"], ["exact"]

    def run(self):
        return self.search()

    def ids(self, found):
        return np.asarray(found.keys).reshape(len(self.queries), self.k)


PROGRAMS = {
    "ours": Ours,
    "ours exact": OursExact,
    "ours f16": OursF16,
    "ours int8": OursInt8,
    "torch eager": torch_program(best=False),
    # The allocator's settings are the process's: see compare.py.
    "torch eager, malloc tuned": torch_program(best=False),
    "torch best": torch_program(best=True),
    "torch matmul + topk": torch_program(best=False),
    "torch cuda eager bf16": cuda(best=False, dtype="bfloat16"),
    "torch cuda best": cuda(best=True, dtype="float32"),
    "torch cuda best bf16": cuda(best=True, dtype="bfloat16"),
    "faiss IndexFlatIP": FaissFlat,
    "faiss IndexIVFFlat": FaissIvf,
    "numpy": NumPy,
    "usearch": Usearch,
}
