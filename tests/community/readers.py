"""A page with a paper and verdicts, and readers of it, for the tests of mail and accounts."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import trustme
from smtp_server import PASSWORD, USER, Inbox, start

from claimbench.community.digest import queue_digests
from claimbench.community.letters import Letters
from claimbench.community.outbox import Sender, Sent
from claimbench.community.schema import LETTER, MAIL_LINK, SUBSCRIPTION
from claimbench.community.settings import MailSettings
from claimbench.community.store import Choices, ask_link, confirm
from claimbench.community.tokens import Keys
from claimbench.feed.listing import Listing
from claimbench.feed.schema import MEASURED
from claimbench.feed.settings import ScoreSettings
from claimbench.feed.store import PageStore

NOW = datetime(2025, 3, 3, 6, 0, tzinfo=UTC)  # a Monday
DAY = timedelta(days=1)
HERE = "https://papers.example.org"
KEYS = Keys("k" * 40)
DAILY = Choices(every="day")


def listing(identity: str, title: str, group: str = "sequence", published: str = "2025-03-02") -> Listing:
    return Listing(
        key=f"arxiv:{identity}",
        title=title,
        published=published,
        link=f"https://arxiv.org/abs/{identity}",
        described="arxiv",
        arxiv=identity,
        abstract="We show things.",
        authors=("Ada One",),
        group_name=group,
        updated=published,
        added=f"{published}T00:00:00+00:00",
        shelf_id=f"paper-{identity[-1]}",
    )


def judge(store: PageStore, claim: str, *, paper: str = "arxiv:2503.00001", judged: datetime = NOW) -> None:
    """Write what `sync_shelf` writes of a judged set."""
    identity = store.listings([paper])[paper].id
    with store.write() as connection:
        connection.execute(
            MEASURED.insert().values(
                set_uid=f"set-{claim}",
                listing=identity,
                claim=claim,
                scale="laptop",
                state="holds",
                judged=judged.isoformat(timespec="seconds"),
            )
        )


def subscribe(store: PageStore, address: str, now: datetime, choices: Choices = DAILY) -> str:
    """Ask for the link, and open it; returns the subscription's id."""
    ask_link(store, KEYS, "subscribe", address, now, choices)
    where = MAIL_LINK.c.address == address
    with store.read() as connection:
        name = connection.scalar(sa.select(MAIL_LINK.c.id).where(where, MAIL_LINK.c.used.is_(None)))
    assert name is not None
    assert confirm(store, name, now)
    with store.write() as connection:
        connection.execute(LETTER.delete().where(LETTER.c.link == name))
        found = connection.scalar(sa.select(SUBSCRIPTION.c.id).where(SUBSCRIPTION.c.address == address))
    assert found is not None
    return found


def compose(store: PageStore, mail: MailSettings, now: datetime) -> dict[str, int]:
    letters = Letters(mail, KEYS, HERE)
    return queue_digests(store, ScoreSettings(), KEYS, lambda d, s: letters.digest(d, s, now), now)


def send(store: PageStore, mail: MailSettings, now: datetime, password: str, folder: Path) -> Sent:
    letters = Letters(mail, KEYS, HERE)
    sender = Sender(
        store,
        mail,
        password=password,
        folder=folder,
        make_link=lambda row, name: letters.link(row, name, now),
        clock=lambda: now,
    )
    return sender.run()


def states(store: PageStore) -> list[tuple[str, str, str]]:
    """Period, state and reason of every letter, oldest first."""
    with store.read() as connection:
        rows = connection.execute(sa.select(LETTER).order_by(LETTER.c.id))
        return [(row.period or "", row.state, row.reason) for row in rows]


@dataclass
class Mailing:
    """A page, its server, and what they do."""

    store: PageStore
    settings: MailSettings
    inbox: Inbox
    folder: Path

    def compose(self, now: datetime = NOW) -> dict[str, int]:
        return compose(self.store, self.settings, now)

    def send(self, now: datetime = NOW, password: str = PASSWORD) -> Sent:
        return send(self.store, self.settings, now, password, self.folder)


@contextmanager
def open_mailing(folder: Path, authority: trustme.CA) -> Iterator[Mailing]:
    """Two listed papers, no verdict, no subscriber; and an SMTP server that is trusted by authority.pem."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    (folder / "authority.pem").write_bytes(authority.cert_pem.bytes())
    inbox = Inbox()
    controller = start(inbox, context)
    settings = MailSettings(
        host="127.0.0.1",
        port=controller.port,
        sender="papers@example.org",
        user=USER,
        certificates="authority.pem",
        timeout=10,
        backoff=60,
    )
    with PageStore(folder / "page.sqlite") as store:
        store.put([listing("2503.00001", "Alpha works"), listing("2503.00002", "Beta works", "vision")])
        yield Mailing(store, settings, inbox, folder)
    controller.stop()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mailing(tmp_path: Path, authority: trustme.CA) -> Iterator[Mailing]:
    """Two listed papers, a mail server, no verdict, no subscriber."""
    with open_mailing(tmp_path, authority) as found:
        yield found
