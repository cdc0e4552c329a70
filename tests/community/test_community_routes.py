"""What readers do, in a browser without script and with letters over a real server; and what nobody may do."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from readers import KEYS, Mailing, judge, subscribe
from smtp_server import PASSWORD, text_of
from starlette.testclient import TestClient

from claimbench.community.papers import decline, settle_submissions, submissions
from claimbench.community.routes import Community, open_community
from claimbench.community.schema import MAIL_LINK, PERSON, SUBMISSION, SUBSCRIPTION, VISIT
from claimbench.community.service import Service
from claimbench.community.settings import CommunitySettings
from claimbench.community.store import active
from claimbench.community.tokens import utc_now
from claimbench.feed.schema import VOTE
from claimbench.feed.settings import ScoreSettings, Settings
from claimbench.feed.trending import rank
from claimbench.ledger import Ledger
from claimbench.search import Index
from claimbench.shelf import Shelf
from claimbench.web.app import create_app

HERE = "https://papers.example.org"
READER, EDITOR = "reader@example.net", "editor@example.net"
PAPER = "arxiv:2503.00001"


class Browser:
    """Sends forms as the page made them."""

    def __init__(self, app: Any) -> None:
        self.client = TestClient(app, base_url=HERE, raise_server_exceptions=False)

    def get(self, path: str) -> Any:
        return self.client.get(path, follow_redirects=False)

    def send(self, page: str, action: str, **fields: Any) -> Any:
        """Open a page, and send its form that has this action, with the hidden fields that it holds."""
        text = self.get(page).text
        form = re.search(rf'<form[^>]*action="{re.escape(action)}">.*?</form>', text, re.S)
        assert form, text
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form[0]))
        headers = {"origin": HERE, "sec-fetch-site": "same-origin"}
        return self.client.post(action, data={**hidden, **fields}, headers=headers, follow_redirects=False)


@pytest.fixture
def browser(mailing: Mailing, tmp_path: Path) -> Callable[..., Browser]:
    """`browser(curators=[...])`: a browser of a page on which everything is allowed."""

    def make(**limits: Any) -> Browser:
        options: dict[str, Any] = {"actions": ["subscribe", "vote", "submit"], **limits}
        community = CommunitySettings(url=HERE, curators=[EDITOR], **options)
        settings = Settings(mail=mailing.settings, community=community, folder=tmp_path)
        service = Service(mailing.store, settings, mailing.settings, KEYS, PASSWORD)
        found = Community(service, ["sequence", "vision"])
        (tmp_path / "shelf").mkdir(exist_ok=True)
        app = create_app(
            settings,
            ledger=Ledger(tmp_path / "ledger.sqlite"),
            shelf=Shelf([tmp_path / "shelf"]),
            store=mailing.store,
            index=Index(tmp_path / "index"),
            routes=found.routes,
            context=found.context,
            personal=found.personal,
        )
        return Browser(app)

    return make


def mailed_path(mailing: Mailing, address: str) -> str:
    """The link in the latest letter, once it has arrived, as a path of the page."""
    ends = time.monotonic() + 5
    while not mailing.inbox.to(address) and time.monotonic() < ends:
        time.sleep(0.01)
    found = re.search(rf"{HERE}(/\S+\?t=\S+)", text_of(mailing.inbox.to(address)[-1]))
    assert found
    return found[1]


def signed_in(mailing: Mailing, page: Browser, address: str = READER) -> Browser:
    assert page.send("/sign-in", "/sign-in", address=address).status_code == 200
    assert page.send(mailed_path(mailing, address), "/sign-in/link").status_code == 303
    return page


def count(mailing: Mailing, table: sa.Table) -> int:
    with mailing.store.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_a_link_subscribes_by_its_button_alone_and_once(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    page = browser()
    page.send("/subscribe", "/subscribe", address=READER, every="day", group="sequence", search="state space")
    path = mailed_path(mailing, READER)
    for _ in range(2):  # a mail scanner
        assert page.get(path).status_code == 200
    assert active(mailing.store) == []
    spent = page.get(path).text
    assert page.send(path, "/subscribe/link").status_code == 200
    (found,) = active(mailing.store)
    assert (found.address, found.choices.every) == (READER, "day")
    assert (found.choices.groups, found.choices.searches) == (("sequence",), ("state space",))
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', spent))
    assert page.client.post("/subscribe/link", data=hidden).status_code == 400
    assert page.get(path).status_code == 400


def test_a_link_for_one_purpose_serves_no_other(mailing: Mailing, browser: Callable[..., Browser]) -> None:
    page = browser()
    page.send("/subscribe", "/subscribe", address=READER)
    token = mailed_path(mailing, READER).partition("?t=")[2]
    assert page.get(f"/sign-in/link?t={token}").status_code == 400
    assert page.get(f"/subscribe/link?t={token}x").status_code == 400
    assert page.get(f"/unsubscribe?t={token}").status_code == 400


def test_unsubscribing_takes_one_post_without_cookie_or_origin(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    page, name = browser(), subscribe(mailing.store, READER, utc_now())
    token = KEYS.sign("unsubscribe", name, now=utc_now())
    assert page.get(f"/unsubscribe?t={token}").status_code == 200
    assert count(mailing, SUBSCRIPTION) == 1
    page.client.cookies.clear()
    for _ in range(2):
        found = page.client.post(f"/unsubscribe?t={token}", data={"List-Unsubscribe": "One-Click"})
        assert found.status_code == 200
        assert count(mailing, SUBSCRIPTION) == 0


def test_one_vote_a_person_which_trending_counts(mailing: Mailing, browser: Callable[..., Browser]) -> None:
    page = browser()
    assert page.get(f"/vote?paper={PAPER}").status_code == 403
    signed_in(mailing, page)
    stale = page.get(f"/vote?paper={PAPER}").text
    assert page.send(f"/vote?paper={PAPER}", "/vote").status_code == 303
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', stale))
    page.client.post("/vote", data=hidden, headers={"origin": HERE})
    assert count(mailing, VOTE) == 1
    ranked = rank(mailing.store, ScoreSettings(), now=utc_now()).papers
    assert [(found.listing.key, found.votes) for found in ranked] == [(PAPER, 1)]
    assert "Take my vote back" in page.get("/vote?paper=paper-1").text  # by its id on the shelf
    assert "Take my vote back" in page.get(f"/vote?paper={PAPER}").text
    page.send(f"/vote?paper={PAPER}", "/vote")
    assert count(mailing, VOTE) == 0


def test_submissions_wait_for_curators_who_are_set_by_the_owner(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    page = signed_in(mailing, browser())
    page.send("/submit", "/submit", arxiv="https://arxiv.org/abs/2402.18668v2")
    assert "listed already" in page.send("/submit", "/submit", arxiv="2503.00001").text
    assert page.send("/submit", "/submit", arxiv="not one").status_code == 400
    assert submissions(mailing.store) == ["2402.18668"]
    assert page.get("/curate").status_code == 403
    editor = signed_in(mailing, browser(), EDITOR)
    assert "2402.18668" in editor.get("/curate").text
    note = "<script>alert(1)</script> & more"
    editor.send(f"/curate?paper={PAPER}", "/curate", featured="yes", note=note)
    assert mailing.store.listings([PAPER])[PAPER].featured
    shown = editor.get(f"/curate?paper={PAPER}").text
    assert "<script>" not in shown
    editor.send(f"/curate?paper={PAPER}", "/curate", hidden="yes")
    assert page.get(f"/vote?paper={PAPER}").status_code == 404
    editor.send("/curate", "/curate")
    assert submissions(mailing.store) == []


def test_after_signing_in_a_reader_is_where_they_were_going_and_nowhere_else(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    for wanted, reached in (
        (f"/vote?paper={PAPER}", f"/vote?paper={PAPER}"),
        ("/submit", "/submit"),
        ("/account", "/account"),
    ):
        page = browser(links_per_address=100)
        assert page.get(wanted).status_code == 403
        page.send(wanted, "/sign-in", address=READER)
        found = page.send(mailed_path(mailing, READER), "/sign-in/link")
        assert found.headers["location"] == reached
        mailing.inbox.accepted.clear()
    page = browser(links_per_address=100)
    for evil in ("//evil.example", "https://evil.example", "/vote?paper=x\r\nset-cookie: a=b", "/sign-out"):
        page.client.cookies.set("claimbench_next", quote(evil, safe="/:?="), domain="papers.example.org")
        page.send("/sign-in", "/sign-in", address=EDITOR)
        found = page.send(mailed_path(mailing, EDITOR), "/sign-in/link")
        assert found.headers["location"] == "/account"
        mailing.inbox.accepted.clear()
        page.send("/account", "/sign-out")


def test_what_became_of_a_submission_stands_on_the_account(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    page = signed_in(mailing, browser())
    for identity in ("2402.18668", "math.GT/0309136", "2402.00001"):
        page.send("/submit", "/submit", arxiv=identity)
    settle_submissions(mailing.store, {"2402.18668": "arXiv has no such paper"})
    decline(mailing.store, "math/0309136")
    shown = page.get("/account").text
    assert "refused: arXiv has no such paper" in shown
    assert "declined: a curator has declined it" in shown
    assert "waits for the next pull" in shown


def test_deleting_my_data_leaves_nothing_of_me(mailing: Mailing, browser: Callable[..., Browser]) -> None:
    subscribe(mailing.store, READER, utc_now())
    page = signed_in(mailing, browser())
    page.send(f"/vote?paper={PAPER}", "/vote")
    page.send("/submit", "/submit", arxiv="2402.18668")
    assert page.send("/account", "/account").status_code == 400
    assert page.send("/account", "/account", sure="yes").status_code == 303
    for table in (PERSON, VISIT, VOTE, SUBSCRIPTION, MAIL_LINK):
        assert count(mailing, table) == 0, table.name
    with mailing.store.read() as connection:
        assert connection.scalars(sa.select(SUBMISSION.c.person)).all() == [None]
    assert page.get("/account").status_code == 403
    with mailing.store.write() as connection:
        connection.exec_driver_sql("SELECT 1")
    with mailing.store.read() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = [
            str(row)
            for table in sa.inspect(connection).get_table_names()
            for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"')
        ]
    assert not any(READER in row or KEYS.address_hash(READER) in row for row in rows)


def test_forms_of_other_sites_and_of_other_browsers_are_refused(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    page = signed_in(mailing, browser())
    text = page.get(f"/vote?paper={PAPER}").text
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', text))
    fields = {**hidden, "paper": PAPER, "want": "True"}
    post = page.client.post
    assert post("/vote", data=fields, headers={"origin": "https://evil.example"}).status_code == 403
    assert post("/vote", data=fields, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert post("/vote", data={**fields, "form_token": ""}).status_code == 403
    assert post("/vote", json=fields).status_code == 403
    foreign = KEYS.sign("form", KEYS.digest("form", "another"), now=utc_now())
    assert post("/vote", data={**fields, "form_token": foreign}).status_code == 403
    assert count(mailing, VOTE) == 0
    assert post("/vote", data=fields, headers={"origin": HERE}, follow_redirects=False).status_code == 303


def test_known_unknown_and_overasked_addresses_get_the_same_answer(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    subscribe(mailing.store, READER, utc_now())
    page = browser(links_per_address=1)
    page.send("/subscribe", "/subscribe", address="warm@example.net")

    def main(response: Any) -> tuple[int, str]:
        return response.status_code, response.text

    known = main(page.send("/subscribe", "/subscribe", address=READER))
    assert known == main(page.send("/subscribe", "/subscribe", address="new@example.net"))
    assert known == main(page.send("/subscribe", "/subscribe", address=READER))
    mailed_path(mailing, "new@example.net")
    assert len(mailing.inbox.to(READER)) == 1


def test_a_client_that_asks_too_often_waits(mailing: Mailing, browser: Callable[..., Browser]) -> None:
    page = browser(links_per_client=2)
    asked = [page.send("/sign-in", "/sign-in", address=f"a{n}@example.net").status_code for n in range(3)]
    assert asked == [200, 200, 429]


def test_addresses_are_in_no_log_no_twin_and_no_page(
    mailing: Mailing, browser: Callable[..., Browser], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "claimbench")
    mailing.inbox.fail["RCPT"] = [f"550 5.1.1 no {READER}"]
    page = browser()
    page.send("/sign-in", "/sign-in", address=READER)
    ends = time.monotonic() + 5
    while not mailing.inbox.seen["RCPT"] and time.monotonic() < ends:
        time.sleep(0.01)
    signed_in(mailing, page, EDITOR)
    judge(mailing.store, "claim-one")
    texts = [page.get(path).text for path in ("/", "/index.json", "/account", "/curate", "/sign-in")]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("claimbench")]
    assert not any(word in text for text in [*texts, *said] for word in (READER, EDITOR))


def test_a_page_whose_owner_allows_nothing_only_reads(
    mailing: Mailing, browser: Callable[..., Browser]
) -> None:
    assert open_community(mailing.store, Settings(), Shelf([])) is None
    page = browser(actions=["subscribe"])
    assert page.get("/vote").status_code == 404
    assert page.client.post("/", data={"a": "b"}).status_code == 405
    shown = page.get("/subscribe")
    assert "script" not in shown.headers["content-security-policy"]
    assert shown.headers["cache-control"] == "no-store"
    cookie = shown.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "secure", "samesite=lax"))
