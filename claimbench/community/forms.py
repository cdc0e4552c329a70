"""A page with forms, and whether a form that is sent was made here: a token bound to the browser, and the origin."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from claimbench.community.service import Service
from claimbench.community.tokens import BadToken
from claimbench.web import answers

MOST_FIELDS = 60
COOKIE = "claimbench_form"
VISIT = "claimbench_visit"
Link = tuple[str, str]
"""Address and words."""


@dataclass(frozen=True)
class Field:
    """kind: email, text, textarea, checkbox, radio or hidden. hint: what stands below it."""

    name: str
    label: str = ""
    kind: str = "text"
    value: str = ""
    checked: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Group:
    """Fields that answer one question. hint: what stands below the question."""

    legend: str
    fields: Sequence[Field]
    hint: str = ""


@dataclass(frozen=True)
class Form:
    """grave: it destroys something."""

    action: str
    button: str
    fields: Sequence[Field | Group] = ()
    title: str = ""
    words: str = ""
    grave: bool = False


@dataclass(frozen=True)
class Row:
    """A link, words to it, and what can be done with it."""

    link: Link
    words: str = ""
    form: Form | None = None


@dataclass(frozen=True)
class View:
    """A page: its title, paragraphs, rows, forms and further links."""

    title: str
    words: Sequence[str] = ()
    forms: Sequence[Form] = ()
    links: Sequence[Link] = ()
    rows: Sequence[Row] = ()


class Refused(Exception):
    """The request gets a short page instead. links: where to go from there."""

    def __init__(self, status: int, reason: str, links: Sequence[Link] = ()) -> None:
        super().__init__(reason)
        self.status, self.reason, self.links = status, reason, links


def answer(
    service: Service, request: Request, view: View, more: Mapping[str, Any], status: int = 200
) -> Response:
    """The page, with its token in every form and the cookie that the token is bound to. Kept nowhere."""
    bound = bound_to(request)
    fresh = "" if bound else secrets.token_urlsafe(18)
    values = {**more, "form_token": form_token(service, bound or fresh)}
    template = answers.environment().get_template("community/page.html")
    text = template.render(path=request.url.path, twin="", view=view, **values)
    response = HTMLResponse(text, status, headers={"cache-control": "no-store"})
    if fresh:
        set_cookie(service, response, COOKIE, fresh)
    return response


def bound_to(request: Request) -> str:
    """What tells this browser from others: its visit where somebody is signed in, else a cookie for the purpose."""
    found = request.cookies.get(VISIT, "") or request.cookies.get(COOKIE, "")
    return found if len(found) <= 60 else ""


def form_token(service: Service, bound: str) -> str:
    return service.keys.sign("form", service.keys.digest("form", bound), now=service.clock())


def set_cookie(
    service: Service, response: Response, name: str, value: str, *, lasts: int | None = None
) -> None:
    secure = service.community.secure
    response.set_cookie(name, value, max_age=lasts, httponly=True, secure=secure, samesite="lax", path="/")


async def read_form(request: Request) -> dict[str, list[str]]:
    """The fields of an urlencoded body, whose size the page's limits bound."""
    body = await request.body()
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    try:
        return parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refused(400, "The form cannot be read.") from None


def check_form(service: Service, request: Request, fields: Mapping[str, Sequence[str]]) -> None:
    """Raises Refused unless the form was made here, for this browser."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and origin != service.community.address) or site not in ("same-origin", "none"):
        raise Refused(403, "The form was sent from another site.")
    bound = service.keys.digest("form", bound_to(request))
    try:
        token = service.keys.read("form", first(fields, "form_token"), now=service.clock())
    except BadToken:
        token = ""
    if not hmac.compare_digest(token, bound):
        raise Refused(403, "The form is not this browser's; open the page again, with cookies allowed.")


def first(fields: Mapping[str, Sequence[str]], name: str, most: int = 400) -> str:
    """A field's first value without blanks around it, cut to `most` characters."""
    return fields.get(name, [""])[0].strip()[:most]
