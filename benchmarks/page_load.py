"""How many pages a second `claimbench serve` answers with 100,000 papers listed: home, search, paper, cached or not.

Listings are synthetic: words drawn by Zipf's law, published over three years, one of five categories each. The real
server runs in processes of its own; clients of this process ask over loopback with keep-alive connections, and share
the machine's cores with it. Cached: one address again and again. Uncached: no address twice. Search is by words, as it
is where the encoder runs elsewhere. Run it on an idle machine: the load is printed.

    python benchmarks/page_load.py --papers 100000 --seconds 10 --results results/*/*.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import psutil

GOALS = {("paper", "cached"): 1000.0, ("paper", "uncached"): 100.0}  # requests a second on 2 cores
PROGRAM = (
    "import typer\nfrom claimbench.web.cli import serve\nif __name__ == '__main__':\n    typer.run(serve)\n"
)
CATEGORIES = ("cs.LG", "cs.CL", "cs.CV", "cs.AI", "stat.ML")
LAST = date(2025, 6, 30)
DAYS = 1095
VOCABULARY = 20_000
BATCH = 2000


@dataclass(frozen=True)
class Load:
    """What one kind of request came to. p50, p95: milliseconds. cpu: share of all cores that the server took."""

    page: str
    kind: str
    requests: int
    failed: int
    per_second: float
    p50: float
    p95: float
    bytes: int
    cpu: float


def words() -> list[str]:
    draw = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    return ["".join(draw.choice(syllables, draw.integers(2, 5))) for _ in range(VOCABULARY)]


def key(number: int) -> str:
    return f"arxiv:{2300 + number // 10_000:04d}.{number % 10_000:05d}"


def fill(number: int) -> None:
    """The page's own store, in the folder that the environment names."""
    from claimbench.feed.listing import Listing
    from claimbench.feed.store import PageStore

    known, draw = np.array(words()), np.random.default_rng(1)
    share = 1.0 / np.arange(1, len(known) + 1)
    share /= share.sum()
    with PageStore() as store:
        for start in range(0, number, BATCH):
            count = min(BATCH, number - start)
            texts = known[draw.choice(len(known), (count, 150), p=share)]
            days = draw.integers(DAYS, size=count)
            names = draw.integers(VOCABULARY, size=(count, 8))
            listings = []
            for i in range(count):
                day = (LAST - timedelta(int(days[i]))).isoformat()
                category = CATEGORIES[(start + i) % len(CATEGORIES)]
                listings.append(
                    Listing(
                        key=key(start + i),
                        title=" ".join(texts[i, :9]).capitalize(),
                        published=day,
                        link=f"https://arxiv.org/abs/{key(start + i)[6:]}",
                        described="arxiv",
                        arxiv=key(start + i)[6:],
                        abstract=" ".join(texts[i, 9:]),
                        authors=tuple(
                            f"{known[a].title()} {known[b].title()}" for a, b in names[i].reshape(4, 2)
                        ),
                        categories=(category,),
                        updated=day,
                        added=f"{day}T00:00:00+00:00",
                    )
                )
            store.put(listings)


def index() -> None:
    """What the server's maintenance does, beforehand: a load test of a page that is still indexing tells nothing."""
    from claimbench.feed.settings import Settings
    from claimbench.feed.store import PageStore
    from claimbench.ledger import Ledger
    from claimbench.search import Index
    from claimbench.shelf import Shelf
    from claimbench.web.maintenance import bring_up_to_date, index_folder
    from claimbench.web.site import Site

    shelf, store = Shelf.find(), PageStore()
    folder = index_folder(store, list(shelf.roots))
    bring_up_to_date(Site(Settings(), Ledger(), shelf, store, Index(folder)))


def addresses(papers: int) -> dict[tuple[str, str], Callable[[], Iterator[str]]]:
    """For each page and kind the addresses to ask, without end or until they would repeat."""
    known = words()
    mixed = np.random.default_rng(2)

    def distinct_papers() -> Iterator[str]:
        return (f"/paper/{key(int(n))}" for n in mixed.permutation(papers))

    def distinct_searches() -> Iterator[str]:
        for second, first in itertools.product(range(5000, 50, -1), range(50, 2000)):
            yield f"/search?q={known[first]}+{known[second]}"

    def distinct_homes() -> Iterator[str]:
        for window, page, back in itertools.product(("week", "day", "month"), range(1, 4), range(DAYS - 30)):
            yield f"/?window={window}&on={LAST - timedelta(back)}&page={page}"

    return {
        ("home", "cached"): lambda: itertools.repeat(f"/?on={LAST}"),
        ("home", "uncached"): distinct_homes,
        ("search", "cached"): lambda: itertools.repeat(f"/search?q={known[60]}+{known[400]}"),
        ("search", "uncached"): distinct_searches,
        ("paper", "cached"): lambda: itertools.repeat(f"/paper/{key(7)}"),
        ("paper", "uncached"): distinct_papers,
        ("measured paper", "cached"): lambda: itertools.repeat("/paper/s4"),
        ("measured paper", "uncached"): lambda: (f"/paper/s4?n={n}" for n in itertools.count()),
    }


async def ask(port: int, paths: Iterator[str], seconds: float, clients: int) -> tuple[list[float], int, int]:
    """Latencies in seconds of good answers, how many failed, and the bytes that came."""
    latencies: list[float] = []
    failed = received = 0
    end = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal failed, received
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        while (began := time.perf_counter()) < end and (path := next(paths, None)) is not None:
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n"
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
            await reader.readexactly(length)
            received += len(head) + length
            if head.startswith(b"HTTP/1.1 200"):
                latencies.append(time.perf_counter() - began)
            else:
                failed += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return latencies, failed, received


def cpu_seconds(process: psutil.Process) -> float:
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def measure(port: int, process: psutil.Process, papers: int, seconds: float, clients: int) -> list[Load]:
    loads = []
    for (page, kind), make in addresses(papers).items():
        asyncio.run(
            ask(port, itertools.islice(make(), 50), 5.0, clients)
        )  # warm-up; uncached ones are not asked again
        paths = itertools.islice(make(), 50, None) if kind == "uncached" and page != "paper" else make()
        began, used = time.perf_counter(), cpu_seconds(process)
        latencies, failed, received = asyncio.run(ask(port, paths, seconds, clients))
        took = time.perf_counter() - began
        p50, p95 = np.percentile(latencies, [50, 95]) * 1000 if latencies else (np.nan, np.nan)
        share = (cpu_seconds(process) - used) / took / (os.cpu_count() or 1)
        rate = len(latencies) / took
        loads.append(Load(page, kind, len(latencies), failed, rate, float(p50), float(p95), received, share))
    return loads


def start(folder: Path, workers: int, results: list[str]) -> tuple[subprocess.Popen[str], int]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    imports = [part for path in results for part in ("--import", path)]
    process = subprocess.Popen(
        [sys.executable, str(program), "--port", "0", "--workers", str(workers), "--words-only", *imports],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1])
    raise SystemExit("the server did not start")


def settle(process: psutil.Process, limit: float = 120.0) -> None:
    """Wait until the server has nothing left to do."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        used = cpu_seconds(process)
        time.sleep(3.0)
        if cpu_seconds(process) - used < 0.15:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--papers", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each kind of request")
    parser.add_argument("--clients", type=int, default=16, help="connections at once")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", nargs="*", default=[], help="published results to import")
    parser.add_argument("--folder", type=Path, help="keep store and index here, and use what is there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("DATA", "CACHE", "CONFIG"):
            os.environ[f"CLAIMBENCH_{name}"] = str(folder / name.lower())
        began = time.monotonic()
        if not (folder / "data" / "page.sqlite").exists():
            fill(options.papers)
        filled = time.monotonic()
        index()
        indexed = time.monotonic()
        print(
            f"{options.papers} papers listed in {filled - began:.0f} s, indexed in {indexed - filled:.0f} s",
            file=sys.stderr,
        )
        process, port = start(folder, options.workers, options.results)
        try:
            server = psutil.Process(process.pid)
            settle(server)
            load = os.getloadavg()[0]
            loads = measure(port, server, options.papers, options.seconds, options.clients)
            memory = sum(p.memory_info().rss for p in (server, *server.children(recursive=True))) / 2**20
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    if options.json:
        print(json.dumps([asdict(one) for one in loads], indent=1))
        return
    print(f"{os.cpu_count()} cores, load before {load:.1f}; {options.clients} clients")
    print(f"{options.workers} workers, {memory:.0f} MiB with the process that starts them")
    heads = ("p50 ms", "p95 ms", "kB each")
    print(
        f"{'page':<15} {'kind':<9} {'requests/s':>10} {' '.join(f'{h:>8}' for h in heads)} failed server cpu"
    )
    for one in loads:
        goal = GOALS.get((one.page, one.kind))
        told = "" if goal is None else f"  goal {goal:.0f}: {'met' if one.per_second >= goal else 'missed'}"
        size = one.bytes / max(one.requests, 1) / 1000
        row = f"{one.page:<15} {one.kind:<9} {one.per_second:>10.0f} {one.p50:>8.1f} {one.p95:>8.1f} {size:>8.1f}"
        print(f"{row} {one.failed:>6} {one.cpu:>10.0%}{told}")


if __name__ == "__main__":
    main()
