"""Submitted papers, asked for by their ids from a server of this machine: listed, or refused with the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from feeds import Answer, Handler, Server, arxiv_entry, arxiv_handler, arxiv_page, by_id_handler

from claimbench.community.papers import Submission, curate, decline, submissions, submissions_of, submit
from claimbench.community.schema import PERSON
from claimbench.community.store import Person
from claimbench.feed.pull import pull
from claimbench.feed.settings import Settings, load_settings
from claimbench.feed.store import PageStore
from claimbench.feed.submitted import asked_source

Serve = Callable[[Handler], Server]
DAY = date(2025, 1, 1)
NOW = datetime(2025, 1, 2, tzinfo=UTC)
SOMEBODY = Person(1, "a hash")
NOTHING = "arXiv has no such paper"
RUN = "import sys; from claimbench.feed.cli import app; app(sys.argv[1:])"


def answering(by_id: Handler, by_day: Handler | None = None) -> Handler:
    """An arXiv for both kinds of question."""
    daily = by_day or arxiv_handler({})
    return lambda path, query: (by_id if "id_list" in query else daily)(path, query)


def settings_for(folder: Path, server: Server, more: str = "") -> Path:
    path = folder / "page.toml"
    path.write_text(
        f'[fetch]\nbackoff = 0\nattempts = 3\n[[source]]\nname = "arxiv"\nkind = "arxiv"\nevery = 0\n'
        f'url = "{server.url}/q"\ncategories = ["cs.LG"]\npage_size = 3\n{more}'
    )
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PageStore]:
    with PageStore(tmp_path / "p.sqlite") as found:
        with found.write() as connection:
            person = {"id": SOMEBODY.id, "address": "a@example.org", "address_hash": SOMEBODY.address_hash}
            connection.execute(PERSON.insert().values(**person, created="2025-01-01T00:00:00+00:00"))
        yield found


def submit_all(store: PageStore, *ids: str) -> None:
    for name in ids:
        submit(store, SOMEBODY, name, NOW)


def fates(store: PageStore) -> dict[str, tuple[str, str]]:
    return {found.arxiv: (found.state, found.reason) for found in submissions_of(store, SOMEBODY)}


def asked_ids(server: Server) -> list[list[str]]:
    queries = [parse_qs(urlsplit(path).query) for path in server.asked]
    return [query["id_list"][0].split(",") for query in queries if "id_list" in query]


def test_what_was_submitted_is_listed_or_refused_with_the_reason(
    tmp_path: Path, serve: Serve, store: PageStore
) -> None:
    known = {
        "2402.18668": arxiv_entry("2402.18668v3"),
        "math/0309136": arxiv_entry("math/0309136v1"),
        "2402.00002": arxiv_entry("2402.00002v1", title=""),
    }
    server = serve(answering(by_id_handler(known, unreadable=("2402.0001",))))
    submit_all(store, "2402.18668", "math/0309136", "2402.00002", "2402.0001", "2402.99999")
    day, found = pull(store, load_settings(settings_for(tmp_path, server)), since=DAY, until=DAY)
    assert (day.source, found.source, found.state) == ("arxiv", "submitted", "done")
    assert fates(store) == {
        "2402.18668": ("listed", ""),
        "math/0309136": ("listed", ""),
        "2402.00002": ("refused", "it has no title"),
        "2402.0001": ("refused", "arXiv cannot read this id"),
        "2402.99999": ("refused", NOTHING),
    }
    listed = {listing.arxiv: listing for listing in store.newest()}
    assert sorted(listed) == ["2402.18668", "math/0309136"]
    assert (listed["2402.18668"].version, listed["2402.18668"].abstract) == (3, "We measure things.")
    assert found.counts == {"pages": 2, "entries": 2, "added": 2, "changed": 0, "problems": 3}
    assert all(len(ids) <= 3 for ids in asked_ids(server))
    before = len(server.asked)
    assert [
        run.source for run in pull(store, load_settings(tmp_path / "page.toml"), since=DAY, until=DAY)
    ] == ["arxiv"]
    assert len(server.asked) == before + 1  # nothing waits: nobody is asked by id


def test_what_is_missing_twice_is_missing(tmp_path: Path, serve: Serve, store: PageStore) -> None:
    """The API now and then leaves out what it has; it does so here the first time."""
    whole = by_id_handler({f"2402.0000{n}": arxiv_entry(f"2402.0000{n}v1") for n in range(3)})

    def handle(path: str, query: dict[str, str]) -> Answer:
        if len(asked_ids(server)) == 1:
            return 200, {}, arxiv_page([arxiv_entry("2402.00001v1")], 3)
        return whole(path, query)

    server = serve(answering(handle))
    submit_all(store, "2402.00000", "2402.00001", "2402.00002")
    pull(store, load_settings(settings_for(tmp_path, server)), since=DAY, until=DAY)
    assert set(fates(store).values()) == {("listed", "")}
    assert asked_ids(server) == [["2402.00000", "2402.00001", "2402.00002"], ["2402.00000", "2402.00002"]]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((503, {}, b""), "HTTP 503, 3 times"),
        ((200, {}, b"<html>"), "no well-formed XML"),
        ((400, {}, arxiv_page([])), "HTTP 400"),
        (
            (
                200,
                {},
                arxiv_page(["<entry><id>http://arxiv.org/api/errors</id><summary>down</summary></entry>"]),
            ),
            "arXiv answers: down",
        ),
    ],
)
def test_an_arxiv_that_does_not_answer_refuses_nothing(
    tmp_path: Path, serve: Serve, store: PageStore, answer: Answer, reason: str
) -> None:
    server = serve(answering(lambda path, query: answer))
    submit_all(store, "2402.00001")
    _, failed = pull(store, load_settings(settings_for(tmp_path, server)), since=DAY, until=DAY)
    assert failed.state == "failed"
    assert reason in failed.reason
    assert submissions(store) == ["2402.00001"]


def test_what_was_refused_may_be_submitted_again_and_what_was_declined_not(
    tmp_path: Path, serve: Serve, store: PageStore
) -> None:
    known: dict[str, str] = {}
    server = serve(answering(by_id_handler(known)))
    settings = load_settings(settings_for(tmp_path, server))
    submit_all(store, "2402.00001", "2402.00002")
    decline(store, "2402.00002")
    pull(store, settings, since=DAY, until=DAY)
    assert fates(store)["2402.00001"] == ("refused", NOTHING)
    submit_all(store, "2402.00001", "2402.00002")
    assert submissions(store) == ["2402.00001"]
    known["2402.00001"] = arxiv_entry("2402.00001v1")
    pull(store, settings, since=DAY, until=DAY)
    assert fates(store) == {
        "2402.00001": ("listed", ""),
        "2402.00002": ("declined", "a curator has declined it"),
    }


def test_what_a_curator_removed_stays_removed(tmp_path: Path, serve: Serve, store: PageStore) -> None:
    server = serve(answering(by_id_handler({}), arxiv_handler({"20250101": [arxiv_entry("2501.00001v1")]})))
    settings = load_settings(settings_for(tmp_path, server))
    pull(store, settings, since=DAY, until=DAY)
    curate(store, "arxiv:2501.00001", featured=False, hidden=True, note="")
    submit_all(store, "2501.00001")
    pull(store, settings, since=DAY, until=DAY)
    assert submissions_of(store, SOMEBODY) == [
        Submission("2501.00001", "declined", "a curator has declined it")
    ]
    assert store.listings(["arxiv:2501.00001"])["arxiv:2501.00001"].hidden
    assert asked_ids(server) == []


def test_where_they_are_asked_for(tmp_path: Path, serve: Serve, store: PageStore) -> None:
    """By the arXiv among the sources, and not when others are pulled; arXiv itself where none is configured."""
    server = serve(answering(by_id_handler({"2402.00001": arxiv_entry("2402.00001v1")})))
    (tmp_path / "empty.xml").write_text('<feed xmlns="http://www.w3.org/2005/Atom"></feed>')
    lab = '[[source]]\nname = "lab"\nkind = "rss"\npath = "empty.xml"\n'
    settings = load_settings(settings_for(tmp_path, server, lab))
    submit_all(store, "2402.00001")
    assert [run.source for run in pull(store, settings, sources=["lab"])] == ["lab"]
    assert submissions(store) == ["2402.00001"]
    assert asked_source(settings).name == "arxiv"
    without = Settings(source=settings.source[1:], folder=tmp_path)
    assert asked_source(without).address == "https://export.arxiv.org/api/query"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_pull_killed_among_submissions_goes_on(tmp_path: Path, serve: Serve, store: PageStore) -> None:
    """Killed while it waits for the second batch: the first is listed and is not asked for again."""
    reached, killed = threading.Event(), threading.Event()
    whole = by_id_handler({f"2402.0000{n}": arxiv_entry(f"2402.0000{n}v1") for n in range(6)})

    def handle(path: str, query: dict[str, str]) -> Answer:
        if len(asked_ids(server)) == 2 and not killed.is_set():
            reached.set()
            killed.wait(20)
        return whole(path, query)

    server = serve(answering(handle))
    where = settings_for(tmp_path, server)
    submit_all(store, *(f"2402.0000{n}" for n in range(6)))
    command = [sys.executable, "-c", RUN, "pull", "--config", str(where)]
    command += ["--store", str(tmp_path / "p.sqlite"), "--since", str(DAY), "--until", str(DAY)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert reached.wait(30), child.communicate()
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        killed.set()
    assert sorted(fates(store).values()) == [("listed", "")] * 3 + [("waiting", "")] * 3
    pull(store, load_settings(where), since=DAY, until=DAY)
    assert set(fates(store).values()) == {("listed", "")}
    assert asked_ids(server)[2:] == [["2402.00003", "2402.00004", "2402.00005"]]
