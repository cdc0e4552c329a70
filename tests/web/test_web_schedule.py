"""The daily pull and its digests: once a day, whatever fails, one line each, by one of several, until it is stopped."""

from __future__ import annotations

import threading
import time as clocks
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from feeds import Answer, Handler, Server, arxiv_entry, arxiv_handler
from readers import Mailing, subscribe
from smtp_server import PASSWORD

from claimbench.community.service import PASSWORD as PASSWORD_VARIABLE
from claimbench.community.settings import CommunitySettings
from claimbench.errors import UserError
from claimbench.feed.lock import pulling
from claimbench.feed.settings import FetchSettings, PullSettings, Settings, SourceSettings
from claimbench.ledger import Ledger
from claimbench.search import Index
from claimbench.shelf import Shelf
from claimbench.web.schedule import Schedule, last_moment, time_of_day
from claimbench.web.site import Site

READER = "reader@example.net"
DAY = timedelta(days=1)
AT = time(6, 30)


@dataclass
class Clock:
    """Begins with the real one, which the store's pulls are stamped by; days are added by hand."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Scheduled:
    """A page whose schedule is looked at by hand."""

    mailing: Mailing
    server: Server
    site: Site
    clock: Clock
    at: time  # some minutes ago

    def make(self) -> Schedule:
        return Schedule(self.site, self.at, clock=self.clock)

    @property
    def pulls(self) -> int:
        return len(self.server.asked)


@pytest.fixture
def scheduled(
    mailing: Mailing, source: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Scheduled]:
    monkeypatch.setenv("CLAIMBENCH_SECRET", "k" * 40)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)

    def make(handler: Handler | None = None) -> Scheduled:
        today = datetime.now(UTC)
        papers = {f"{today:%Y%m%d}": [arxiv_entry("2501.00001v1", published=f"{today:%Y-%m-%d}T00:00:00Z")]}
        server = source(handler or arxiv_handler(papers))
        asked = SourceSettings(
            name="arxiv", kind="arxiv", url=f"{server.url}/q", categories=["cs.LG"], every=0
        )
        settings = Settings(
            source=[asked],
            fetch=FetchSettings(backoff=0, attempts=1),
            pull=PullSettings(first_days=1, overlap_days=0),
            mail=mailing.settings,
            community=CommunitySettings(url="https://papers.example.org"),
            folder=tmp_path,
        )
        (tmp_path / "shelf").mkdir(exist_ok=True)
        index, ledger = Index(tmp_path / "index"), Ledger(tmp_path / "l.sqlite")
        site = Site(settings, ledger, Shelf([tmp_path / "shelf"]), mailing.store, index)
        at = (today - timedelta(minutes=3)).time().replace(second=0, microsecond=0)
        return Scheduled(mailing, server, site, Clock(today), at)

    return make


def publish(page: Scheduled) -> None:
    """Something to tell: a paper of yesterday."""
    store = page.mailing.store
    (found,) = store.listings(["arxiv:2503.00001"]).values()
    store.put([replace(found, published=f"{page.clock.now - DAY:%Y-%m-%d}")])


def test_times_of_day() -> None:
    assert time_of_day("--schedule", "06:30") == AT
    for text in ("25:00", "half past six", "6.30", ""):
        with pytest.raises(UserError, match=r"--schedule: .* is no time of day; write it as 06:30"):
            time_of_day("--schedule", text)
    noon = datetime(2025, 3, 3, 12, tzinfo=UTC)
    assert last_moment(AT, noon) == datetime(2025, 3, 3, 6, 30, tzinfo=UTC)
    assert last_moment(time(12), noon) == noon
    assert last_moment(time(12, 1), noon) == datetime(2025, 3, 2, 12, 1, tzinfo=UTC)


def test_a_day_pulls_and_sends_once_and_says_one_line(
    scheduled: Callable[..., Scheduled], capsys: pytest.CaptureFixture[str]
) -> None:
    page = scheduled()
    subscribe(page.mailing.store, READER, page.clock.now - DAY)
    publish(page)
    schedule = page.make()
    schedule.look()
    (line,) = capsys.readouterr().err.splitlines()
    assert "UTC: schedule: arxiv 1 new; 1 digests composed, 1 letters sent, 0 later" in line
    assert "arxiv:2501.00001" in page.mailing.store.listings(["arxiv:2501.00001"])
    assert len(page.mailing.inbox.to(READER)) == 1
    schedule.look()
    page.make().look()  # after a restart
    assert (page.pulls, len(page.mailing.inbox.to(READER))) == (1, 1)
    assert capsys.readouterr().err.count("schedule:") == 1


def test_what_fails_is_said_and_stops_nothing(
    scheduled: Callable[..., Scheduled], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = scheduled(lambda path, query: (403, {}, b""))
    subscribe(page.mailing.store, READER, page.clock.now - DAY)
    page.mailing.inbox.fail["MAIL"] = ["550 5.7.1 no"]
    schedule = page.make()
    with monkeypatch.context() as broken:
        broken.setattr("claimbench.web.schedule.sync_shelf", lambda *_: 1 / 0)
        schedule.look()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "schedule: " in line]
    assert "shelf failed, as said above" in line
    assert "arxiv 0 new (failed: " in line
    assert "HTTP 403" in line
    assert "0 digests composed" in line
    with pulling(page.site.store):
        page.clock.now += DAY
        schedule.look()
    assert "another pull is under way" in capsys.readouterr().err
    page.clock.now += DAY
    schedule.look()
    assert page.pulls == 2


def test_letters_that_were_put_off_are_tried_again_between_two_days(
    scheduled: Callable[..., Scheduled],
) -> None:
    page = scheduled()
    subscribe(page.mailing.store, READER, page.clock.now - DAY)
    publish(page)
    page.mailing.inbox.fail["RCPT"] = ["450 4.2.0 later"]
    schedule = page.make()
    schedule.look()
    assert page.mailing.inbox.accepted == []
    page.clock.now += timedelta(seconds=59)
    schedule.look()
    assert page.mailing.inbox.accepted == []  # the server is given the minute that the settings say
    page.clock.now += timedelta(seconds=2)
    schedule.look()
    assert (len(page.mailing.inbox.to(READER)), page.pulls) == (1, 1)


def test_one_of_several_does_it_until_it_is_stopped(scheduled: Callable[..., Scheduled]) -> None:
    """The second of two never pulls; a stopped one ends its pull after the page and gives up the lock."""
    reached, answered = threading.Event(), threading.Event()
    whole = arxiv_handler({})

    def handle(path: str, query: dict[str, str]) -> Answer:
        reached.set()
        answered.wait(20)
        return whole(path, query)

    page = scheduled(handle)
    two = [page.make() for _ in range(2)]
    for one in two:
        one.start()
    assert reached.wait(10)
    clocks.sleep(0.2)
    for one in two:
        one.stop()
    answered.set()
    ends = clocks.monotonic() + 10
    threads: list[Any] = [one._thread for one in two]
    while any(thread.is_alive() for thread in threads) and clocks.monotonic() < ends:
        clocks.sleep(0.01)
    assert not any(thread.is_alive() for thread in threads)
    assert page.pulls == 1
    with pulling(page.site.store):
        (cut,) = page.site.store.pulls()
    assert cut.state == "running"


def test_mail_that_cannot_be_used_is_said_at_the_start(
    scheduled: Callable[..., Scheduled], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = scheduled()
    monkeypatch.delenv(PASSWORD_VARIABLE)
    with pytest.raises(UserError, match="mail: user is set and no password"):
        page.make()
