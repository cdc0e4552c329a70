"""What readers and curators do to papers: votes, submissions, and what curators set."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from claimbench.community.schema import SUBMISSION
from claimbench.community.store import Person
from claimbench.community.tokens import stamp
from claimbench.feed.listing import Listing, from_row
from claimbench.feed.schema import CURATED, LISTING, META, VOTE
from claimbench.feed.store import PageStore
from claimbench.feed.trending import IS_HIDDEN

LISTED = {"state": "listed", "reason": ""}
DECLINED = {"state": "declined", "reason": "a curator has declined it"}


@dataclass(frozen=True)
class Submission:
    """state: waiting, listed, refused or declined. reason: of the last two."""

    arxiv: str
    state: str
    reason: str


def vote(store: PageStore, person: Person, key: str, now: datetime, *, wanted: bool = True) -> bool:
    """Give or take back a person's one vote. Returns False if no visible paper has this key."""
    with store.write() as connection:
        listing = _visible(connection, key)
        if listing is None:
            return False
        where = (VOTE.c.person == person.id) & (VOTE.c.listing == listing)
        given = connection.scalar(sa.select(VOTE.c.person).where(where)) is not None
        if wanted and not given:
            connection.execute(VOTE.insert().values(person=person.id, listing=listing, created=stamp(now)))
        elif given and not wanted:
            connection.execute(VOTE.delete().where(where))
        return True


def has_voted(store: PageStore, person: Person, key: str) -> bool:
    query = sa.select(VOTE.c.person).join(LISTING, LISTING.c.id == VOTE.c.listing)
    with store.read() as connection:
        return connection.scalar(query.where(LISTING.c.key == key, VOTE.c.person == person.id)) is not None


def submit(store: PageStore, person: Person, arxiv: str, now: datetime) -> Literal["listed", "noted"]:
    """Note an arXiv id (without its version) for the next pull; one that is listed already is said to be.

    What arXiv did not have, it may have since, and is asked for again; what a curator has declined is not.
    """
    with store.write() as connection:
        if _visible(connection, f"arxiv:{arxiv}") is not None:
            return "listed"
        where = SUBMISSION.c.arxiv == arxiv
        state = connection.scalar(sa.select(SUBMISSION.c.state).where(where))
        values = {"person": person.id, "state": "waiting", "created": stamp(now), "reason": ""}
        if state is None:
            connection.execute(SUBMISSION.insert().values(arxiv=arxiv, **values))
        elif state == "refused":
            connection.execute(SUBMISSION.update().where(where).values(**values))
        return "noted"


def submissions(store: PageStore, limit: int = 500) -> list[str]:
    """arXiv ids that wait, oldest first."""
    query = sa.select(SUBMISSION.c.arxiv).where(SUBMISSION.c.state == "waiting")
    with store.read() as connection:
        return list(connection.scalars(query.order_by(SUBMISSION.c.created, SUBMISSION.c.arxiv).limit(limit)))


def submissions_of(store: PageStore, person: Person, limit: int = 50) -> list[Submission]:
    """What became of a person's own, latest first."""
    query = sa.select(SUBMISSION).where(SUBMISSION.c.person == person.id)
    query = query.order_by(SUBMISSION.c.created.desc(), SUBMISSION.c.arxiv).limit(limit)
    with store.read() as connection:
        return [Submission(row.arxiv, row.state, row.reason) for row in connection.execute(query)]


def settle_submissions(store: PageStore, refused: Mapping[str, str] | None = None) -> int:
    """Close those that have become listings, and refuse those that cannot. Returns how many were closed.

    refused: arXiv ids to reasons. One whose listing a curator has removed stays removed, and is declined.
    """
    waiting = SUBMISSION.c.state == "waiting"
    listed = sa.exists().where(LISTING.c.arxiv == SUBMISSION.c.arxiv)
    changes = [
        (listed & sa.exists().where(LISTING.c.arxiv == SUBMISSION.c.arxiv, LISTING.c.hidden == 0), LISTED),
        (listed, DECLINED),
        *(
            (SUBMISSION.c.arxiv == arxiv, {"state": "refused", "reason": reason})
            for arxiv, reason in (refused or {}).items()
        ),
    ]
    with store.write() as connection:
        return sum(
            connection.execute(SUBMISSION.update().where(waiting & where).values(**values)).rowcount
            for where, values in changes
        )


def decline(store: PageStore, arxiv: str) -> None:
    where = (SUBMISSION.c.arxiv == arxiv) & (SUBMISSION.c.state == "waiting")
    with store.write() as connection:
        connection.execute(SUBMISSION.update().where(where).values(**DECLINED))


def curate(store: PageStore, key: str, *, featured: bool, hidden: bool, note: str) -> bool:
    """What curators set on a listing. Returns False if there is none of this key."""
    values = {"featured": int(featured), "hidden": int(hidden), "note": note}
    with store.write() as connection:
        found = connection.execute(LISTING.update().where(LISTING.c.key == key).values(**values)).rowcount
        edition = {"name": CURATED, "value": secrets.token_hex(8)}  # what kept pages are told apart by
        connection.execute(META.delete().where(META.c.name == CURATED))
        connection.execute(META.insert().values(**edition))
        return found == 1


def removed(store: PageStore, limit: int = 50) -> list[Listing]:
    """Listings that curators have taken off every list, latest first."""
    query = sa.select(LISTING).where(IS_HIDDEN).order_by(LISTING.c.id.desc()).limit(limit)
    with store.read() as connection:
        return [from_row(row) for row in connection.execute(query)]


def find_listing(store: PageStore, key: str) -> Listing | None:
    """By its key, or by its paper's id on the shelf: no id has a colon, and every key has one."""
    query = sa.select(LISTING).where(LISTING.c.key == key if ":" in key else LISTING.c.shelf_id == key)
    with store.read() as connection:
        row = connection.execute(query.order_by(LISTING.c.hidden, LISTING.c.id).limit(1)).one_or_none()
    return from_row(row) if row is not None else None


def _visible(connection: sa.Connection, key: str) -> int | None:
    return connection.scalar(sa.select(LISTING.c.id).where(LISTING.c.key == key, LISTING.c.hidden == 0))
