"""A paper in the list as data, its row in the store, and what becomes of it when another source describes it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from claimbench.feed.entry import Entry

SHELF = "shelf"  # the describer that every other one may replace: its dates are estimates
_LISTS = ("authors", "categories", "topics")


@dataclass(frozen=True)
class Listing:
    """One row. version: of the arXiv text described, 0 if unknown. published: ISO date. id: 0 before it is stored."""

    key: str
    title: str
    published: str
    link: str
    described: str
    id: int = 0
    arxiv: str = ""
    version: int = 0
    abstract: str = ""
    authors: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    group_name: str = ""
    updated: str = ""
    added: str = ""
    shelf_id: str | None = None
    featured: bool = False
    note: str = ""
    hidden: bool = False

    @property
    def filters(self) -> frozenset[str]:
        """What a page can filter it by: topics and categories."""
        return frozenset((*self.topics, *self.categories))


def merged(old: Listing | None, entry: Entry, source: str, group: str, added: str) -> Listing:
    """The listing after `source` has described it.

    A later arXiv version replaces what is described, anything replaces the shelf's description, and else the first
    source stands and only what it left empty is filled. So the order of pulls does not matter between versions, and
    the same entry again changes nothing. Topics are collected; what the page's people set is kept.
    """
    if old is None:
        return Listing(
            key=entry.key,
            title=entry.title,
            published=entry.published,
            link=entry.link,
            described=source,
            arxiv=entry.arxiv,
            version=entry.version,
            abstract=entry.abstract,
            authors=entry.authors,
            categories=entry.categories,
            topics=entry.topics,
            group_name=group,
            updated=entry.updated or entry.published,
            added=added,
        )
    topics = tuple(dict.fromkeys((*old.topics, *entry.topics)))
    rank = (entry.version, source != SHELF)
    if rank > (old.version, old.described != SHELF):
        return replace(
            old,
            title=entry.title,
            published=entry.published,
            link=entry.link,
            described=source,
            version=entry.version,
            abstract=entry.abstract or old.abstract,
            authors=entry.authors or old.authors,
            categories=entry.categories or old.categories,
            topics=topics,
            group_name=old.group_name or group,
            updated=entry.updated or entry.published,
        )
    return replace(
        old,
        abstract=old.abstract or entry.abstract,
        authors=old.authors or entry.authors,
        categories=old.categories or entry.categories,
        topics=topics,
        group_name=old.group_name or group,
    )


def values(listing: Listing) -> dict[str, Any]:
    """The row without its id."""
    row = asdict(listing)
    row.pop("id")
    row.update({name: json.dumps(row[name], ensure_ascii=False) for name in _LISTS})
    row.update(featured=int(listing.featured), hidden=int(listing.hidden))
    return row


_NAMES = [field.name for field in fields(Listing)]


def from_row(row: Any) -> Listing:
    """The inverse of `values`, from a row of the listing table."""
    mapping = row._mapping
    found = {name: mapping[name] for name in _NAMES}
    found.update({name: tuple(json.loads(found[name])) for name in _LISTS})
    found.update(featured=bool(found["featured"]), hidden=bool(found["hidden"]))
    return Listing(**found)
