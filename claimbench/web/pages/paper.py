"""A paper: what it is, what it claims, what was measured of each claim, and what is similar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote

import sqlalchemy as sa
from starlette.requests import Request

from claimbench.errors import UserError
from claimbench.feed.listing import Listing
from claimbench.feed.schema import VOTE
from claimbench.paper import Claim, Paper
from claimbench.report import cell_name, cell_value, number
from claimbench.views import SIGNS, STATES, ClaimView, deciding
from claimbench.web.answers import Missing, Moved, Page
from claimbench.web.board import Board, SetBrief
from claimbench.web.cards import (
    Card,
    Tally,
    cards,
    claim_path,
    of_shelf,
    paper_path,
    shortened,
    tallies,
)
from claimbench.web.site import Site

SIMILAR = 6
SHOWN_AT_ONCE = 8  # compared cells of a claim


@dataclass(frozen=True)
class WebLink:
    label: str
    address: str


@dataclass(frozen=True)
class ClaimLine:
    """A claim with the set that speaks for it; view is None where nothing was judged yet.

    figures: the paper's own, in words. measured: our number with its interval, told: what it is of. others: verdicts of
    all other sets.
    command: what measures the shown set again, or measures the claim for the first time.
    """

    id: str
    path: str
    statement: str
    state: str
    sign: str
    stale: bool
    figures: list[str]
    measured: str
    told: str
    scale: str
    machine: str
    machine_path: str
    date: str
    varies: list[str]
    fixed: list[str]
    caveat: str
    command: str
    scales: list[str]
    others: tuple[Tally, ...]
    view: ClaimView | None
    brief: bool  # few enough comparisons to be shown at once


@dataclass(frozen=True)
class PaperView:
    """A paper of the shelf, of the list, or of both. text: our summary, or the abstract.

    votes: all that it ever got. featured, note: what curators set.
    """

    key: str
    path: str
    title: str
    authors: list[str]
    date: str
    group: str
    topics: tuple[str, ...]
    on_shelf: bool
    text: str
    abstract: str
    links: list[WebLink]
    claims: list[ClaimLine]
    tally: tuple[Tally, ...]
    command: str
    similar: list[Card]
    votes: int = 0
    featured: bool = False
    note: str = ""


def shelf_view(
    board: Board, paper: Paper, listing: Listing | None, similar: list[Card], votes: int
) -> PaperView:
    links = [
        WebLink(f"arXiv {paper.arxiv}", f"https://arxiv.org/abs/{quote(paper.arxiv)}")
        if paper.arxiv
        else None,
        WebLink("code", paper.code) if paper.code else None,
    ]
    dated = listing is not None and listing.described != "shelf"
    return PaperView(
        key=paper.id,
        path=paper_path(paper.id),
        title=paper.title,
        authors=paper.authors,
        date=listing.published if listing and dated else str(paper.year),
        group=paper.group,
        topics=tuple(paper.topics),
        on_shelf=True,
        text=paper.summary,
        abstract=listing.abstract if listing and dated else "",
        links=[link for link in links if link],
        claims=[claim_line(board, paper, claim) for claim in paper.claim],
        tally=tallies(board, [paper.id]),
        command=f"claimbench run {paper.id}",
        similar=similar,
        votes=votes,
        featured=listing is not None and listing.featured,
        note=listing.note if listing else "",
    )


def claim_line(board: Board, paper: Paper, claim: Claim) -> ClaimLine:
    shown = board.headline(paper.id, claim.id)
    every = board.sets.get((paper.id, claim.id), [])
    view = board.view(shown) if shown else None
    row = view.row if view else None
    measured, told = _measured(view)
    counted = Counter(brief.state for brief in every if brief is not shown and brief.state != "no verdict")
    return ClaimLine(
        id=claim.id,
        path=claim_path(paper.id, claim.id),
        statement=claim.statement,
        state=shown.state if shown else "no verdict",
        sign=SIGNS[shown.state if shown else "no verdict"],
        stale=bool(row and row.stale),
        figures=[f"{number(figure.value)} {figure.unit}".strip() for figure in claim.figures],
        measured=measured,
        told=told,
        scale=shown.row.scale if shown else "",
        machine=machine_name(shown) if shown else "",
        machine_path=f"/machine/{quote(shown.machine['id'])}" if shown else "",
        date=shown.row.created[:10] if shown else "",
        varies=list(claim.varies),
        fixed=list(claim.fixed),
        caveat=claim.caveat,
        command=row.command if row else f"claimbench run {paper.id}/{claim.id}",
        scales=[scale for scale in claim.scales if scale != "smoke"],
        others=tuple(Tally(state, SIGNS[state], counted[state]) for state in STATES if counted[state]),
        view=view,
        brief=view is not None and _rows(view) <= SHOWN_AT_ONCE,
    )


def _rows(view: ClaimView) -> int:
    """Rows of the plots of what was judged."""
    rules = view.row.verdict.rules if view.row.verdict else []
    return sum(len(rule.cells) for rule in rules if rule.state != "reported")


def _measured(view: ClaimView | None) -> tuple[str, str]:
    """Our number beside the paper's, where the two are comparable, else what decided; and what it is a number of."""
    verdict = view.row.verdict if view else None
    if view is None or verdict is None:
        return "", ""
    found = deciding(verdict)
    beside = next((figure for figure in view.figures if figure.inside is not None), None)
    if beside is not None:
        return beside.ours, f"the paper's figure is {'inside' if beside.inside else 'outside'} our interval"
    if found is None:
        return "", verdict.reason
    rule, cell = found
    told = f"{rule.text}: {cell_name(cell)}" + (f" ({cell.note})" if cell.note else "")
    return cell_value(cell), told


def machine_name(brief: SetBrief) -> str:
    """The part that did the work: the accelerator where there was one, else the processor."""
    gpus = [gpu["name"] for gpu in brief.machine["gpus"]]
    if brief.row.plan["device"] != "cpu" and gpus:
        return gpus[0]
    return f"{brief.machine['cpu']}, {brief.machine['cores']} cores"


def listing_view(listing: Listing, similar: list[Card], votes: int) -> PaperView:
    links = (
        [WebLink(f"arXiv {listing.arxiv}", f"https://arxiv.org/abs/{quote(listing.arxiv)}")]
        if listing.arxiv
        else []
    )
    if listing.link and not listing.arxiv:
        links.append(WebLink("source", listing.link))
    return PaperView(
        key=listing.key,
        path=paper_path(listing.key),
        title=listing.title,
        authors=list(listing.authors),
        date=listing.published,
        group=listing.group_name,
        topics=listing.topics or listing.categories,
        on_shelf=False,
        text=listing.abstract,
        abstract="",
        links=links,
        claims=[],
        tally=(),
        command="",
        similar=similar,
        votes=votes,
        featured=listing.featured,
        note=listing.note,
    )


def handle(site: Site, request: Request) -> PaperView:
    name = request.path_params["name"]
    board = site.board()
    wanted = name.replace("_", "-")
    if wanted in board.entries:
        if wanted != name:
            raise Moved(paper_path(wanted))
        listing = of_shelf(site.store, [name]).get(name)
        try:
            paper = board.paper(name)
        except UserError:  # edited at this moment; the message would name a path of this machine
            raise Missing(f"{name}: its paper.toml cannot be read at this moment.") from None
        return shelf_view(board, paper, listing, _similar(site, board, name), _votes(site, listing))
    listing = site.store.listings([name]).get(name)
    if listing is None or listing.hidden:
        raise Missing(f"There is no paper {shortened(name, 80)} here.")
    if listing.shelf_id in board.entries:
        raise Moved(paper_path(str(listing.shelf_id)))
    return listing_view(listing, _similar(site, board, name), _votes(site, listing))


def _votes(site: Site, listing: Listing | None) -> int:
    if listing is None:
        return 0
    query = sa.select(sa.func.count()).select_from(VOTE).where(VOTE.c.listing == listing.id)
    with site.store.read() as connection:
        return connection.scalar(query) or 0


def _similar(site: Site, board: Board, key: str) -> list[Card]:
    return cards(board, site.store, [hit.key for hit in site.index.similar(key, SIMILAR)])


PAGE = Page("/paper/{name:path}", "page/paper.html", handle)
