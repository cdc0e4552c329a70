"""What is new as an Atom feed (RFC 4287): papers on the shelf and in the list, and verdicts as they are made."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from claimbench.feed.listing import Listing
from claimbench.plots.drawing import printable
from claimbench.web.board import Board
from claimbench.web.cards import listing_card, verdict
from claimbench.web.site import Site

ENTRIES = 60
ATOM = "http://www.w3.org/2005/Atom"


@dataclass(frozen=True)
class News:
    """One entry. moment: ISO 8601. identity: what it is of, for good."""

    identity: str
    path: str
    title: str
    text: str
    moment: str


def news(board: Board, listings: list[Listing]) -> list[News]:
    """Latest first. A verdict is new when its set was first judged; a paper when it was published."""
    found = [
        News(
            f"verdict/{brief.row.uid}",
            verdict(board, brief).path,
            f"{brief.state}: {brief.row.paper}/{brief.row.claim}",
            f"{verdict(board, brief).statement} ({brief.row.scale})",
            brief.judged,
        )
        for brief in board.all()
        if brief.counts
    ]
    for listing in listings:
        card = listing_card(board, listing)
        moment = f"{listing.published[:10]}T00:00:00+00:00"
        found.append(News(f"paper/{listing.key}", card.path, card.title, card.text, moment))
    return sorted(found, key=lambda entry: entry.moment, reverse=True)[:ENTRIES]


def atom(entries: list[News], address: str) -> bytes:
    """The document. address: how readers reach the page, without a slash at its end."""
    ET.register_namespace("", ATOM)
    feed = ET.Element(f"{{{ATOM}}}feed")

    def add(parent: ET.Element, tag: str, words: str = "", **attributes: str) -> None:
        ET.SubElement(parent, f"{{{ATOM}}}{tag}", attributes).text = printable(words) or None

    add(feed, "title", "claimbench: new papers and verdicts")
    add(feed, "id", uuid.uuid5(uuid.NAMESPACE_URL, f"{address}/feed.atom").urn)
    add(feed, "link", rel="self", href=f"{address}/feed.atom")
    add(feed, "link", rel="alternate", href=f"{address}/")
    add(feed, "updated", entries[0].moment if entries else datetime.fromtimestamp(0, UTC).isoformat())
    author = ET.SubElement(feed, f"{{{ATOM}}}author")
    add(author, "name", "claimbench")
    for entry in entries:
        element = ET.SubElement(feed, f"{{{ATOM}}}entry")
        add(element, "title", entry.title)
        add(element, "id", uuid.uuid5(uuid.NAMESPACE_URL, f"claimbench:{entry.identity}").urn)
        add(element, "link", rel="alternate", href=address + entry.path)
        add(element, "updated", entry.moment)
        add(element, "summary", entry.text)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(feed, encoding="utf-8")


def route(site: Site) -> Route:
    async def answer(request: Request) -> Response:
        address = site.address or f"{request.url.scheme}://{request.url.netloc}"
        body = await run_in_threadpool(lambda: atom(news(site.board(), site.store.newest(ENTRIES)), address))
        return Response(body, media_type="application/atom+xml")

    return Route("/feed.atom", answer)
