"""Text retrieval with a learned similarity, from frozen embeddings to measured results, on made-up texts that need no download:

embeddings -> train_similarity -> Searcher in a folder, with string ids -> search -> evaluate_run, write_run

A text is a mean of word vectors, as a sentence encoder might give it. Queries ask in other words than documents answer in (each
word has a synonym), and no encoder has seen which words belong together: inner products do not know it, the trained similarity learns
it from pairs of a query and a relevant document. To use an encoder of your own, put its embeddings in the place of `embed`.

    python text_retrieval.py
"""

import os
import tempfile

import numpy as np

from rails_wgpu import Searcher, evaluate_run, train_similarity, write_run

N_DOCUMENTS, N_QUERIES, N_WORDS, DIM = 1000, 600, 60, 32
generator = np.random.default_rng(7)
words = generator.normal(size=(N_WORDS, DIM)).astype(np.float32)
synonyms = generator.normal(size=(N_WORDS, DIM)).astype(np.float32)  # of word i, for queries


def embed(texts, vectors):
    """(n, D): the frozen embeddings of texts, each a list of words."""
    means = np.stack([vectors[text].mean(axis=0) for text in texts])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


documents = [generator.choice(N_WORDS, size=8, replace=False) for _ in range(N_DOCUMENTS)]
answers = generator.integers(N_DOCUMENTS, size=N_QUERIES)
queries = [generator.choice(documents[answer], size=6, replace=False) for answer in answers]

# A document with all words of the query is the best answer, one with four of the six a good one.
common = np.array([[len(np.intersect1d(query, document)) for document in documents] for query in queries[-100:]])
qrels = {
    f"query-{N_QUERIES - 100 + row}": {f"doc-{d}": 2 if n == 6 else 1 for d, n in enumerate(counts) if n >= 4}
    for row, counts in enumerate(common)
}

query_embeddings, document_embeddings = embed(queries, synonyms), embed(documents, words)
names = [f"doc-{number}" for number in range(N_DOCUMENTS)]


def measured(searcher, algorithm):
    """Metrics of the last 100 queries, which training has not seen, and the run."""
    ids, scores = searcher.search(query_embeddings[-100:], k=100, algorithm=algorithm)
    run = {
        f"query-{N_QUERIES - 100 + row}": dict(zip(found, map(float, of_query)))
        for row, (found, of_query) in enumerate(zip(ids, scores))
    }
    return evaluate_run(qrels, run, ["ndcg@10", "recall@100", "mrr@10"]), run


with tempfile.TemporaryDirectory() as folder:
    pairs = np.column_stack([np.arange(N_QUERIES - 100), answers[:-100]])
    mol = train_similarity(
        query_embeddings,
        document_embeddings,
        pairs,
        os.path.join(folder, "mol.safetensors"),
        epochs=20,
        batch_size=64,
        negatives=64,
        learning_rate=5e-3,
        callback=lambda epoch, loss: print(f"epoch {epoch}: loss {loss:.3f}") if epoch % 10 == 0 else None,
    )
    plain = Searcher.from_embeddings(names, document_embeddings, device="cpu")
    learned = Searcher.from_embeddings(
        names, document_embeddings, mol=mol, device="cpu", folder=os.path.join(folder, "index")
    )
    results = {}
    for name, searcher, algorithm in [
        ("inner product", plain, "exact"),
        ("learned similarity", learned, "exact"),
        ("the same, approximate", learned, "tangent:200"),
    ]:
        results[name], run = measured(searcher, algorithm)
        print(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in results[name].items()))
    write_run(run, os.path.join(folder, "results.run"))  # for trec_eval, or `rails-bench eval-run`
    reopened = Searcher.from_index(os.path.join(folder, "index"), device="cpu")
    assert measured(reopened, "tangent:200")[1] == run

assert results["learned similarity"]["recall@100"] > 2 * results["inner product"]["recall@100"], results
