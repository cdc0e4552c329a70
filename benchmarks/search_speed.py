"""How fast search is at 100,000 papers: build time, sizes, memory, and the time of a query by words, meaning and both.

Papers are synthetic: titles, texts and names of words drawn by Zipf's law from the vocabulary of search_queries.toml,
extended by made-up words to that of a real collection. Their vectors are random, since only their number matters to
time; what encoding real texts costs is measured on the benchmark's own documents. Queries are encoded by the shared
encoder process, as a web worker's are. Run it on an idle machine: the load is printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from search_quality import load

from claimbench.search import Document, EncoderClient, Index, pairwise
from claimbench.search import meaning as vectors
from claimbench.search.encoders import shared
from claimbench.search.query import tokens

WIDTH = 384
VOCABULARY = 60_000
GOAL = {"p50": 50.0, "p95": 200.0}  # milliseconds
QUERIES = Path(__file__).with_name("search_queries.toml")


class RandomRows:
    """Unit rows by chance for the papers, the real encoder's for a query."""

    def __init__(self, client: EncoderClient) -> None:
        self.client = client
        self.identity = client.identity
        self._draw = np.random.default_rng(0)
        self.papers = True

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self.papers:
            return self._draw.standard_normal((len(texts), WIDTH), dtype=np.float32)
        return self.client.encode(texts)


def papers(number: int) -> Iterator[Document]:
    """Synthetic papers: 10 words a title, 150 a text, 4 authors of 30,000, by Zipf's law with exponent 1."""
    draw = np.random.default_rng(0)
    known = list(dict.fromkeys(word for d in load(QUERIES)[0] for word in tokens(f"{d.text} {d.title}")))
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    made = ["".join(draw.choice(syllables, draw.integers(2, 5))) for _ in range(VOCABULARY)]
    words = np.array(list(dict.fromkeys([*known, *made])))
    share = 1.0 / np.arange(1, len(words) + 1)
    share /= share.sum()
    groups = (
        "sequence",
        "vision",
        "compression",
        "training",
        "data",
        "inference",
        "theory",
        "evaluation",
        "science",
    )
    for start in range(0, number, 1000):
        count = min(1000, number - start)
        texts = words[draw.choice(len(words), (count, 160), p=share)]
        names = draw.integers(30_000, size=(count, 4))
        for i in range(count):
            yield Document(
                key=f"arxiv-{start + i}",
                title=" ".join(texts[i, :10]),
                text=" ".join(texts[i, 10:]),
                authors=tuple(f"{made[n % 5000].title()} {made[n].title()}" for n in names[i]),
                group=groups[(start + i) % len(groups)],
                year=1995 + (start + i) % 31,
                verdicts=("holds",) if i % 100 == 0 else None,
            )


def timed(index: Index, mode: str, queries: Sequence[str], clients: int) -> tuple[float, float, float]:
    """p50 and p95 of a query in milliseconds, with so many threads asking at once; and this process's CPU time a query.

    CPU time leaves out the encoder process, and what other work on the machine adds by waiting.
    """

    def one(query: str) -> float:
        start = time.perf_counter()
        index.search(query, mode=mode)  # type: ignore[arg-type]
        return 1e3 * (time.perf_counter() - start)

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(one, queries[:5]))
        before = time.process_time()
        took = list(threads.map(one, queries))
        processor = 1e3 * (time.process_time() - before) / len(queries)
    return float(np.quantile(took, 0.5)), float(np.quantile(took, 0.95)), processor


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"


def neighbours_share(index: Index, rows: int) -> float:
    """Seconds for the similar papers of all, from those of `rows`."""
    loaded = vectors.Vectors(index.storage)
    slots = np.arange(len(loaded.ids))
    start = time.perf_counter()
    pairwise.nearest(loaded.rows, slots[:rows], slots, loaded.ids, 10)
    return (time.perf_counter() - start) * len(slots) / rows


def build(folder: Path, number: int, neighbours: bool) -> None:
    """Build in a process of its own and print what it took; similar papers are computed for a sample and scaled."""
    documents = list(papers(number))
    index = Index(folder)
    start = time.perf_counter()
    index.build(documents)
    print(f"| words of {number:,} papers indexed | {time.perf_counter() - start:.1f} s |")
    index.encoder = RandomRows(shared())
    start = time.perf_counter()
    index.encode_stale()
    print(f"| their vectors stored (not encoded) | {time.perf_counter() - start:.1f} s |")
    if neighbours:
        start = time.perf_counter()
        index.embed()
        print(f"| similar papers of all | {time.perf_counter() - start:.0f} s |")
        start = time.perf_counter()
        index.update([Document(f"new-{i}", f"A new paper {i}", "of today") for i in range(100)])
        print(
            f"| 100 papers added, similar papers included, not encoded | {time.perf_counter() - start:.1f} s |"
        )
    else:
        seconds = neighbours_share(index, 1024)
        print(f"| similar papers of all, from those of 1,024 | {seconds:.0f} s |")
    print(f"| peak memory of the building process, papers included | {peak()} |")


def on_a_server(url: str, number: int, queries: Sequence[str]) -> None:
    """Search by words where a PostgreSQL server keeps them; processor time is this process's, not the server's."""
    from claimbench.search.postgres import PostgresIndex

    index = PostgresIndex(url, None)
    documents = list(papers(number))
    start = time.perf_counter()
    index.build(documents)
    print(f"words of {number:,} papers indexed: {time.perf_counter() - start:.1f} s\n")
    print("| search | clients | p50 ms | p95 ms | own CPU, mean ms |\n|---|---|---|---|---|")
    for clients in (1, 2):
        p50, p95, processor = timed(index, "words", queries, clients)
        print(f"| words | {clients} | {p50:.1f} | {p95:.1f} | {processor:.1f} |")
    print(f"\nload: {os.getloadavg()[0]:.1f}; cores: {os.cpu_count()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--papers", type=int, default=100_000)
    parser.add_argument(
        "--neighbours", action="store_true", help="all pairs, for minutes, instead of a sample"
    )
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--server", metavar="URL", help="only words, in this PostgreSQL database, whose index is replaced"
    )
    options = parser.parse_args()
    if options.build:
        build(options.build, options.papers, options.neighbours)
        return
    documents, asked = load(QUERIES)
    texts = [text for text, _ in asked]
    if options.server:
        on_a_server(options.server, options.papers, texts)
        return
    client = shared()
    load_before = os.getloadavg()[0]
    client.encode(["ready"])
    start = time.perf_counter()
    client.encode([d.passage for d in documents])
    print("| what | measured |\n|---|---|")
    print(
        f"| encoding 1,000 texts of 2 sentences | {1000 * (time.perf_counter() - start) / len(documents):.0f} s |"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--build", folder, "--papers", str(options.papers)]
        command += ["--neighbours"] * options.neighbours
        sys.stdout.flush()
        subprocess.run(command, check=True)
        for path in sorted(Path(folder).iterdir()):
            if path.stat().st_size:
                print(f"| {path.name} | {path.stat().st_size / 1e6:.0f} MB |")
        encoder = RandomRows(client)
        encoder.papers = False
        index = Index(Path(folder), encoder)
        print("\n| search | clients | p50 ms | p95 ms | own CPU, mean ms |\n|---|---|---|---|---|")
        slow = False
        for mode in ("words", "meaning", "fused"):
            for clients in (1, 2):
                p50, p95, processor = timed(index, mode, texts, clients)
                slow |= p50 > GOAL["p50"] or p95 > GOAL["p95"]
                print(f"| {mode} | {clients} | {p50:.1f} | {p95:.1f} | {processor:.1f} |")
    print(f"\npeak memory of the asking process: {peak()}")
    print(f"load before and after: {load_before:.1f}, {os.getloadavg()[0]:.1f}; cores: {os.cpu_count()}")
    sys.exit(slow)


if __name__ == "__main__":
    main()
