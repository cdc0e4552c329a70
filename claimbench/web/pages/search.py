"""Search by words and by meaning, over the shelf and everything that is listed."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request

from claimbench.search import Results
from claimbench.search.query import LONGEST
from claimbench.web.answers import BadRequest, Page
from claimbench.web.cards import Card, cards
from claimbench.web.site import Site

SHOWN = 25


@dataclass(frozen=True)
class Correction:
    """A word that stands nowhere, and a search with what may be meant in its place."""

    word: str
    instead: str
    path: str


@dataclass(frozen=True)
class Found:
    """how: `words` (it holds all), `some words`, or `meaning`."""

    card: Card
    how: str


@dataclass(frozen=True)
class SearchView:
    """without_meaning: why only words were searched; empty where meaning was."""

    query: str
    found: list[Found]
    corrections: list[Correction]
    without_meaning: str


def search_view(query: str, results: Results, found: list[Card]) -> SearchView:
    ways = {
        hit.key: "words" if hit.complete else "some words" if hit.word_rank is not None else "meaning"
        for hit in results.hits
    }
    return SearchView(
        query=query,
        found=[Found(card, ways[card.key]) for card in found],
        corrections=[
            Correction(word, other, f"/search?{urlencode({'q': query.lower().replace(word, other)})}")
            for word, others in results.corrections.items()
            for other in others[:2]
        ],
        without_meaning=results.without_meaning,
    )


def handle(site: Site, request: Request) -> SearchView:
    query = request.query_params.get("q", "").strip()
    if len(query) > LONGEST:
        raise BadRequest(f"q: at most {LONGEST} characters are read")
    if not query:
        return SearchView("", [], [], "")
    results = site.index.search(query, limit=SHOWN)
    board = site.board()
    return search_view(query, results, cards(board, site.store, [hit.key for hit in results.hits]))


PAGE = Page("/search", "page/search.html", handle)
