"""What all pages on which readers act share: who is asking, how often, and how a page of forms is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from claimbench.community import papers
from claimbench.community import store as people
from claimbench.community.forms import (
    VISIT,
    Field,
    Form,
    Link,
    Refused,
    View,
    answer,
    bound_to,
    check_form,
    form_token,
    read_form,
    set_cookie,
)
from claimbench.community.rates import allow
from claimbench.community.service import Service
from claimbench.community.store import LINK_LASTS, Person
from claimbench.feed.listing import Listing

NEXT = "claimbench_next"  # where somebody was going who was asked to sign in first
PAPER = re.compile(r"/paper/(.+)")
HOME: Link = ("/", "All papers")
Fields = Mapping[str, list[str]]
Handler = Callable[[Request, Fields], Response]


class SignInFirst(Exception):
    """Nobody is signed in."""


class Actions:
    """personal: names of the cookies whose bearers get pages of their own."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store, self._keys = service.store, service.keys
        self._curators = {service.keys.address_hash(address) for address in service.community.curators}
        self.personal = (VISIT,)

    def context(self, request: Request) -> dict[str, Any]:
        """What the page's own templates show of actions. listing: the paper's, of a paper's page and for its forms."""
        person = self._person(request)
        named = PAPER.fullmatch(request.url.path)
        listing = papers.find_listing(self._store, named[1][:300]) if named and person else None
        return {
            "actions": list(self._service.community.actions),
            "accounts": self._service.community.accounts,
            "signed_in": person is not None,
            "curator": self._is_curator(person),
            "form_token": form_token(self._service, bound_to(request)) if person else "",
            "listing": listing,
            "voted": bool(person and listing and papers.has_voted(self._store, person, listing.key)),
        }

    def _route(self, path: str, get: Handler, post: Handler, *, token_is_enough: bool = False) -> Route:
        def handle(request: Request, fields: Fields) -> Response:
            if request.method != "POST":
                return get(request, fields)
            if not token_is_enough:
                check_form(self._service, request, fields)
            return post(request, fields)

        async def endpoint(request: Request) -> Response:
            try:
                fields = await read_form(request) if request.method == "POST" else {}
                return await run_in_threadpool(handle, request, fields)
            except Refused as refused:
                view = View("That is not possible", [refused.reason], links=[*refused.links, HOME])
                return await run_in_threadpool(self._show, request, view, refused.status)
            except SignInFirst:
                return await run_in_threadpool(self._sign_in_first, request)

        return Route(path, endpoint, methods=["GET", "POST"])

    def _show(self, request: Request, view: View, status: int = 200) -> Response:
        return answer(self._service, request, view, self.context(request), status)

    # --- who ---

    def _sign_in_first(self, request: Request) -> Response:
        """The form to sign in by; the link in the mail leads on to where the reader was going."""
        form = sign_in_form()
        response = self._show(request, View("Sign in first", [WITHOUT_PASSWORD], [form]), 403)
        if request.method == "GET":
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            set_cookie(self._service, response, NEXT, path[:400], lasts=int(LINK_LASTS.total_seconds()))
        return response

    def _onward(self, request: Request) -> RedirectResponse:
        """To where the reader was going, if that is a page of these, else to the account."""
        wanted = request.cookies.get(NEXT, "")
        known = re.fullmatch(
            r"/(vote\?paper=[\w.:/%-]{1,300}|submit|curate(\?paper=[\w.:/%-]{1,300})?)", wanted
        )
        headers = {"cache-control": "no-store"}
        response = RedirectResponse(wanted if known else "/account", 303, headers=headers)
        response.delete_cookie(NEXT, path="/")
        return response

    def _person(self, request: Request) -> Person | None:
        token = request.cookies.get(VISIT, "")
        return people.visitor(self._store, token, self._service.clock()) if token else None

    def _somebody(self, request: Request) -> Person:
        person = self._person(request)
        if person is None:
            raise SignInFirst
        return person

    def _acting(self, request: Request) -> Person:
        person = self._somebody(request)
        if not self._allow("person", str(person.id), self._service.community.actions_per_person):
            raise Refused(429, "That was a lot for an hour; go on later.")
        return person

    def _curator(self, request: Request) -> None:
        if not self._is_curator(self._somebody(request)):
            raise Refused(403, "Only curators may.")

    def _is_curator(self, person: Person | None) -> bool:
        return person is not None and person.address_hash in self._curators

    def _allow(self, kind: str, who: str, most: int) -> bool:
        return allow(self._store, self._keys, kind, who, most, self._service.clock())

    def _client(self, request: Request) -> str:
        header = self._service.community.client_header
        if header and (told := request.headers.get(header, "")):
            return told.rpartition(",")[
                2
            ].strip()  # the proxy's own word; what stands before it is the client's
        return request.client.host if request.client else ""

    # --- what ---

    def _listing(self, key: str, *, hidden: bool = False) -> Listing:
        found = papers.find_listing(self._store, key[:300])
        if found is None or (found.hidden and not hidden):
            raise Refused(404, "There is no such paper here.")
        return found


WITHOUT_PASSWORD = "There is no password: a link is sent to your address. Open it, and press the button."


def sign_in_form() -> Form:
    return Form("/sign-in", "Send me a link", [address_field()])


def address_field() -> Field:
    return Field("address", "Your e-mail address", "email")
