"""A paper in a list: what a reader needs to decide whether to open it, from the shelf, the store, or both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

import sqlalchemy as sa

from claimbench.feed.listing import Listing, from_row
from claimbench.feed.schema import LISTING
from claimbench.feed.store import CHUNK, PageStore
from claimbench.shelf import Entry
from claimbench.views import SIGNS, STATES
from claimbench.web.board import Board, SetBrief

ABSTRACT = 300  # characters of an abstract in a list
AUTHORS = 3


@dataclass(frozen=True)
class Tally:
    """How many claims of a paper are in a state."""

    state: str
    sign: str
    count: int


@dataclass(frozen=True)
class Card:
    """One paper. path: of its page. tally: of its claims, empty if it is not on the shelf. note: what curators say."""

    key: str
    path: str
    title: str
    authors: str
    date: str  # a day, or only a year where the day is an estimate
    group: str
    text: str
    topics: tuple[str, ...] = ()
    on_shelf: bool = False
    claims: int = 0
    tally: tuple[Tally, ...] = ()
    votes: int = 0
    upvotes: int = 0
    featured: bool = False
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim with the verdict that speaks for it, in a list."""

    path: str
    paper: str
    title: str
    claim: str
    statement: str
    state: str
    sign: str
    scale: str
    judged: str


def paper_path(key: str) -> str:
    """`/paper/s4` of the shelf, `/paper/arxiv:2402.18668` of a listing."""
    return f"/paper/{quote(key, safe=':/')}"


def entry_card(board: Board, entry: Entry) -> Card:
    return Card(
        key=entry.id,
        path=paper_path(entry.id),
        title=entry.title,
        authors=short_authors(entry.authors),
        date=str(entry.year),
        group=entry.group,
        text=shortened(entry.summary),
        topics=entry.topics,
        on_shelf=True,
        claims=len(entry.claims),
        tally=tallies(board, [entry.id]),
    )


def listing_card(board: Board, listing: Listing, *, votes: int = 0, upvotes: int = 0) -> Card:
    """The shelf's words where the paper is on it: its summary is ours and says what is claimed."""
    if listing.shelf_id in board.entries:
        entry = board.entries[listing.shelf_id]
        date = str(entry.year) if listing.described == "shelf" else listing.published
        return replace(
            entry_card(board, entry),
            date=date,
            votes=votes,
            upvotes=upvotes,
            featured=listing.featured,
            note=listing.note,
        )
    return Card(
        key=listing.key,
        path=paper_path(listing.key),
        title=listing.title,
        authors=short_authors(listing.authors),
        date=listing.published,
        group=listing.group_name,
        text=shortened(listing.abstract),
        topics=listing.topics or listing.categories,
        votes=votes,
        upvotes=upvotes,
        featured=listing.featured,
        note=listing.note,
    )


def featured(board: Board, store: PageStore, most: int) -> list[Card]:
    """The latest papers that curators feature."""
    is_featured = LISTING.c.featured == sa.literal_column(
        "1"
    )  # a literal: a partial index serves no parameter
    query = sa.select(LISTING).where(is_featured, LISTING.c.hidden == 0)
    query = query.order_by(LISTING.c.published.desc(), LISTING.c.id.desc()).limit(most)
    with store.read() as connection:
        return [listing_card(board, from_row(row)) for row in connection.execute(query)]


def cards(board: Board, store: PageStore, keys: Sequence[str]) -> list[Card]:
    """Cards of keys as the search index has them: ids of the shelf, keys of listings. Unknown ones are left out."""
    shelved = of_shelf(store, [key for key in keys if key in board.entries])
    listings = store.listings([key for key in keys if key not in board.entries])
    found = []
    for key in keys:
        if key in shelved:
            found.append(listing_card(board, shelved[key]))
        elif key in board.entries:  # not in the list yet
            found.append(entry_card(board, board.entries[key]))
        elif key in listings and not listings[key].hidden:
            found.append(listing_card(board, listings[key]))
    return found


def of_shelf(store: PageStore, ids: Sequence[str]) -> dict[str, Listing]:
    """The listings of papers of the shelf, by the paper's id."""
    found = {}
    with store.read() as connection:
        for start in range(0, len(ids), CHUNK):
            query = sa.select(LISTING).where(LISTING.c.shelf_id.in_(ids[start : start + CHUNK]))
            found.update({row.shelf_id: from_row(row) for row in connection.execute(query)})
    return found


def tallies(board: Board, papers: Iterable[str]) -> tuple[Tally, ...]:
    counts = board.tally(papers)
    return tuple(Tally(state, SIGNS[state], counts[state]) for state in STATES if counts[state])


def verdict(board: Board, brief: SetBrief) -> Verdict:
    entry = board.entries[brief.row.paper]
    statements = {claim["id"]: claim["statement"] for claim in entry.claims}
    return Verdict(
        path=claim_path(brief.row.paper, brief.row.claim),
        paper=entry.id,
        title=entry.title,
        claim=brief.row.claim,
        statement=statements[brief.row.claim],
        state=brief.state,
        sign=brief.sign,
        scale=brief.row.scale,
        judged=brief.judged,
    )


def claim_path(paper: str, claim: str) -> str:
    return f"/claim/{quote(paper, safe='')}/{quote(claim, safe='')}"


def short_authors(names: Sequence[str]) -> str:
    return ", ".join(names[:AUTHORS]) + (" et al." if len(names) > AUTHORS else "")


def shortened(text: str, most: int = ABSTRACT) -> str:
    """The text's beginning, cut between words."""
    words = " ".join(text.split())
    if len(words) <= most:
        return words
    return words[:most].rsplit(" ", 1)[0].rstrip(" ,;:.–-") + " …"
