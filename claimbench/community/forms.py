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


@dataclass(frozen=True)
class Field:
    """kind: email, text, textarea, checkbox, radio or hidden."""

    name: str
    label: str = ""
    kind: str = "text"
    value: str = ""
    checked: bool = False


@dataclass(frozen=True)
class Form:
    action: str
    button: str
    fields: Sequence[Field] = ()


@dataclass(frozen=True)
class View:
    """A page: its title, paragraphs, links (address, words) and forms."""

    title: str
    words: Sequence[str] = ()
    forms: Sequence[Form] = ()
    links: Sequence[tuple[str, str]] = ()


class Refused(Exception):
    """The request gets a short page instead."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def answer(
    service: Service, request: Request, view: View, more: Mapping[str, Any], status: int = 200
) -> Response:
    """The page, with its token in every form and the cookie that the token is bound to. Kept nowhere."""
    bound = request.cookies.get(COOKIE, "")
    fresh = not bound or len(bound) > 60
    bound = secrets.token_urlsafe(18) if fresh else bound
    token = service.keys.sign("form", service.keys.digest("form", bound), now=service.clock())
    text = (
        answers.environment()
        .get_template("community/page.html")
        .render(path=request.url.path, twin="", view=view, form_token=token, **more)
    )
    response = HTMLResponse(text, status, headers={"cache-control": "no-store"})
    if fresh:
        set_cookie(service, response, COOKIE, bound)
    return response


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
    bound = service.keys.digest("form", request.cookies.get(COOKIE, ""))
    try:
        token = service.keys.read("form", first(fields, "form_token"), now=service.clock())
    except BadToken:
        token = ""
    if not hmac.compare_digest(token, bound):
        raise Refused(403, "The form is not this browser's; open the page again, with cookies allowed.")


def first(fields: Mapping[str, Sequence[str]], name: str, most: int = 400) -> str:
    """A field's first value without blanks around it, cut to `most` characters."""
    return fields.get(name, [""])[0].strip()[:most]
