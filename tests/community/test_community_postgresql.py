"""Accounts, votes and digests with a page store on a PostgreSQL server, by the same steps as in a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
import trustme
from readers import DAY, KEYS, NOW, Mailing, judge, listing, open_mailing, states, subscribe

from claimbench.community import papers
from claimbench.community import store as people
from claimbench.community.rates import allow
from claimbench.community.schema import MAIL_LINK, PERSON, VISIT
from claimbench.feed.schema import VOTE
from claimbench.feed.store import PageStore


@pytest.fixture
def mailing_on_server(tmp_path: Path, authority: trustme.CA, postgres_url: str) -> Iterator[Mailing]:
    with open_mailing(tmp_path, authority) as found, PageStore(postgres_url) as store:
        store.put([listing("2503.00001", "Alpha works"), listing("2503.00002", "Beta works", "vision")])
        yield replace(found, store=store)


def link(store: PageStore, address: str) -> str:
    people.ask_link(store, KEYS, "sign-in", address, NOW)
    with store.read() as connection:
        where = (MAIL_LINK.c.address == address) & MAIL_LINK.c.used.is_(None)
        return str(connection.scalar(sa.select(MAIL_LINK.c.id).where(where)))


def test_a_reader_signs_in_votes_submits_and_is_forgotten(mailing_on_server: Mailing) -> None:
    store = mailing_on_server.store
    name = link(store, "reader@example.net")
    token = people.sign_in(store, name, NOW)
    assert token is not None
    assert people.sign_in(store, name, NOW) is None
    person = people.visitor(store, token, NOW)
    assert person is not None
    assert papers.vote(store, person, "arxiv:2503.00001", NOW)
    assert papers.has_voted(store, person, "arxiv:2503.00001")
    assert papers.submit(store, person, "2503.00009", NOW) == "noted"
    assert papers.submit(store, person, "2503.00001", NOW) == "listed"
    people.delete_person(store, person)
    with store.read() as connection:
        left = [connection.scalar(sa.select(sa.func.count()).select_from(t)) for t in (PERSON, VISIT, VOTE)]
    assert left == [0, 0, 0]


def test_a_digest_tells_of_a_verdict_once(mailing_on_server: Mailing) -> None:
    mailing = mailing_on_server
    subscribe(mailing.store, "reader@example.net", NOW - DAY)
    judge(mailing.store, "claim-one")
    assert mailing.compose()["queued"] == 1
    assert mailing.compose()["queued"] == 0
    mailing.send()
    mailing.send()
    assert [state for _, state, _ in states(mailing.store)] == ["accepted"]
    assert len(mailing.inbox.to("reader@example.net")) == 1


def test_of_many_that_come_at_once_one_uses_a_link_and_so_many_are_counted(
    mailing_on_server: Mailing,
) -> None:
    store = mailing_on_server.store
    name = link(store, "reader@example.net")
    tokens: list[str | None] = []
    allowed: list[bool] = []

    def come() -> None:
        tokens.append(people.sign_in(store, name, NOW))
        allowed.append(allow(store, KEYS, "ask", "somebody", 5, NOW))

    several = [threading.Thread(target=come) for _ in range(8)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert sum(token is not None for token in tokens) == 1
    assert sum(allowed) == 5
