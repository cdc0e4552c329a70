"""Voting for a paper, submitting one, and what curators do: feature, describe, remove, decline."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from claimbench.community import papers
from claimbench.community.actions import HOME, Actions, Fields
from claimbench.community.forms import Field, Form, Refused, Row, View, first
from claimbench.feed.entry import arxiv_id, plain
from claimbench.feed.listing import Listing
from claimbench.web.cards import paper_path

MOST_SHOWN = 50
WHEN = "It is asked for at arXiv with the next pull, and listed then."
AGAIN = ("/submit", "Submit another")


def path_of(listing: Listing) -> str:
    return paper_path(listing.shelf_id or listing.key)


class PaperPages(Actions):
    """Handlers; `routes` of `Community` says which of them are there."""

    def _vote_page(self, request: Request, _: Fields) -> Response:
        person, listing = self._somebody(request), self._listing(request.query_params.get("paper", ""))
        voted = papers.has_voted(self._store, person, listing.key)
        fields = [
            Field("paper", kind="hidden", value=listing.key),
            Field("want", kind="hidden", value=str(not voted)),
        ]
        form = Form("/vote", "Take my vote back" if voted else "Vote for it", fields)
        words = ["One vote a person; it counts less with each day."]
        return self._show(
            request, View(listing.title, words, [form], [(path_of(listing), "Back to the paper")])
        )

    def _vote(self, request: Request, fields: Fields) -> Response:
        person, listing = self._acting(request), self._listing(first(fields, "paper"))
        wanted = first(fields, "want") == "True"
        papers.vote(self._store, person, listing.key, self._service.clock(), wanted=wanted)
        return self._seen(path_of(listing))

    def _submit_page(self, request: Request, _: Fields) -> Response:
        self._somebody(request)
        field = Field(
            "arxiv", "arXiv id or address", hint="as 2402.18668 or https://arxiv.org/abs/2402.18668"
        )
        return self._show(request, View("Submit a paper", [WHEN], [Form("/submit", "Submit", [field])]))

    def _submit(self, request: Request, fields: Fields) -> Response:
        person, identity = self._acting(request), arxiv_id(first(fields, "arxiv"))
        if identity is None:
            raise Refused(400, "That is no arXiv id; write it as 2402.18668.", [("/submit", "Try again")])
        found = papers.submit(self._store, person, identity[0], self._service.clock())
        if found == "listed":
            listing = self._listing(f"arxiv:{identity[0]}")
            links = [(path_of(listing), listing.title), AGAIN]
            return self._show(request, View("Submit a paper", ["It is listed already."], links=links))
        words = [f"{identity[0]} is noted. {WHEN} What became of it stands on your account's page."]
        return self._show(request, View("Submit a paper", words, links=[AGAIN, HOME]))

    def _curate_page(self, request: Request, _: Fields) -> Response:
        self._curator(request)
        key = request.query_params.get("paper", "")
        if not key:
            return self._curators_page(request)
        listing = self._listing(key, hidden=True)
        fields = [
            Field("paper", kind="hidden", value=listing.key),
            Field("featured", "Featured on the first page", "checkbox", "yes", listing.featured),
            Field("hidden", "Removed from every list", "checkbox", "yes", listing.hidden),
            Field("note", "Description", "textarea", listing.note),
        ]
        links = [] if listing.hidden else [(path_of(listing), "Back to the paper")]
        return self._show(request, View(listing.title, (), [Form("/curate", "Save", fields)], links))

    def _curators_page(self, request: Request) -> Response:
        waiting, removed = papers.submissions(self._store), papers.removed(self._store, MOST_SHOWN)
        rows = [
            Row(
                (f"https://arxiv.org/abs/{name}", name),
                form=Form("/curate", f"Decline {name}", [Field("decline", kind="hidden", value=name)]),
            )
            for name in waiting[:MOST_SHOWN]
        ]
        rows += [Row((f"/curate?paper={paper.key}", paper.title), "removed") for paper in removed]
        words = [
            f"{len(waiting)} submission{'s wait' if len(waiting) != 1 else ' waits'} for the next pull. "
            "A paper is featured, described or removed on its own page."
        ]
        return self._show(request, View("Curate", words, rows=rows))

    def _curate(self, request: Request, fields: Fields) -> Response:
        self._curator(request)
        self._acting(request)
        if declined := first(fields, "decline"):
            papers.decline(self._store, declined)
            return self._seen("/curate")
        listing = self._listing(first(fields, "paper"), hidden=True)
        hidden = first(fields, "hidden") == "yes"
        papers.curate(
            self._store,
            listing.key,
            featured=first(fields, "featured") == "yes",
            hidden=hidden,
            note=plain(first(fields, "note", 1000), 1000),
        )
        if not hidden:
            return self._seen(path_of(listing))
        links = [(f"/curate?paper={listing.key}", "Put it back"), HOME]
        return self._show(request, View(listing.title, ["It is removed from every list."], links=links))

    def _seen(self, path: str) -> Response:
        """On to a page that shows what was done."""
        return RedirectResponse(path, 303, headers={"cache-control": "no-store"})
