"""How well search finds papers: nDCG@10 of words only, meaning only and both fused, on search_queries.toml.

`python benchmarks/search_quality.py` prints the table for the development half and the held-out half of the queries,
with 95 % bootstrap intervals over queries, the paired differences, and the queries that fused search answers worst.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.metrics import ndcg_score

from claimbench.search import Document, Index
from claimbench.search.encoders import SubjectEncoder

MODES = ("words", "meaning", "fused")
CUT = 10
RESAMPLES = 10_000


def load(path: Path) -> tuple[list[Document], list[tuple[str, dict[str, int]]]]:
    """Documents, and queries with the graded papers that answer them."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    documents = [
        Document(
            key=d["id"],
            title=d["title"],
            text=d["text"],
            authors=tuple(d["authors"]),
            group=d["group"],
            year=d["year"],
        )
        for d in data["document"]
    ]
    return documents, [(q["text"], q["relevant"]) for q in data["query"]]


def score(index: Index, mode: str, text: str, relevant: dict[str, int], keys: list[str]) -> float:
    """scikit-learn's nDCG@10 (gain = grade) of a ranking against the grades of all papers.

    Ten irrelevant fillers rank between what was found and the rest, so that a short ranking earns nothing by chance.
    """
    found = [hit.key for hit in index.search(text, limit=CUT, mode=mode).hits]
    place = {key: 1.0 / rank for rank, key in enumerate(found, start=1)}
    grades = [relevant.get(key, 0) for key in keys] + [0] * CUT
    listed = [place.get(key, 0.0) for key in keys] + [1e-6] * CUT
    return float(ndcg_score([grades], [listed], k=CUT))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean over queries."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


class Remembering(SubjectEncoder):
    """Encodes a query once for the two kinds of search that need it."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self._one(texts[0]) if len(texts) == 1 else super().encode(texts)

    @cache  # noqa: B019  # one encoder for the whole process
    def _one(self, text: str) -> np.ndarray:
        return super().encode([text])


def measure(path: Path, server: str | None = None) -> tuple[list[str], np.ndarray]:
    """Texts of the queries, and nDCG@10 (queries, modes). server: the database that keeps the words, else SQLite."""
    documents, queries = load(path)
    keys = [document.key for document in documents]
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder), Remembering())
        if server is not None:
            from claimbench.search.postgres import PostgresIndex

            index = PostgresIndex(server, Path(folder), Remembering())
        index.build(documents)
        scores = [[score(index, mode, text, relevant, keys) for mode in MODES] for text, relevant in queries]
    return [text for text, _ in queries], np.array(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=Path, default=Path(__file__).with_name("search_queries.toml"))
    parser.add_argument("--worst", type=int, default=8, help="queries of the development half to print")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--development", action="store_true", help="only that half, while something is tried")
    parser.add_argument(
        "--server", metavar="URL", help="keep the words in this PostgreSQL database, whose index is replaced"
    )
    options = parser.parse_args()
    texts, scores = measure(options.queries, options.server)
    halves = {"development": slice(0, None, 2), "held-out": slice(1, None, 2), "all": slice(None)}
    if options.development:
        halves = {"development": halves["development"]}
    rows = [
        (half, mode, len(scores[part]), float(scores[part, m].mean()), *interval(scores[part, m]))
        for half, part in halves.items()
        for m, mode in enumerate(MODES)
    ]
    gains = [
        (half, f"fused - {mode}", *_difference(scores[part, 2] - scores[part, m]))
        for half, part in halves.items()
        for m, mode in enumerate(MODES[:2])
    ]
    if options.json:
        print(json.dumps({"ndcg@10": rows, "differences": gains}))
        return
    print("| queries | search | number | nDCG@10 | 95 % interval |\n|---|---|---|---|---|")
    for half, mode, number, mean, low, high in rows:
        print(f"| {half} | {mode} | {number} | {mean:.3f} | {low:.3f} to {high:.3f} |")
    print("\n| queries | difference | nDCG@10 | 95 % interval |\n|---|---|---|---|")
    for half, what, mean, low, high in gains:
        print(f"| {half} | {what} | {mean:+.3f} | {low:+.3f} to {high:+.3f} |")
    print(f"\nWorst fused of the development half ({', '.join(MODES)}):")
    for place in sorted(range(0, len(texts), 2), key=lambda i: scores[i, 2])[: options.worst]:
        print(f"  {' '.join(f'{s:.2f}' for s in scores[place])}  {texts[place]}")


def _difference(values: np.ndarray) -> tuple[float, float, float]:
    return (float(values.mean()), *interval(values))


if __name__ == "__main__":
    main()
