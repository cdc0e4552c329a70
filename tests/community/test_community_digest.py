"""What a digest says, and when: choices, periods, late verdicts, an older store, and the commands."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from readers import DAY, NOW, Mailing, judge, listing, states, subscribe
from smtp_server import PASSWORD, text_of
from typer.testing import CliRunner

from claimbench.community import digest as digests
from claimbench.community.cli import app
from claimbench.community.digest import news_after, window_since
from claimbench.community.papers import settle_submissions, submissions
from claimbench.community.schema import SUBMISSION
from claimbench.community.searches import Finds, holds_words, wanted, with_index
from claimbench.community.store import Choices, active
from claimbench.community.tokens import stamp, utc_now
from claimbench.errors import UserError
from claimbench.feed.listing import Listing
from claimbench.feed.schema import METADATA, SCHEMA_VERSION
from claimbench.feed.store import PageStore
from claimbench.search import Index, from_listings

READER = "reader@example.net"


def test_a_verdict_that_reaches_the_page_late_is_in_the_next_digest(mailing: Mailing) -> None:
    subscribe(mailing.store, READER, NOW - DAY)
    judge(mailing.store, "claim-one")
    mailing.compose()
    mailing.send()
    judge(mailing.store, "claim-late", judged=NOW - 5 * DAY)
    mailing.compose(NOW + DAY)
    mailing.send(NOW + DAY)
    assert "claim-late" in text_of(mailing.inbox.to(READER)[1])
    assert "claim-one" not in text_of(mailing.inbox.to(READER)[1])


def test_verdicts_from_before_the_subscription_are_not_news(mailing: Mailing) -> None:
    judge(mailing.store, "claim-old")
    subscribe(mailing.store, READER, NOW - DAY)
    mailing.compose()
    mailing.send()
    assert "claim-old" not in text_of(mailing.inbox.to(READER)[0])


def test_a_digest_too_long_for_one_letter_goes_on_in_the_next(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOST_VERDICTS", 2)
    subscribe(mailing.store, READER, NOW - DAY)
    for number in range(5):
        judge(mailing.store, f"claim-{number}")
    for day in range(3):
        mailing.compose(NOW + day * DAY)
        mailing.send(NOW + day * DAY)
    texts = [text_of(message) for message in mailing.inbox.to(READER)]
    told = [[n for n in range(5) if f"claim-{n}" in text] for text in texts]
    assert told == [[0, 1], [2, 3], [4]]
    assert "And 3 more, in the next digest." in texts[0]


def test_weekly_is_once_a_week_and_choices_are_kept_to(mailing: Mailing) -> None:
    subscribe(mailing.store, "week@example.net", NOW - DAY, Choices(("vision",)))
    subscribe(mailing.store, "words@example.net", NOW - DAY, Choices(searches=("WORKS alpha",), every="day"))
    judge(mailing.store, "claim-alpha")
    judge(mailing.store, "claim-beta", paper="arxiv:2503.00002")
    for day in range(7):
        mailing.compose(NOW + day * DAY)
        mailing.send(NOW + day * DAY)
    (weekly,) = mailing.inbox.to("week@example.net")
    assert "claim-beta" in text_of(weekly)
    assert "claim-alpha" not in text_of(weekly)
    first = text_of(mailing.inbox.to("words@example.net")[0])
    assert "claim-alpha" in first
    assert "claim-beta" not in first
    assert "2025-W10" in [period for period, _, _ in states(mailing.store)]


def test_nothing_to_tell_sends_nothing(mailing: Mailing) -> None:
    subscribe(mailing.store, READER, NOW - DAY, Choices(("theory",), every="day"))
    assert mailing.compose() == {"queued": 0, "waiting": 0, "done": 0, "empty": 1}


def test_every_day_is_in_the_window_of_one_digest() -> None:
    for days, window in [(0, "day"), (1, "day"), (2, "week"), (7, "week"), (8, "month"), (99, "month")]:
        assert window_since(stamp(NOW - days * DAY), NOW) == window
    assert window_since(stamp(NOW - timedelta(hours=7)), NOW) == "day"


def test_markup_in_a_title_stays_text(mailing: Mailing) -> None:
    bad = "<script>alert(1)</script>\r\nBcc: x@example.org\r\n.\r\n& é"
    mailing.store.put([listing("2503.00003", bad)])
    subscribe(mailing.store, READER, NOW - DAY)
    mailing.compose()
    assert mailing.send().accepted == 1
    (message,) = mailing.inbox.to(READER)
    assert message["Bcc"] is None
    assert "<script>" not in text_of(message, "html")
    assert "& é" in text_of(message)


def test_numbers_of_news_never_change(mailing: Mailing) -> None:
    subscribe(mailing.store, READER, NOW - DAY)
    judge(mailing.store, "claim-one")
    mailing.compose()
    before = news_after(mailing.store, 0, 9)
    judge(mailing.store, "claim-two", judged=NOW - 9 * DAY)
    mailing.compose(NOW + DAY)
    assert [found.serial for found in before] == [1]
    assert [found.claim for found in news_after(mailing.store, 0, 9)] == ["claim-one", "claim-two"]


def test_a_store_from_before_gets_the_tables(tmp_path: Path) -> None:
    PageStore(tmp_path / "old.sqlite").close()
    added = {"person", "visit", "mail_link", "subscription", "news", "letter", "submission", "rate"}
    assert added < set(METADATA.tables)
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as old:
        for name in added:
            old.execute(f"DROP TABLE {name}")
        old.execute("UPDATE meta SET value = '1' WHERE name = 'schema'")
        old.commit()
    with PageStore(tmp_path / "old.sqlite") as store, store.read() as connection:
        assert added < set(sa.inspect(connection).get_table_names())
        version = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'schema'").scalar()
    assert version == str(SCHEMA_VERSION)


def test_a_store_of_the_second_version_gets_reasons_and_an_index(tmp_path: Path) -> None:
    PageStore(tmp_path / "old.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as old:
        old.execute("DROP INDEX listing_featured")
        old.execute("ALTER TABLE submission DROP COLUMN reason")
        old.execute(
            "INSERT INTO submission VALUES ('2402.18668', NULL, 'waiting', '2025-03-01T00:00:00+00:00')"
        )
        old.execute("UPDATE meta SET value = '2' WHERE name = 'schema'")
        old.commit()
    with PageStore(tmp_path / "old.sqlite") as store:
        assert submissions(store) == ["2402.18668"]
        settle_submissions(store, {"2402.18668": "arXiv has no such paper"})
        with store.read() as connection:
            assert connection.scalar(sa.select(SUBMISSION.c.reason)) == "arXiv has no such paper"
            assert "listing_featured" in {i["name"] for i in sa.inspect(connection).get_indexes("listing")}


def test_saved_searches_ask_the_index_where_there_is_one(tmp_path: Path) -> None:
    """Word forms and filters, and every word; what the index does not know yet is looked at by its words."""
    papers = [
        replace(listing("2503.00001", "Pruned networks generalise"), shelf_id=None),
        replace(
            listing("2503.00002", "Networks of sparse experts", "vision"), shelf_id=None, authors=("Bo Two",)
        ),
    ]
    later = replace(listing("2503.00003", "Pruning again"), shelf_id=None)
    index = Index(tmp_path / "index")
    index.build(from_listings(papers))
    finds = with_index(index)

    def found(search: str, by: Finds) -> list[str]:
        return [paper.arxiv[-1] for paper in [*papers, later] if by(search, paper)]

    assert found("network pruning", finds) == ["1"]
    assert found("network pruning", holds_words) == []
    assert found("author:Two networks", finds) == ["2"]
    assert found("group:vision", finds) == ["2"]
    assert found("pruning", finds) == ["1", "3"]
    assert found("pruning experts", finds) == []
    assert found("networks", holds_words) == ["1", "2"]
    assert wanted(Choices(("vision",), ("pruning",)), papers[0], finds)
    assert wanted(Choices(), papers[1], finds)
    assert not wanted(Choices((), ("author:Two",)), papers[0], finds)


def test_the_commands_preview_and_send(mailing: Mailing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIMBENCH_PAGE", str(mailing.folder / "page.sqlite"))
    monkeypatch.setenv("CLAIMBENCH_SECRET", "k" * 40)
    today = utc_now()
    fresh: Listing = listing("2503.00004", "Gamma works", published=(today - DAY).date().isoformat())
    mailing.store.put([fresh])
    subscribe(mailing.store, READER, today - DAY)
    judge(mailing.store, "claim-one", judged=today)
    run, page = CliRunner().invoke, mailing.folder / "digest.html"
    shown = run(app, ["preview", "--every", "day", "--html", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "Gamma works" in shown.output
    assert "claim-one" in page.read_text()
    assert mailing.inbox.accepted == []
    assert isinstance(run(app, ["send"]).exception, UserError)
    mail = mailing.settings
    config = mailing.folder / "page.toml"
    config.write_text(
        f'[mail]\nhost = "{mail.host}"\nport = {mail.port}\nsender = "{mail.sender}"\nuser = "{mail.user}"\n'
        'certificates = "authority.pem"\npassword_file = "password"\n'
        '[community]\nurl = "https://papers.example.org"\n'
    )
    assert "set CLAIMBENCH_SMTP_PASSWORD" in str(run(app, ["send", "--config", str(config)]).exception)
    (mailing.folder / "password").write_text(PASSWORD)
    (mailing.folder / "password").chmod(0o600)
    sent = run(app, ["send", "--config", str(config), "--json"])
    assert sent.exit_code == 0, sent.output
    assert json.loads(sent.stdout)["accepted"] == 1
    assert json.loads(run(app, ["send", "--config", str(config), "--json"]).stdout)["accepted"] == 0
    assert active(mailing.store)[0].told == 1
    assert len(mailing.inbox.to(READER)) == 1
