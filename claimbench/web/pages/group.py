"""A group: its papers on the shelf, and the latest of its field that are listed."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from starlette.requests import Request

from claimbench.feed.listing import Listing, from_row
from claimbench.feed.schema import LISTING
from claimbench.feed.store import PageStore
from claimbench.web.answers import Missing, Page
from claimbench.web.board import Board
from claimbench.web.cards import Card, Tally, cards, listing_card, shortened, tallies
from claimbench.web.site import Site

LISTED = 20


@dataclass(frozen=True)
class GroupView:
    """papers: of the shelf, those with the most judged claims first. listed: not on the shelf, newest first."""

    name: str
    papers: list[Card]
    tally: tuple[Tally, ...]
    listed: list[Card]


def group_view(board: Board, name: str, found: list[Card], listed: list[Listing]) -> GroupView:
    """found: the group's papers on the shelf."""

    def judged(card: Card) -> int:
        return sum(part.count for part in card.tally if part.state != "no verdict")

    return GroupView(
        name=name,
        papers=sorted(found, key=lambda card: (-judged(card), card.title)),
        tally=tallies(board, [card.key for card in found]),
        listed=[listing_card(board, listing) for listing in listed if listing.shelf_id not in board.entries],
    )


def newest(store: PageStore, group: str) -> list[Listing]:
    query = sa.select(LISTING).where(
        LISTING.c.group_name == group, LISTING.c.hidden == 0, LISTING.c.shelf_id.is_(None)
    )
    query = query.order_by(LISTING.c.published.desc(), LISTING.c.id.desc()).limit(LISTED)
    with store.read() as connection:
        return [from_row(row) for row in connection.execute(query)]


def handle(site: Site, request: Request) -> GroupView:
    name = request.path_params["name"]
    board, listed = site.board(), newest(site.store, name)
    ids = [entry.id for entry in board.entries.values() if entry.group == name]
    if not listed and not ids:
        raise Missing(f"There is no group {shortened(name, 80)} here.")
    return group_view(board, name, cards(board, site.store, ids), listed)


PAGE = Page("/group/{name:path}", "page/group.html", handle)
