"""What a subscriber's saved searches find: what the page's search index finds, or else papers with all the words."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from claimbench.community.store import Choices
from claimbench.feed.listing import Listing
from claimbench.search import Index
from claimbench.search.index import MOST

Finds = Callable[[str, Listing], bool]
"""Whether a search finds a paper."""


def wanted(choices: Choices, listing: Listing, finds: Finds) -> bool:
    """Whether a paper is of one of the groups, or found by one of the searches; every one is if neither was chosen."""
    if not choices.groups and not choices.searches:
        return True
    return listing.group_name in choices.groups or any(finds(text, listing) for text in choices.searches)


def holds_words(search: str, listing: Listing) -> bool:
    """Whether all words of the search stand in the paper's title, abstract, topics or categories."""
    text = " ".join([listing.title, listing.abstract, *listing.topics, *listing.categories]).casefold()
    return all(word in text for word in search.casefold().split())


def searches_of(index: Index | None) -> Finds:
    """By the index, where there is one."""
    return holds_words if index is None else with_index(index)


def with_index(index: Index) -> Finds:
    """Searches as the page's own: word forms, phrases, spelling and filters count, and every word is wanted.

    A paper that the index does not know yet is judged by its words; so is one beyond the MOST that a search returns.
    """
    connection = index.storage.connection()

    @cache
    def found(search: str) -> frozenset[str]:
        hits = index.search(f"{search} ", limit=MOST, mode="words").hits  # a blank: its last word is whole
        return frozenset(hit.key for hit in hits if hit.complete)

    @cache
    def known(key: str) -> bool:
        return connection.execute("SELECT 1 FROM document WHERE key = ?", (key,)).fetchone() is not None

    def finds(search: str, listing: Listing) -> bool:
        keys = [key for key in (listing.shelf_id, listing.key) if key]
        if any(key in found(search) for key in keys):
            return True
        certain = any(known(key) for key in keys) and len(found(search)) < MOST
        return not certain and holds_words(search, listing)

    return finds
