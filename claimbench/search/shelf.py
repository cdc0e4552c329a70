"""Search of a shelf from the command line: words and what is known to be similar; meaning when asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from claimbench.errors import UserError
from claimbench.search.documents import from_shelf
from claimbench.search.fuse import reciprocal_rank
from claimbench.search.index import Index, Results, folder_for

if TYPE_CHECKING:
    from claimbench.search.meaning import Encoder
    from claimbench.shelf import Entry, Shelf

SIMILAR_TO = 3  # of the first papers found, those are shown that are similar to them ...
SIMILAR = 5  # ... at most these


@dataclass(frozen=True)
class ShelfResults:
    """Papers and how each was found: `words` (it holds all), `some words`, `meaning`, or `similar` to the first ones.

    `corrections`: words that stand nowhere, and what each may be a misspelling of. `more`: the limit cut some off.
    """

    papers: list[tuple[Entry, str]]
    corrections: dict[str, list[str]] = field(default_factory=dict)
    more: bool = False


def search_shelf(
    shelf: Shelf,
    query: str,
    *,
    limit: int = 50,
    meaning: bool = False,
    verdicts: Mapping[str, Sequence[str]] | None = None,
) -> ShelfResults:
    """The shelf's papers that answer a query in the language of `query.parse`.

    meaning: fuse with the encoder's ranking; a running encoder process is asked, else the encoder is loaded here.
    verdicts: paper id to its claims' states, for the filter `verdict:`. Raises UserError where the encoder is missing.
    """
    index = _index(shelf, verdicts, _encoder() if meaning else None)
    found = index.search(query, limit=limit, mode="fused" if meaning else "words")
    complete = any(hit.complete for hit in found.hits)
    hits = [hit for hit in found.hits if meaning or hit.complete or not complete]
    papers = [
        (
            shelf.entries[hit.key],
            "words" if hit.complete else "meaning" if hit.word_rank is None else "some words",
        )
        for hit in hits
    ]
    if not meaning:
        papers += [(shelf.entries[key], "similar") for key in _similar(index, found)]
    return ShelfResults(papers, found.corrections, len(hits) == limit)


def _encoder() -> Encoder:
    from claimbench.search.encoder_client import EncoderUnreachable
    from claimbench.search.encoders import SubjectEncoder, shared

    running = shared(start=False)
    try:
        running.encode(["ready"])
    except EncoderUnreachable:
        return SubjectEncoder()
    return running


def _index(shelf: Shelf, verdicts: Mapping[str, Sequence[str]] | None, encoder: Encoder | None) -> Index:
    """The shelf's index, brought up to date; in memory where the cache cannot be written."""
    documents = list(from_shelf(shelf.entries.values(), verdicts))
    try:
        index = Index(folder_for(shelf.roots), encoder)
        index.build(documents)
    except (UserError, sqlite3.OperationalError):
        if encoder is not None:
            raise
        index = Index(None)
        index.build(documents)
    return index


def _similar(index: Index, found: Results) -> list[str]:
    """Papers near to the first ones that hold every word, by their rank among each one's neighbours."""
    listed = {hit.key for hit in found.hits}
    near = [
        [other.key for other in index.similar(hit.key)] for hit in found.hits[:SIMILAR_TO] if hit.complete
    ]
    return [key for key in reciprocal_rank(near) if key not in listed][:SIMILAR]
