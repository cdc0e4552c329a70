"""The first page: what is trending, what was judged lately, and what is on the shelf."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from starlette.requests import Request

from claimbench.feed.trending import DAYS, Ranking, WindowName, rank
from claimbench.web.answers import BadRequest, Page, choice, whole
from claimbench.web.board import Board, SetBrief
from claimbench.web.cards import Card, Tally, Verdict, featured, listing_card, tallies, verdict
from claimbench.web.site import Site

A_PAGE = 20
FEATURED = 3  # papers
LATEST = 6  # verdicts ...
LATEST_OF_A_PAPER = 2  # ... of which so many may be of one paper: a run judges all its claims at once
WORDS: dict[WindowName, str] = {"day": "Today", "week": "This week", "month": "This month"}


@dataclass(frozen=True)
class Link:
    """A choice among several; `current` is the one that is shown."""

    label: str
    path: str
    current: bool = False


@dataclass(frozen=True)
class GroupLine:
    name: str
    path: str
    papers: int
    tally: tuple[Tally, ...]


@dataclass(frozen=True)
class HomeView:
    """first and last: days of the window. total: papers in it. featured: by curators, whatever the window."""

    window: str
    windows: list[Link]
    first: str
    last: str
    earlier: str
    later: str
    topic: str
    papers: list[Card]
    total: int
    next_page: str
    previous_page: str
    featured: list[Card]
    latest: list[Verdict]
    groups: list[GroupLine]
    shelf_papers: int
    claims: int
    tally: tuple[Tally, ...]


def home_view(
    board: Board, ranking: Ranking, chosen: list[Card], *, page: int, day: str, topic: str
) -> HomeView:
    """chosen: what is featured. day: the window's last day as it was asked for; empty for today."""

    def path(window: str = ranking.window, on: str = day, number: int = 1) -> str:
        chosen = {"window": window, "on": on, "topic": topic, "page": "" if number == 1 else str(number)}
        kept = {k: v for k, v in chosen.items() if v and (k, v) != ("window", "week")}
        return "/" + (f"?{urlencode(kept)}" if kept else "")

    groups: dict[str, list[str]] = {}
    for entry in board.entries.values():
        groups.setdefault(entry.group, []).append(entry.id)
    return HomeView(
        window=ranking.window,
        windows=[Link(words, path(name), name == ranking.window) for name, words in WORDS.items()],
        first=ranking.first.isoformat(),
        last=ranking.last.isoformat(),
        earlier=path(on=ranking.previous.isoformat()) if ranking.previous else "",
        later=path(on=ranking.next.isoformat()) if ranking.next else "",
        topic=topic,
        papers=[
            listing_card(board, found.listing, votes=found.votes, upvotes=found.upvotes)
            for found in ranking.papers
        ],
        total=ranking.total,
        next_page=path(number=page + 1) if page * A_PAGE < ranking.total else "",
        previous_page=path(number=page - 1) if page > 1 else "",
        featured=chosen,
        latest=[verdict(board, brief) for brief in _latest(board)],
        groups=[
            GroupLine(name, f"/group/{name}", len(papers), tallies(board, papers))
            for name, papers in sorted(groups.items())
        ],
        shelf_papers=len(board.entries),
        claims=sum(len(entry.claims) for entry in board.entries.values()),
        tally=tallies(board, board.entries),
    )


def _latest(board: Board) -> list[SetBrief]:
    judged = [brief for brief in board.all() if brief.counts]
    counts: Counter[str] = Counter()
    found: list[SetBrief] = []
    for brief in sorted(judged, key=lambda b: (b.judged, b.row.serial), reverse=True):
        counts[brief.row.paper] += 1
        if counts[brief.row.paper] <= LATEST_OF_A_PAPER:
            found.append(brief)
    return found[:LATEST]


def handle(site: Site, request: Request) -> HomeView:
    names: list[WindowName] = ["week", "day", "month"]
    window = names[names.index(choice(request, "window", [*names]))]  # type: ignore[arg-type]  # one of the names
    page = whole(request, "page", 1, 500)
    asked = request.query_params.get("on", "")
    topic = request.query_params.get("topic", "")
    ranking = rank(
        site.store,
        site.settings.score,
        window=window,
        day=_day(asked),
        topic=topic or None,
        offset=(page - 1) * A_PAGE,
        limit=A_PAGE,
    )
    board = site.board()
    chosen = featured(board, site.store, FEATURED)
    return home_view(board, ranking, chosen, page=page, day=asked, topic=topic)


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise BadRequest("on: a day is wanted, as 2025-01-31") from None
    if not 1990 <= found.year <= 2100:
        raise BadRequest("on: a day between 1990 and 2100 is wanted")
    return found


assert set(WORDS) == set(DAYS)
PAGE = Page("/", "page/home.html", handle, twin="/index.json")
