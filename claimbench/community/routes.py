"""The pages on which readers act. Opening one changes nothing; only a form does, so that mail scanners burn no link."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from claimbench.community import store as people
from claimbench.community.forms import (
    Field,
    Form,
    Refused,
    View,
    answer,
    check_form,
    first,
    read_form,
    set_cookie,
)
from claimbench.community.rates import allow
from claimbench.community.service import Service, open_service, statements_of
from claimbench.community.settings import valid_address
from claimbench.community.store import MOST_CHOICES, VISIT_LASTS, Choices, LinkPurpose, Person
from claimbench.community.tokens import BadToken
from claimbench.errors import UserError
from claimbench.feed.entry import arxiv_id, plain
from claimbench.feed.listing import Listing
from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore
from claimbench.shelf import Shelf

log = logging.getLogger("claimbench.community")
VISIT = "claimbench_visit"
Fields = Mapping[str, list[str]]
Handler = Callable[[Request, Fields], Response]
ON_ITS_WAY = (
    "If letters reach that address, one with a link is on its way. The link works once, for two hours."
)
SPENT = "This link has been used, or is too old. Ask for another."


def open_community(store: PageStore, settings: Settings, shelf: Shelf) -> Community | None:
    """None where the owner allows nothing: the page then only reads. Raises UserError as `open_service` does."""
    if settings.mail is None or not (settings.community.actions or settings.community.curators):
        return None
    groups = sorted({entry.group for entry in shelf.entries.values()})
    return Community(open_service(store, settings, statements_of(shelf)), groups)


class Community:
    """Give `routes`, `context` and `personal` to `create_app`. groups: names that a subscription can choose."""

    def __init__(self, service: Service, groups: list[str]) -> None:
        self._service, self._groups = service, groups
        self._store, self._keys = service.store, service.keys
        self._curators = {service.keys.address_hash(address) for address in service.community.curators}
        self._posting = ThreadPoolExecutor(1, "claimbench-mail")
        self.personal = (VISIT,)

    def context(self, request: Request) -> dict[str, Any]:
        """What the page's own templates show of actions."""
        person = self._person(request)
        return {
            "actions": list(self._service.community.actions),
            "accounts": self._service.community.accounts,
            "signed_in": person is not None,
            "curator": self._is_curator(person),
        }

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
                view = View("That is not possible", [refused.reason], links=[("/", "All papers")])
                return await run_in_threadpool(self._show, request, view, refused.status)

        return Route(path, endpoint, methods=["GET", "POST"])

    # --- subscriptions ---

    def _subscribe_page(self, request: Request, _: Fields) -> Response:
        fields = [
            Field("address", "Your e-mail address", "email"),
            Field("every", "Daily", "radio", "day"),
            Field("every", "Weekly", "radio", "week", checked=True),
            *(Field("group", f"Only {name} (and others chosen)", "checkbox", name) for name in self._groups),
            *(Field("search", "Or papers with all these words") for _ in range(3)),
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
            raise Refused(400, SPENT)
        return self._show(
            request, View("Subscribed", ["The first digest comes when there is something to tell."])
        )

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
        return self._show(
            request, View("Unsubscribed", ["The subscription has ended, and its address is deleted."])
        )

    # --- accounts ---

    def _sign_in_page(self, request: Request, _: Fields) -> Response:
        form = Form("/sign-in", "Send me a link", [Field("address", "Your e-mail address", "email")])
        return self._show(
            request, View("Sign in", ["Without a password: by a link sent to your address."], [form])
        )

    def _ask_sign_in(self, request: Request, fields: Fields) -> Response:
        return self._ask(request, fields, "sign-in", None)

    def _sign_in(self, request: Request, fields: Fields) -> Response:
        token = people.sign_in(self._store, self._named("sign-in", first(fields, "t")), self._service.clock())
        if token is None:
            raise Refused(400, SPENT)
        response = RedirectResponse("/account", 303, headers={"cache-control": "no-store"})
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
        words = [
            told,
            "Deleting your data ends the account, its votes, and the subscription of the same address.",
        ]
        sure = Field("sure", "Yes, delete everything that is kept of me", "checkbox", "yes")
        forms = [Form("/sign-out", "Sign out"), Form("/account", "Delete my data", [sure])]
        links = [("/submit", "Submit a paper")] if "submit" in self._service.community.actions else []
        links += [("/curate", "Curate")] if self._is_curator(person) else []
        return self._show(request, View("Your account", words, forms, links))

    def _delete(self, request: Request, fields: Fields) -> Response:
        person = self._somebody(request)
        if first(fields, "sure") != "yes":
            raise Refused(400, "Nothing was deleted: the box was not ticked.")
        people.delete_person(self._store, person)
        return self._leave(request)

    def _leave(self, request: Request) -> Response:
        response = RedirectResponse("/", 303, headers={"cache-control": "no-store"})
        response.delete_cookie(VISIT, path="/")
        return response

    # --- papers ---

    def _vote_page(self, request: Request, _: Fields) -> Response:
        person, listing = self._somebody(request), self._listing(request.query_params.get("paper", ""))
        voted = people.has_voted(self._store, person, listing.key)
        fields = [
            Field("paper", kind="hidden", value=listing.key),
            Field("want", kind="hidden", value=str(not voted)),
        ]
        form = Form("/vote", "Take my vote back" if voted else "Vote for it", fields)
        return self._show(
            request, View(listing.title, ["One vote a person; it counts less with each day."], [form])
        )

    def _vote(self, request: Request, fields: Fields) -> Response:
        person, listing = self._acting(request), self._listing(first(fields, "paper"))
        wanted = first(fields, "want") == "True"
        people.vote(self._store, person, listing.key, self._service.clock(), wanted=wanted)
        said = "Your vote counts." if wanted else "Your vote is taken back."
        return self._show(request, View(listing.title, [said], links=[("/", "All papers")]))

    def _submit_page(self, request: Request, _: Fields) -> Response:
        self._somebody(request)
        form = Form("/submit", "Submit", [Field("arxiv", "arXiv id or address, as 2402.18668")])
        return self._show(
            request, View("Submit a paper", ["It is listed once a curator has looked at it."], [form])
        )

    def _submit(self, request: Request, fields: Fields) -> Response:
        person, identity = self._acting(request), arxiv_id(first(fields, "arxiv"))
        if identity is None:
            raise Refused(400, "That is no arXiv id; write it as 2402.18668.")
        found = people.submit(self._store, person, identity[0], self._service.clock())
        said = (
            "It is listed already."
            if found == "listed"
            else "Noted; it is listed once a curator has looked at it."
        )
        return self._show(request, View("Submit a paper", [said], links=[("/", "All papers")]))

    def _curate_page(self, request: Request, _: Fields) -> Response:
        self._curator(request)
        key = request.query_params.get("paper", "")
        if not key:
            waiting = people.submissions(self._store)
            forms = [
                Form("/curate", f"Decline {name}", [Field("decline", kind="hidden", value=name)])
                for name in waiting
            ]
            links = [(f"https://arxiv.org/abs/{name}", name) for name in waiting]
            return self._show(request, View("Submissions", [f"{len(waiting)} wait."], forms[:50], links[:50]))
        listing = self._listing(key, hidden=True)
        form = Form(
            "/curate",
            "Save",
            [
                Field("paper", kind="hidden", value=listing.key),
                Field("featured", "Featured", "checkbox", "yes", listing.featured),
                Field("hidden", "Removed from every list", "checkbox", "yes", listing.hidden),
                Field("note", "Description", "textarea", listing.note),
            ],
        )
        return self._show(request, View(listing.title, forms=[form]))

    def _curate(self, request: Request, fields: Fields) -> Response:
        self._curator(request)
        self._acting(request)
        if declined := first(fields, "decline"):
            people.decline(self._store, declined)
            return RedirectResponse("/curate", 303)
        listing = self._listing(first(fields, "paper"), hidden=True)
        people.curate(
            self._store,
            listing.key,
            featured=first(fields, "featured") == "yes",
            hidden=first(fields, "hidden") == "yes",
            note=plain(first(fields, "note", 1000), 1000),
        )
        return self._show(request, View(listing.title, ["Saved."], links=[("/", "All papers")]))

    # --- what they share ---

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
            raise Refused(400, f"The address: {error}.") from None
        known = self._keys.address_hash(address)
        if self._allow("address", known, limits.links_per_address) and self._allow(
            "all", "", limits.links_at_all
        ):
            letter = people.ask_link(self._store, self._keys, purpose, address, now, choices)
            self._posting.submit(self._post, letter)
        return self._show(request, View("Look into your mail", [ON_ITS_WAY]))

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
                raise Refused(400, SPENT)
            form = Form(f"/{purpose}/link", button, [Field("t", kind="hidden", value=token)])
            return self._show(request, View(title, forms=[form]))

        return page

    def _named(self, purpose: Any, token: str) -> str:
        try:
            return self._keys.read(purpose, token, now=self._service.clock())
        except BadToken:
            raise Refused(400, SPENT) from None

    def _listing(self, key: str, *, hidden: bool = False) -> Listing:
        found = people.find_listing(self._store, key[:300])
        if found is None or (found.hidden and not hidden):
            raise Refused(404, "There is no such paper here.")
        return found

    def _person(self, request: Request) -> Person | None:
        token = request.cookies.get(VISIT, "")
        return people.visitor(self._store, token, self._service.clock()) if token else None

    def _somebody(self, request: Request) -> Person:
        person = self._person(request)
        if person is None:
            raise Refused(403, "Sign in first.")
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

    def _show(self, request: Request, view: View, status: int = 200) -> Response:
        return answer(self._service, request, view, self.context(request), status)
