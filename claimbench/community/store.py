"""People and subscriptions in the page's store.

Functions of the store, the keys and the moment. Nothing here says whether an address is known: who asks for a link gets
one, and what it does is decided when it is opened.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from claimbench.community.schema import (
    LETTER,
    MAIL_LINK,
    NEWS,
    PERSON,
    RATE,
    SUBMISSION,
    SUBSCRIPTION,
    VISIT,
)
from claimbench.community.tokens import Keys, stamp
from claimbench.feed.schema import MEASURED, META, VOTE
from claimbench.feed.store import PageStore

LINK_LASTS = timedelta(hours=2)
VISIT_LASTS = timedelta(days=30)
LinkPurpose = Literal["sign-in", "subscribe"]
Every = Literal["day", "week"]
MOST_CHOICES = 20


@dataclass(frozen=True)
class Choices:
    """What a digest is about: papers of any of these groups or found by any of these searches; else all."""

    groups: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    every: Every = "week"

    def encode(self) -> str:
        return json.dumps({"groups": self.groups, "searches": self.searches, "every": self.every})

    @classmethod
    def decode(cls, text: str) -> Choices:
        found = json.loads(text)
        return cls(tuple(found["groups"]), tuple(found["searches"]), found["every"])


@dataclass(frozen=True)
class Subscription:
    """A confirmed subscriber. told: serial of the last news in an accepted digest."""

    id: str
    address: str
    choices: Choices
    state: str
    told: int
    covered: str

    def __repr__(self) -> str:
        return f"Subscription({self.state})"  # neither address nor id: they are not for logs


@dataclass(frozen=True)
class Person:
    id: int
    address_hash: str


# --- links ---


def ask_link(
    store: PageStore,
    keys: Keys,
    purpose: LinkPurpose,
    address: str,
    now: datetime,
    choices: Choices | None = None,
) -> int:
    """Queue a letter with a link, which works once and for two hours. Returns the letter's id."""
    name = secrets.token_urlsafe(18)
    with store.write() as connection:
        forget_old(connection, now)
        connection.execute(
            MAIL_LINK.insert().values(
                id=name,
                purpose=purpose,
                address=address,
                address_hash=keys.address_hash(address),
                choices=choices.encode() if choices else "",
                expires=stamp(now + LINK_LASTS),
            )
        )
        return queue_letter(connection, now, link=name, message_id=keys.digest("letter", name)[:40])


def queue_letter(
    connection: sa.Connection,
    now: datetime,
    *,
    message_id: str,
    message: str = "",
    told: int = 0,
    covered: str = "",
    **whose: str,
) -> int:
    """A letter that is due now. whose: `link`, or `subscription` and `period`. Returns its id."""
    added = connection.execute(
        LETTER.insert().values(
            message_id=message_id,
            message=message,
            told=told,
            covered=covered,
            state="queued",
            attempts=0,
            due=stamp(now),
            owner="",
            until="",
            reason="",
            created=stamp(now),
            **whose,
        )
    )
    return int(added.inserted_primary_key[0])  # type: ignore[index]  # an insert of one row has one


def use_link(connection: sa.Connection, purpose: LinkPurpose, name: str, now: datetime) -> sa.Row[Any] | None:
    """The link's row, if it was unused until this moment: of two that come at once one gets it."""
    where = (MAIL_LINK.c.id == name) & (MAIL_LINK.c.purpose == purpose) & MAIL_LINK.c.used.is_(None)
    where &= MAIL_LINK.c.expires > stamp(now)
    if connection.execute(MAIL_LINK.update().where(where).values(used=stamp(now))).rowcount != 1:
        return None
    return connection.execute(sa.select(MAIL_LINK).where(MAIL_LINK.c.id == name)).one()


def link_is_open(store: PageStore, purpose: LinkPurpose, name: str, now: datetime) -> bool:
    """Whether the link would work; it is not used by being looked at."""
    query = sa.select(MAIL_LINK.c.id).where(
        MAIL_LINK.c.id == name,
        MAIL_LINK.c.purpose == purpose,
        MAIL_LINK.c.used.is_(None),
        MAIL_LINK.c.expires > stamp(now),
    )
    with store.read() as connection:
        return connection.scalar(query) is not None


def forget_old(connection: sa.Connection, now: datetime) -> None:
    """Delete links, visits and counts that have expired: an address that was never confirmed is not kept."""
    old = sa.select(MAIL_LINK.c.id).where(MAIL_LINK.c.expires <= stamp(now))
    connection.execute(LETTER.delete().where(LETTER.c.link.in_(old)))
    connection.execute(MAIL_LINK.delete().where(MAIL_LINK.c.expires <= stamp(now)))
    connection.execute(VISIT.delete().where(VISIT.c.expires <= stamp(now)))
    connection.execute(RATE.delete().where(RATE.c.expires <= stamp(now)))


# --- people ---


def sign_in(store: PageStore, name: str, now: datetime) -> str | None:
    """Use a sign-in link. Returns the secret that the browser keeps, or None if the link has no use left."""
    with store.write() as connection:
        link = use_link(connection, "sign-in", name, now)
        if link is None:
            return None
        where = PERSON.c.address_hash == link.address_hash
        person = connection.scalar(sa.select(PERSON.c.id).where(where))
        if person is None:
            connection.execute(
                PERSON.insert().values(
                    address=link.address, address_hash=link.address_hash, created=stamp(now)
                )
            )
            person = connection.scalar(sa.select(PERSON.c.id).where(where))
        token = secrets.token_urlsafe(32)
        connection.execute(
            VISIT.insert().values(token_hash=_hashed(token), person=person, expires=stamp(now + VISIT_LASTS))
        )
        return token


def visitor(store: PageStore, token: str, now: datetime) -> Person | None:
    """Who holds this secret, if anybody."""
    query = (
        sa.select(PERSON.c.id, PERSON.c.address_hash)
        .join(VISIT, VISIT.c.person == PERSON.c.id)
        .where(VISIT.c.token_hash == _hashed(token), VISIT.c.expires > stamp(now))
    )
    with store.read() as connection:
        row = connection.execute(query).one_or_none()
    return Person(row.id, row.address_hash) if row is not None else None


def sign_out(store: PageStore, token: str) -> None:
    with store.write() as connection:
        connection.execute(VISIT.delete().where(VISIT.c.token_hash == _hashed(token)))


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def delete_person(store: PageStore, person: Person) -> None:
    """Everything that is kept of a person. What they submitted stays, without saying who it was."""
    with store.write() as connection:
        connection.execute(VOTE.delete().where(VOTE.c.person == person.id))
        connection.execute(VISIT.delete().where(VISIT.c.person == person.id))
        connection.execute(SUBMISSION.update().where(SUBMISSION.c.person == person.id).values(person=None))
        links = sa.select(MAIL_LINK.c.id).where(MAIL_LINK.c.address_hash == person.address_hash)
        connection.execute(LETTER.delete().where(LETTER.c.link.in_(links)))
        connection.execute(MAIL_LINK.delete().where(MAIL_LINK.c.address_hash == person.address_hash))
        found = connection.scalar(
            sa.select(SUBSCRIPTION.c.id).where(SUBSCRIPTION.c.address_hash == person.address_hash)
        )
        if found is not None:
            _unsubscribe(connection, found)
        connection.execute(PERSON.delete().where(PERSON.c.id == person.id))


# --- subscriptions ---


def confirm(store: PageStore, name: str, now: datetime) -> bool:
    """Use a subscribe link: begin, change, or take up again a subscription. False if the link has no use left."""
    with store.write() as connection:
        link = use_link(connection, "subscribe", name, now)
        if link is None:
            return False
        latest = note_news(connection, now)
        choices = Choices.decode(link.choices)
        values: dict[str, Any] = {"choices": link.choices, "every": choices.every, "state": "active"}
        where = SUBSCRIPTION.c.address_hash == link.address_hash
        known = connection.execute(sa.select(SUBSCRIPTION).where(where)).one_or_none()
        if known is None:
            connection.execute(
                SUBSCRIPTION.insert().values(
                    id=secrets.token_urlsafe(18),
                    address=link.address,
                    address_hash=link.address_hash,
                    confirmed=stamp(now),
                    told=latest,
                    covered=stamp(now),
                    **values,
                )
            )
        else:
            if known.state != "active":  # what came while it was stopped was not asked for
                values |= {"told": latest, "covered": stamp(now), "confirmed": stamp(now)}
            connection.execute(SUBSCRIPTION.update().where(where).values(**values))
        return True


def unsubscribe(store: PageStore, name: str) -> None:
    """Delete a subscription with its address and letters. One that is gone already is no error."""
    with store.write() as connection:
        _unsubscribe(connection, name)


def _unsubscribe(connection: sa.Connection, name: str) -> None:
    connection.execute(LETTER.delete().where(LETTER.c.subscription == name))
    connection.execute(SUBSCRIPTION.delete().where(SUBSCRIPTION.c.id == name))


def active(store: PageStore) -> list[Subscription]:
    query = sa.select(SUBSCRIPTION).where(SUBSCRIPTION.c.state == "active").order_by(SUBSCRIPTION.c.id)
    with store.read() as connection:
        return [as_subscription(row) for row in connection.execute(query)]


def subscription_of(store: PageStore, person: Person) -> Subscription | None:
    query = sa.select(SUBSCRIPTION).where(SUBSCRIPTION.c.address_hash == person.address_hash)
    with store.read() as connection:
        row = connection.execute(query).one_or_none()
    return as_subscription(row) if row is not None else None


def as_subscription(row: Any) -> Subscription:
    choices = Choices.decode(row.choices)
    return Subscription(row.id, row.address, choices, row.state, row.told, row.covered)


def note_news(connection: sa.Connection, now: datetime) -> int:
    """Number the judged sets that have no number yet. Returns the last number.

    The moment of a verdict orders nothing: one that was judged yesterday elsewhere may reach the page's store today,
    after yesterday's digests. Numbers grow in the order of commits, because the row locked here is held until then.
    """
    connection.execute(META.update().where(META.c.name == "schema").values(name="schema"))
    query = sa.select(MEASURED.c.set_uid).where(~sa.exists().where(NEWS.c.set_uid == MEASURED.c.set_uid))
    found = list(connection.scalars(query.order_by(MEASURED.c.judged, MEASURED.c.set_uid)))
    if found:
        connection.execute(NEWS.insert(), [{"set_uid": uid, "seen": stamp(now)} for uid in found])
    return connection.scalar(sa.select(sa.func.max(NEWS.c.serial))) or 0
