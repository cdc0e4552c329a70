"""The application: its pages, and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger
from claimbench.search import Index
from claimbench.shelf import Shelf
from claimbench.web.answers import STATIC, Context, Page, refusal, site_style
from claimbench.web.cache import Cache
from claimbench.web.headers import KnownHosts, SecurityHeaders
from claimbench.web.limits import Limits
from claimbench.web.pages import about, atom, claim, group, home, leaderboard, machine, paper, plot, search
from claimbench.web.site import Site

PAGES: tuple[Page, ...] = (
    home.PAGE,
    search.PAGE,
    claim.PAGE,
    group.PAGE,
    leaderboard.ALL,
    leaderboard.PAGE,
    machine.ALL,
    machine.PAGE,
    about.PAGE,
    plot.PAGE,
    paper.PAGE,
)
FOREVER = {"cache-control": "public, max-age=31536000, immutable"}
A_DAY = {"cache-control": "public, max-age=86400"}


@dataclass(frozen=True)
class Application:
    """An ASGI application. The headers stand outside everything, so that errors have them too."""

    site: Site
    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    ledger: Ledger,
    shelf: Shelf,
    store: PageStore,
    index: Index,
    routes: Sequence[BaseRoute] = (),
    context: Context | None = None,
    personal: Sequence[str] = (),
    address: str = "",
    hosts: frozenset[str] | None = None,
    show_own: bool = False,
) -> Application:
    """The page of these four, which it only reads.

    routes: further ones, asked before the page's own. context: what templates get beside a page's view, from the
    request. personal: names of cookies whose bearers get pages of their own, never kept. address: how readers reach the
    page. hosts: names that it answers to beside loopback ones (None: all). show_own: also show private sets.
    """
    site = Site(settings, ledger, shelf, store, index, address.rstrip("/"), show_own)
    if hosts is not None and address:
        hosts |= {(urlsplit(address).hostname or "").lower()}
    own: list[BaseRoute] = [
        atom.route(site),
        Route("/static/{name}", _static),
        Route("/robots.txt", _robots),
        *(route for page in PAGES for route in page.routes(site, context)),
    ]
    pages = Starlette(
        routes=[*routes, *own], exception_handlers={HTTPException: _refused, Exception: _broken}
    )
    pages.state.site = site
    cached = Cache(pages, site.stamp, personal=personal)
    return Application(site, SecurityHeaders(KnownHosts(Limits(cached), hosts)))


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name.startswith("style-") and name.endswith(".css"):
        return Response(site_style(), media_type="text/css", headers=FOREVER)
    if name == "plotly.min.js" and (library := plot.library()) is not None:
        return FileResponse(library, media_type="text/javascript", headers=A_DAY)
    if name in ("plot.js", "icon.svg"):
        kind = "text/javascript" if name.endswith(".js") else "image/svg+xml"
        return Response((STATIC / name).read_bytes(), media_type=kind, headers=A_DAY)
    raise HTTPException(404)


async def _robots(request: Request) -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /search\nDisallow: /plot/\n")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "There is no such page here.", 405: "This cannot be done here."}
    response = refusal(error.status_code, words.get(error.status_code, error.detail), request)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _broken(request: Request, error: Exception) -> Response:
    """What went wrong is in the log alone; Starlette logs the traceback by raising it again."""
    return refusal(500, "Something went wrong here; it has been written to the log.", request)
