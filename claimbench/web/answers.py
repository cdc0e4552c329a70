"""From a handler to responses: the HTML page and its `.json` twin of one view; plain pages for what is not there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from claimbench import __version__
from claimbench.errors import UserError
from claimbench.html import web_address
from claimbench.plots import stylesheet
from claimbench.web import twins
from claimbench.web.cards import claim_path, paper_path
from claimbench.web.site import Site
from claimbench.web.stamps import short

log = logging.getLogger("claimbench.web")
Context = Callable[[Request], Mapping[str, Any]]
STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parents[1] / "templates"


class Missing(Exception):
    """There is no such page."""


class BadRequest(Exception):
    """A parameter that cannot be read: one line that names it."""


class Moved(Exception):
    """The page has another address for good."""


@dataclass(frozen=True)
class Page:
    """A page at `path`; its twin at `path` + .json (`twin` where the path has no name of its own).

    handle reads what is stored and returns the view, in a thread of the pool.
    """

    path: str
    template: str
    handle: Callable[[Site, Request], Any]
    twin: str = ""
    headers: Mapping[str, str] | None = None

    def routes(self, site: Site, context: Context | None) -> list[Route]:
        async def html(request: Request) -> Response:
            return await run_in_threadpool(_html, self, site, request, context)

        async def json(request: Request) -> Response:
            return await run_in_threadpool(_json, self, site, request)

        return [Route(self.twin or f"{self.path}.json", json), Route(self.path, html)]


def _html(page: Page, site: Site, request: Request, context: Context | None) -> Response:
    more = context(request) if context is not None else {}
    try:
        view = page.handle(site, request)
    except (Missing, BadRequest, Moved, UserError) as error:
        return _instead(error, request, more, "")
    text = render(page.template, request, view=view, site=site, twin=_twin(page, request), **more)
    return Response(text, media_type="text/html", headers=page.headers)


def _json(page: Page, site: Site, request: Request) -> Response:
    try:
        view = page.handle(site, request)
    except (Missing, BadRequest, Moved, UserError) as error:
        return _instead(error, request, {}, ".json")
    return Response(twins.encode(view), media_type="application/json")


def _twin(page: Page, request: Request) -> str:
    """The address of the twin, with the page's own parameters."""
    path = page.twin or f"{request.url.path}.json"
    return f"{path}?{request.url.query}" if request.url.query else path


def _instead(error: Exception, request: Request, more: Mapping[str, Any], end: str) -> Response:
    if isinstance(error, Moved):
        return RedirectResponse(f"{error}{end}", 308)
    if isinstance(error, UserError):  # of the owner's files: the message names paths of this machine
        log.error("%s: %s", request.url.path[:200], error)
        return refusal(503, "What this page shows cannot be read at this moment.", request, more)
    return refusal(404 if isinstance(error, Missing) else 400, str(error), request, more)


def refusal(status: int, reason: str, request: Request, more: Mapping[str, Any] | None = None) -> Response:
    """What a reader gets in place of a page."""
    if request.url.path.endswith(".json"):
        return Response(twins.encode({"error": reason}), status, media_type="application/json")
    text = render("page/refusal.html", request, status=status, reason=reason, twin="", **(more or {}))
    return Response(text, status, media_type="text/html")


def render(template: str, request: Request, **values: Any) -> str:
    """The page's text. Every value is escaped by the template, drawings excepted."""
    return environment().get_template(template).render(path=request.url.path, **values)


@cache
def environment() -> Environment:
    found = Environment(
        loader=ChoiceLoader(
            [PackageLoader("claimbench", "templates"), PackageLoader("claimbench.community", "templates")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(
        version=__version__,
        web=web_address,
        style=f"/static/style-{short(site_style())}.css",
        claim_path=claim_path,
        paper_path=paper_path,
    )
    return found


@cache
def site_style() -> str:
    """The one style sheet: the plots' palette and classes, the report's, the page's, and its forms'."""
    files = (TEMPLATES / "report.css", STATIC / "page.css", STATIC / "forms.css")
    return "\n".join([stylesheet(), *(file.read_text(encoding="utf-8") for file in files)])


def drawing(svg: str) -> Markup:
    """SVG that `claimbench.plots` made: it has escaped every name by building a tree."""
    return Markup(svg)


def whole(request: Request, name: str, default: int, most: int) -> int:
    """A query parameter between 1 and `most`. Raises BadRequest."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise BadRequest(f"{name}: a whole number from 1 to {most} is wanted")
    return int(text)


def choice(request: Request, name: str, among: list[str]) -> str:
    """A query parameter that is one of these; the first without one. Raises BadRequest."""
    found = request.query_params.get(name)
    if found is None:
        return among[0]
    if found not in among:
        raise BadRequest(f"{name}: not one of {', '.join(among)}")
    return found
