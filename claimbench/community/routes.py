"""The pages on which readers act. Opening one changes nothing; only a form does, so that mail scanners burn no link."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from claimbench.community import papers
from claimbench.community import store as people
from claimbench.community.actions import (
    HOME,
    WITHOUT_PASSWORD,
    Fields,
    Handler,
    address_field,
    sign_in_form,
)
from claimbench.community.forms import VISIT, Field, Form, Group, Refused, Row, View, first, set_cookie
from claimbench.community.paper_pages import PaperPages
from claimbench.community.service import Service, open_service, statements_of
from claimbench.community.settings import valid_address
from claimbench.community.store import MOST_CHOICES, VISIT_LASTS, Choices, LinkPurpose
from claimbench.community.tokens import BadToken
from claimbench.errors import UserError
from claimbench.feed.entry import plain
from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore
from claimbench.shelf import Shelf

log = logging.getLogger("claimbench.community")
ON_ITS_WAY = (
    "If letters reach that address, one with a link is on its way. The link works once, for two hours."
)
SPENT = "This link has been used, or is too old. Ask for another."
SEARCHES = 3  # fields for them


def open_community(store: PageStore, settings: Settings, shelf: Shelf) -> Community | None:
    """None where the owner allows nothing: the page then only reads. Raises UserError as `open_service` does."""
    if settings.mail is None or not (settings.community.actions or settings.community.curators):
        return None
    groups = sorted({entry.group for entry in shelf.entries.values()})
    return Community(open_service(store, settings, statements_of(shelf)), groups)


class Community(PaperPages):
    """Give `routes`, `context` and `personal` to `create_app`. groups: names that a subscription can choose."""

    def __init__(self, service: Service, groups: list[str]) -> None:
        super().__init__(service)
        self._groups = groups
        self._posting = ThreadPoolExecutor(1, "claimbench-mail")

    @property
    def routes(self) -> list[Route]:
        """Only of what the owner allows."""
        actions, accounts = self._service.community.actions, self._service.community.accounts
        found = [self._route("/unsubscribe", self._unsubscribe_page, self._unsubscribe, token_is_enough=True)]
        if "subscribe" in actions:
            found += [
                self._route("/subscribe", self._subscribe_page, self._subscribe),
                self._route("/subscribe/link", self._link_page("subscribe"), self._confirm),
            ]
        if accounts:
            found += [
                self._route("/sign-in", self._sign_in_page, self._ask_sign_in),
                self._route("/sign-in/link", self._link_page("sign-in"), self._sign_in),
                self._route("/sign-out", self._account_page, self._sign_out),
                self._route("/account", self._account_page, self._delete),
                self._route("/curate", self._curate_page, self._curate),
            ]
        if "vote" in actions:
            found.append(self._route("/vote", self._vote_page, self._vote))
        if "submit" in actions:
            found.append(self._route("/submit", self._submit_page, self._submit))
        return found

    # --- subscriptions ---

    def _subscribe_page(self, request: Request, _: Fields) -> Response:
        every = [
            Field("every", "Daily", "radio", "day"),
            Field("every", "Weekly", "radio", "week", checked=True),
        ]
        groups = [Field("group", name, "checkbox", name) for name in self._groups]
        searches = [Field("search", f"Search {number}") for number in range(1, SEARCHES + 1)]
        anything = "Choose nothing here and below to get everything."
        asked = 'As on the search page: every word counts, and so do "phrases" and author:NAME.'
        fields: list[Field | Group] = [
            address_field(),
            Group("How often", every),
            *([Group("Papers of these groups", groups, anything)] if groups else []),
            Group("And papers found by these searches", searches, asked),
        ]
        words = [
            "What was trending and which claims were judged since the last digest. Nothing else is ever sent."
        ]
        return self._show(request, View("Digests by mail", words, [Form("/subscribe", "Subscribe", fields)]))

    def _subscribe(self, request: Request, fields: Fields) -> Response:
        searches = [plain(text.strip(), 200) for text in fields.get("search", []) if text.strip()]
        choices = Choices(
            tuple(name for name in self._groups if name in fields.get("group", [])),
            tuple(dict.fromkeys(searches))[:MOST_CHOICES],
            "day" if first(fields, "every") == "day" else "week",
        )
        return self._ask(request, fields, "subscribe", choices)

    def _confirm(self, request: Request, fields: Fields) -> Response:
        name = self._named("subscribe", first(fields, "t"))
        if not people.confirm(self._store, name, self._service.clock()):
            raise Refused(400, SPENT, [("/subscribe", "Subscribe")])
        words = ["The first digest comes when there is something to tell. Each has a link that ends it."]
        return self._show(request, View("Subscribed", words, links=[HOME]))

    def _unsubscribe_page(self, request: Request, _: Fields) -> Response:
        token = request.query_params.get("t", "")
        self._named("unsubscribe", token)
        form = Form("/unsubscribe", "End the subscription", [Field("t", kind="hidden", value=token)])
        return self._show(
            request, View("End this subscription?", ["Your address is deleted with it."], [form])
        )

    def _unsubscribe(self, request: Request, fields: Fields) -> Response:
        """By the page's button, or by a mail program (RFC 8058), which brings neither cookie nor origin."""
        token = first(fields, "t") or request.query_params.get("t", "")
        people.unsubscribe(self._store, self._named("unsubscribe", token))
        words = ["The subscription has ended, and its address is deleted."]
        return self._show(request, View("Unsubscribed", words, links=[HOME]))

    # --- accounts ---

    def _sign_in_page(self, request: Request, _: Fields) -> Response:
        return self._show(request, View("Sign in", [WITHOUT_PASSWORD], [sign_in_form()]))

    def _ask_sign_in(self, request: Request, fields: Fields) -> Response:
        return self._ask(request, fields, "sign-in", None)

    def _sign_in(self, request: Request, fields: Fields) -> Response:
        token = people.sign_in(self._store, self._named("sign-in", first(fields, "t")), self._service.clock())
        if token is None:
            raise Refused(400, SPENT, [("/sign-in", "Sign in")])
        response = self._onward(request)
        set_cookie(self._service, response, VISIT, token, lasts=int(VISIT_LASTS.total_seconds()))
        return response

    def _sign_out(self, request: Request, fields: Fields) -> Response:
        people.sign_out(self._store, request.cookies.get(VISIT, ""))
        return self._leave(request)

    def _account_page(self, request: Request, _: Fields) -> Response:
        person = self._somebody(request)
        found = people.subscription_of(self._store, person)
        every = {"day": "daily", "week": "weekly"}
        told = (
            f"Your digest comes {every[found.choices.every]} ({found.state})."
            if found
            else "You get no digest."
        )
        fates = {"waiting": "waits for the next pull", "listed": "listed"}
        rows = [
            Row(
                (f"/paper/arxiv:{own.arxiv}", own.arxiv)
                if own.state == "listed"
                else (f"https://arxiv.org/abs/{own.arxiv}", own.arxiv),
                fates.get(own.state) or f"{own.state}: {own.reason}",
            )
            for own in papers.submissions_of(self._store, person)
        ]
        sure = Field("sure", "Yes, delete everything that is kept of me", "checkbox", "yes")
        ends = "This ends the account, its votes, and the subscription of the same address."
        forms = [
            Form("/sign-out", "Sign out"),
            Form("/account", "Delete my data", [sure], "Delete my data", ends, grave=True),
        ]
        offered = [
            ("submit", "/submit", "Submit a paper"),
            ("subscribe", "/subscribe", "Change the digest" if found else "Get digests by mail"),
        ]
        actions = self._service.community.actions
        links = [(address, words) for action, address, words in offered if action in actions]
        links += [("/curate", "Curate")] if self._is_curator(person) else []
        return self._show(request, View("Your account", [told], forms, links, rows))

    def _delete(self, request: Request, fields: Fields) -> Response:
        person = self._somebody(request)
        if first(fields, "sure") != "yes":
            reason = "Nothing was deleted: the box was not ticked."
            raise Refused(400, reason, [("/account", "Back to the account")])
        people.delete_person(self._store, person)
        return self._leave(request)

    def _leave(self, request: Request) -> Response:
        response = RedirectResponse("/", 303, headers={"cache-control": "no-store"})
        response.delete_cookie(VISIT, path="/")
        return response

    # --- links by mail ---

    def _ask(
        self, request: Request, fields: Fields, purpose: LinkPurpose, choices: Choices | None
    ) -> Response:
        """The same answer whether the address is known, asked too often, or neither."""
        limits, now = self._service.community, self._service.clock()
        if not self._allow("client", self._client(request), limits.links_per_client):
            raise Refused(429, "That was asked for too often; try again in an hour.")
        try:
            address = valid_address(first(fields, "address"))
        except ValueError as error:
            raise Refused(400, f"The address: {error}.", [(f"/{purpose}", "Try again")]) from None
        known = self._keys.address_hash(address)
        if self._allow("address", known, limits.links_per_address) and self._allow(
            "all", "", limits.links_at_all
        ):
            letter = people.ask_link(self._store, self._keys, purpose, address, now, choices)
            self._posting.submit(self._post, letter)
        return self._show(request, View("Look into your mail", [ON_ITS_WAY], links=[HOME]))

    def _post(self, letter: int) -> None:
        """Outside the request, whose answer must not depend on a mail server; what fails is sent by the next run."""
        try:
            self._service.sender().run(only=letter)
        except UserError as error:
            log.error("mail: %s", error)

    def _link_page(self, purpose: LinkPurpose) -> Handler:
        titles = {"subscribe": ("Confirm your subscription", "Subscribe"), "sign-in": ("Sign in", "Sign in")}
        title, button = titles[purpose]

        def page(request: Request, _: Fields) -> Response:
            token = request.query_params.get("t", "")
            if not people.link_is_open(
                self._store, purpose, self._named(purpose, token), self._service.clock()
            ):
                raise Refused(400, SPENT, [(f"/{purpose}", title)])
            form = Form(f"/{purpose}/link", button, [Field("t", kind="hidden", value=token)])
            return self._show(request, View(title, ["One press, and it is done."], [form]))

        return page

    def _named(self, purpose: Any, token: str) -> str:
        try:
            return self._keys.read(purpose, token, now=self._service.clock())
        except BadToken:
            raise Refused(400, SPENT) from None
