"""The page's store: listings, what lists said of them, and how far each pull has come.

One listing a paper: the same arXiv id from several sources is one row. A page of a source is written in one
transaction together with the place to go on from, so that a killed pull has either all of it or none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import sqlalchemy as sa

import claimbench.community.schema  # noqa: F401  # its tables are the page's too
from claimbench.feed import schema
from claimbench.feed.entry import Entry, Page, Problem, Window
from claimbench.feed.listing import Listing, from_row, merged, values
from claimbench.feed.lock import hold
from claimbench.feed.schema import LISTING, PROBLEM, PULL, SIGHTING, TOPIC
from claimbench.ledger.database import Database, Schema

COUNTS = ("pages", "entries", "added", "changed", "problems")
CHUNK = 500  # bound parameters of one query


def moment() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Pull:
    """One source's pull of one window. counts: pages, entries, added, changed, problems so far."""

    id: int
    source: str
    window: Window
    cursor: str
    state: str
    counts: dict[str, int]
    reason: str = ""
    started: str = ""
    finished: str | None = None


class PageStore(Database):
    """Open with a path, a URL, or nothing for the page's own file."""

    schema: ClassVar[Schema] = schema
    name = "page store"
    file = "page.sqlite"
    namespace = "claimbench_page"
    flag = "--store"

    # --- listings ---

    def listings(self, keys: Sequence[str]) -> dict[str, Listing]:
        with self.read() as connection:
            return by_key(connection, keys)

    def newest(self, limit: int = 50) -> list[Listing]:
        """Visible listings, newest first."""
        query = sa.select(LISTING).where(LISTING.c.hidden == 0)
        query = query.order_by(LISTING.c.published.desc(), LISTING.c.id.desc()).limit(limit)
        with self.read() as connection:
            return [from_row(row) for row in connection.execute(query)]

    def put(self, listings: Iterable[Listing]) -> None:
        """Write listings as they are, new or known by key."""
        with self.write() as connection:
            wanted = list(listings)
            known = by_key(connection, [listing.key for listing in wanted])
            write_listings(connection, wanted, known)

    # --- pulls ---

    def pulls(self, source: str | None = None) -> list[Pull]:
        """Pulls, latest start last."""
        query = sa.select(PULL).order_by(PULL.c.started, PULL.c.id)
        if source is not None:
            query = query.where(PULL.c.source == source)
        with self.read() as connection:
            return [_pull(row) for row in connection.execute(query)]

    def begin_pull(self, source: str, window: Window) -> Pull:
        """The pull of this window: gone on with if it was cut short, else from its start."""
        with self.write() as connection:
            where = (PULL.c.source == source) & (PULL.c.window == str(window))
            row = connection.execute(sa.select(PULL).where(where)).one_or_none()
            if row is None or row.state == "done":
                fresh = {
                    "cursor": "",
                    "state": "running",
                    "reason": "",
                    "counts": json.dumps(dict.fromkeys(COUNTS, 0)),
                    "started": moment(),
                    "finished": None,
                }
                if row is None:
                    connection.execute(PULL.insert().values(source=source, window=str(window), **fresh))
                else:
                    connection.execute(PULL.update().where(where).values(**fresh))
            else:
                connection.execute(PULL.update().where(where).values(state="running", reason=""))
            return _pull(connection.execute(sa.select(PULL).where(where)).one())

    def save_page(
        self, pull: Pull, page: Page, group_of: Callable[[tuple[str, ...]], str], owner: str = ""
    ) -> Pull:
        """Store a page and the place after it, in one transaction. Raises LostLock if `owner` lost the lock."""
        with self.write() as connection:
            if owner:
                hold(connection, owner)
            added, changed = _upsert(connection, page.entries, pull.source, group_of)
            problems = _note_problems(connection, page.problems, pull.source)
            step = (1, len(page.entries), added, changed, problems)
            counts = {name: pull.counts[name] + n for name, n in zip(COUNTS, step, strict=True)}
            after = replace(pull, cursor=page.cursor, counts=counts)
            connection.execute(
                PULL.update()
                .where(PULL.c.id == pull.id)
                .values(cursor=after.cursor, counts=json.dumps(after.counts))
            )
        return after

    def end_pull(self, pull: Pull, reason: str = "") -> Pull:
        """Done, or failed for a reason."""
        after = replace(pull, state="failed" if reason else "done", reason=reason, finished=moment())
        with self.write() as connection:
            connection.execute(
                PULL.update()
                .where(PULL.c.id == pull.id)
                .values(state=after.state, reason=after.reason, finished=after.finished)
            )
        return after

    def problems(self, source: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Entries that were skipped, latest first: source, entry, reason, found."""
        query = sa.select(PROBLEM.c.source, PROBLEM.c.entry, PROBLEM.c.reason, PROBLEM.c.found)
        if source is not None:
            query = query.where(PROBLEM.c.source == source)
        with self.read() as connection:
            return [
                dict(r._mapping) for r in connection.execute(query.order_by(PROBLEM.c.id.desc()).limit(limit))
            ]

    def upvotes(self, listing: int) -> int:
        """The most that any list has counted for a paper."""
        query = sa.select(sa.func.max(SIGHTING.c.upvotes)).where(SIGHTING.c.listing == listing)
        with self.read() as connection:
            return connection.scalar(query) or 0


def by_key(connection: sa.Connection, keys: Sequence[str]) -> dict[str, Listing]:
    found: dict[str, Listing] = {}
    for start in range(0, len(keys), CHUNK):
        query = sa.select(LISTING).where(LISTING.c.key.in_(keys[start : start + CHUNK]))
        found.update({row.key: from_row(row) for row in connection.execute(query)})
    return found


def write_listings(connection: sa.Connection, wanted: list[Listing], known: dict[str, Listing]) -> None:
    """Insert or update those that differ from what is known, and their rows to filter by.

    `wanted` holds each key once, `known` what the store has under those keys.
    """
    new = [listing for listing in wanted if listing.key not in known]
    changed = [listing for listing in wanted if listing.key in known and listing != known[listing.key]]
    if new:
        connection.execute(LISTING.insert(), [values(listing) for listing in new])
    for listing in changed:
        where = LISTING.c.key == listing.key
        connection.execute(LISTING.update().where(where).values(**values(listing)))
    ids = {listing.key: listing.id for listing in changed}
    if new:
        ids.update({key: row.id for key, row in by_key(connection, [n.key for n in new]).items()})
    rows = []
    for listing in [*new, *changed]:
        before = known.get(listing.key)
        if before is not None:
            if (before.filters, before.published) == (listing.filters, listing.published):
                continue
            connection.execute(TOPIC.delete().where(TOPIC.c.listing == listing.id))
        row = {"listing": ids[listing.key], "published": listing.published}
        rows += [{**row, "topic": topic} for topic in sorted(listing.filters)]
    if rows:
        connection.execute(TOPIC.insert(), rows)


def _upsert(
    connection: sa.Connection,
    entries: Sequence[Entry],
    source: str,
    group_of: Callable[[tuple[str, ...]], str],
) -> tuple[int, int]:
    """Merge entries into the list. Returns how many listings are new and how many changed."""
    known = by_key(connection, list({entry.key for entry in entries}))
    current = dict(known)
    added = moment()
    for entry in entries:
        current[entry.key] = merged(current.get(entry.key), entry, source, group_of(entry.categories), added)
    write_listings(connection, list(current.values()), known)
    seen = {(e.key, e.day): e.upvotes for e in entries if e.upvotes is not None}
    if seen:
        ids = {key: listing.id for key, listing in by_key(connection, [key for key, _ in seen]).items()}
        _note_sightings(connection, {(ids[key], day): n for (key, day), n in seen.items()}, source)
    changed = sum(current[key] != listing for key, listing in known.items())
    return len(current) - len(known), changed


def _note_sightings(connection: sa.Connection, seen: dict[tuple[int, str], int | None], source: str) -> None:
    days = sorted({day for _, day in seen})
    query = sa.select(SIGHTING).where(SIGHTING.c.source == source, SIGHTING.c.day.in_(days))
    known = {(row.listing, row.day): row.upvotes for row in connection.execute(query)}
    new = [
        {"listing": listing, "source": source, "day": day, "upvotes": upvotes}
        for (listing, day), upvotes in seen.items()
        if (listing, day) not in known
    ]
    if new:
        connection.execute(SIGHTING.insert(), new)
    for (listing, day), upvotes in seen.items():
        if known.get((listing, day), upvotes) != upvotes:
            where = (SIGHTING.c.listing == listing) & (SIGHTING.c.source == source) & (SIGHTING.c.day == day)
            connection.execute(SIGHTING.update().where(where).values(upvotes=upvotes))


def _note_problems(connection: sa.Connection, problems: Sequence[Problem], source: str) -> int:
    """Remember what was skipped, each once. Returns how many there were."""
    for problem in dict.fromkeys(problems):
        where = (
            (PROBLEM.c.source == source)
            & (PROBLEM.c.entry == problem.entry)
            & (PROBLEM.c.reason == problem.reason)
        )
        if connection.scalar(sa.select(PROBLEM.c.id).where(where)) is None:
            connection.execute(PROBLEM.insert().values(source=source, **problem._asdict(), found=moment()))
    return len(problems)


def _pull(row: Any) -> Pull:
    found = {**row._mapping, "counts": json.loads(row.counts), "window": Window.parse(row.window)}
    return Pull(**found)
