"""What is trending: listings ranked by a score in the 1, 7 or 30 days that end on a day.

A listing belongs to a window if it was published in it, or got a vote, a place on a community list, or a verdict in it,
and is not hidden. At time t, the window's end (or now, if that is earlier), its score is

    vote    · Σ_votes 2^(-age/h)
  + upvote  · max_lists log2(1 + upvotes) · 2^(-age/h)      a list repeats itself, so its best day counts, once
  + verdict · log2(1 + Σ_sets 2^(-age/h))                   six claims of one paper judged at once are not six papers
  + fresh   · 2^(-age/h)                                    if published in the window: with nothing else, newest first

Only what happened within the window counts. Ages are in days, never negative: of a vote and of a set's first verdict
by the hour in which it came, of a list's day and of a publication from that day's end. h is the window's half-life; the
constants vote, upvote, verdict, fresh and half_life_days are settings (`[score]`). Ties: the later publication, then
the later listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa

from claimbench.errors import UserError, nearest
from claimbench.feed.listing import Listing, from_row
from claimbench.feed.schema import LISTING, MEASURED, SIGHTING, TOPIC, VOTE
from claimbench.feed.settings import ScoreSettings
from claimbench.feed.store import PageStore

WindowName = Literal["day", "week", "month"]
# A literal, since a partial index serves no parameter; a bound on its column, without which SQLite walks all listings
IS_HIDDEN = (LISTING.c.hidden == sa.literal_column("1")) & (LISTING.c.id > sa.literal_column("0"))
HOUR = len("2025-01-31T12")  # how much of a moment names its hour
DAYS: dict[WindowName, int] = {"day": 1, "week": 7, "month": 30}

Counts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""For each listing: votes, upvotes, verdicts."""
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Evidence: listing ids, ages in days, amounts; one row each."""


@dataclass(frozen=True)
class Ranked:
    """A listing with its score, and the parts of it that a page shows."""

    listing: Listing
    score: float
    votes: int  # in the window
    upvotes: int  # the most that a community list counted on a day of the window
    verdicts: int  # sets first judged in the window


@dataclass(frozen=True)
class Ranking:
    """A page. total: listings in the window, of which `papers` are a part.

    previous and next: last days of the nearest windows before and after in which papers were published, None at
    either end.
    """

    window: WindowName
    first: date
    last: date
    papers: list[Ranked]
    total: int
    previous: date | None
    next: date | None


def find_window(flag: str, name: str) -> WindowName:
    if name not in DAYS:
        raise UserError(f'{flag}: no window "{name}"{nearest(name, DAYS)}')
    return name


def rank(
    store: PageStore,
    score: ScoreSettings,
    *,
    window: WindowName = "day",
    day: date | None = None,
    group: str | None = None,
    topic: str | None = None,
    offset: int = 0,
    limit: int = 50,
    now: datetime | None = None,
) -> Ranking:
    """The window that ends on `day` (default: today, UTC), best first. topic: a topic or an arXiv category."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    last = day or moment.date()
    first = last - timedelta(DAYS[window] - 1)
    end = min(moment, datetime.combine(last + timedelta(1), time(), UTC))
    half_life = getattr(score.half_life_days, window)
    with store.read() as connection:
        evidence = _Evidence(connection, first, last, end, group, topic)
        votes, lists, sets = evidence.votes(), evidence.lists(), evidence.sets()
        published = evidence.published()
        ids = _distinct(np.concatenate([part[0] for part in (votes, lists, sets, published)]))
        points, counts = _score(ids, (votes, lists, sets, published), score, half_life)
        ids, points, counts = evidence.visible(ids, points, counts)
        chosen = _best(connection, ids, points, offset + limit)[offset:]
        listings = _listings(connection, ids[chosen])
        papers = [
            Ranked(listings[int(ids[at])], float(points[at]), *(int(count[at]) for count in counts))
            for at in chosen
        ]
        before, after = _neighbours(connection, first, last, group, topic)
    if after is not None:
        after = max(after, min(after + timedelta(DAYS[window] - 1), moment.date()))
    return Ranking(window, first, last, papers, len(ids), before, after)


def _score(
    ids: np.ndarray, evidence: tuple[Pairs, Pairs, Pairs, Pairs], score: ScoreSettings, half_life: float
) -> tuple[np.ndarray, Counts]:
    """The score of each id; and how many votes, upvotes and verdicts."""
    size = len(ids)
    votes, lists, sets, published = (
        (np.searchsorted(ids, which), np.exp2(-age / half_life), amount) for which, age, amount in evidence
    )

    def total(place: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights, minlength=size)

    def largest(place: np.ndarray, values: np.ndarray) -> np.ndarray:
        found = np.zeros(size)
        np.maximum.at(found, place, values)
        return found

    points = (
        score.vote * total(votes[0], votes[1] * votes[2])
        + score.upvote * largest(lists[0], lists[1] * np.log2(1 + lists[2]))
        + score.verdict * np.log2(1 + total(sets[0], sets[1] * sets[2]))
        + score.fresh * largest(published[0], published[1])
    )
    return points, (total(votes[0], votes[2]), largest(lists[0], lists[2]), total(sets[0], sets[2]))


def _distinct(ids: np.ndarray) -> np.ndarray:
    """In ascending order."""
    found = np.sort(ids)
    return found[np.concatenate([[True], found[1:] != found[:-1]])] if len(found) else found


class _Evidence:
    """What happened to listings in a window, as arrays; filtered where a filter is given."""

    def __init__(
        self,
        connection: sa.Connection,
        first: date,
        last: date,
        end: datetime,
        group: str | None,
        topic: str | None,
    ) -> None:
        self._connection = connection
        self._first, self._last = first.isoformat(), last.isoformat()
        self._after = (last + timedelta(1)).isoformat()  # moments of the window are texts below this
        self._end = np.datetime64(end.replace(tzinfo=None), "h")
        self._group, self._topic = group, topic

    def votes(self) -> Pairs:
        return self._moments(VOTE.c.listing, VOTE.c.created)

    def sets(self) -> Pairs:
        return self._moments(MEASURED.c.listing, MEASURED.c.judged)

    def lists(self) -> Pairs:
        query = sa.select(SIGHTING.c.listing, SIGHTING.c.day, SIGHTING.c.upvotes)
        query = query.where(SIGHTING.c.day.between(self._first, self._last))
        rows = self._connection.execute(self._filtered(query, SIGHTING.c.listing)).all()
        ids = np.fromiter((row.listing for row in rows), np.int64, len(rows))
        upvotes = np.fromiter((row.upvotes for row in rows), np.float64, len(rows))
        return ids, self._days([row.day for row in rows]), upvotes

    def published(self) -> Pairs:
        query, day = _publications(self._group, self._topic)
        (listing, _) = query.selected_columns
        query = query.where(day.between(self._first, self._last))
        return self._grouped(query, listing, day, self._days)

    def visible(
        self, ids: np.ndarray, points: np.ndarray, counts: Counts
    ) -> tuple[np.ndarray, np.ndarray, Counts]:
        query = sa.select(LISTING.c.id).where(IS_HIDDEN)
        hidden = list(self._connection.scalars(query))
        kept = ~np.isin(ids, hidden)
        votes, upvotes, verdicts = counts
        return ids[kept], points[kept], (votes[kept], upvotes[kept], verdicts[kept])

    def _moments(self, listing: sa.Column[Any], moment: sa.Column[Any]) -> Pairs:
        query = sa.select(listing).where(moment >= self._first, moment < self._after)
        hour = sa.func.substr(moment, 1, HOUR)
        return self._grouped(self._filtered(query, listing), listing, hour, self._hours)

    def _hours(self, hours: list[str]) -> np.ndarray:
        return self._age(np.array(hours, dtype="datetime64[h]"))

    def _days(self, days: list[str]) -> np.ndarray:
        """The ages of their ends."""
        return self._age(np.array(days, dtype="datetime64[D]") + np.timedelta64(1, "D"))

    def _age(self, moments: np.ndarray) -> np.ndarray:
        """In days, at the window's end."""
        return np.maximum((self._end - moments.astype("datetime64[h]")).astype(np.float64), 0) / 24

    def _grouped(
        self,
        query: sa.Select[Any],
        listing: sa.ColumnElement[Any],
        when: sa.ColumnElement[str],
        ages: Callable[[list[str]], np.ndarray],
    ) -> Pairs:
        """One each, fetched as one text of ids for each day or hour: a row each would cost several times as much."""
        joined = sa.func.aggregate_strings(sa.cast(listing, sa.Text), ",")
        rows = self._connection.execute(query.with_only_columns(when, joined).group_by(when)).all()
        parts = [np.fromstring(text, np.int64, sep=",") for _, text in rows]
        ids = np.concatenate([np.array([], np.int64), *parts])
        repeated = np.repeat(ages([moment for moment, _ in rows]), [len(part) for part in parts])
        return ids, repeated, np.ones(len(ids))

    def _filtered(self, query: sa.Select[Any], listing: sa.Column[Any]) -> sa.Select[Any]:
        """Looked up for each row of the window: there are fewer of those than of a group's papers."""
        if self._group is not None:
            query = query.where(_in_group(listing, self._group))
        if self._topic is not None:
            query = query.where(sa.exists().where(TOPIC.c.listing == listing, TOPIC.c.topic == self._topic))
        return query


def _in_group(listing: sa.Column[Any], group: str) -> sa.ColumnElement[bool]:
    return sa.exists().where(LISTING.c.id == listing, LISTING.c.group_name == group)


def _publications(group: str | None, topic: str | None) -> tuple[sa.Select[Any], sa.Column[Any]]:
    """Listings with their day of publication, and the column of that day, from the index that the filter has."""
    if topic is None:
        query = sa.select(LISTING.c.id, LISTING.c.published)
        return (query if group is None else query.where(LISTING.c.group_name == group)), LISTING.c.published
    query = sa.select(TOPIC.c.listing, TOPIC.c.published).where(TOPIC.c.topic == topic)
    if group is not None:
        query = query.where(_in_group(TOPIC.c.listing, group))
    return query, TOPIC.c.published


def _best(connection: sa.Connection, ids: np.ndarray, points: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` best. Those that tie at the edge are all looked at, so that pages never overlap."""
    if not len(ids) or count <= 0:
        return np.array([], dtype=np.int64)
    edge = np.sort(points)[-min(count, len(points))]
    places = np.flatnonzero(points >= edge)
    dates = _published(connection, ids[places])
    order = np.lexsort((ids[places], dates, points[places]))[::-1]
    return places[order][:count]


def _published(connection: sa.Connection, ids: np.ndarray) -> np.ndarray:
    rows = _rows(connection, sa.select(LISTING.c.id, LISTING.c.published), ids)
    days = {row.id: row.published for row in rows}
    return np.array([days[int(identity)] for identity in ids], dtype="datetime64[D]")


def _listings(connection: sa.Connection, ids: np.ndarray) -> dict[int, Listing]:
    return {row.id: from_row(row) for row in _rows(connection, sa.select(LISTING), ids)}


def _rows(connection: sa.Connection, query: sa.Select[Any], ids: np.ndarray) -> Iterable[sa.Row[Any]]:
    for part in np.array_split(ids, len(ids) // 500 + 1):
        yield from connection.execute(query.where(LISTING.c.id.in_(part.tolist())))


def _neighbours(
    connection: sa.Connection, first: date, last: date, group: str | None, topic: str | None
) -> tuple[date | None, date | None]:
    """The nearest days before `first` and after `last` on which a visible paper of the filter was published."""
    query, day = _publications(group, topic)
    query = query.with_only_columns(day)
    if topic is None:
        query = query.where(LISTING.c.hidden == 0)
    else:
        query = query.where(sa.exists().where(LISTING.c.id == TOPIC.c.listing, LISTING.c.hidden == 0))
    before = connection.scalar(query.where(day < first.isoformat()).order_by(day.desc()).limit(1))
    after = connection.scalar(query.where(day > last.isoformat()).order_by(day).limit(1))
    return before and date.fromisoformat(before), after and date.fromisoformat(after)


def listing_json(listing: Listing) -> dict[str, Any]:
    """What a page's JSON twin says of a listing."""
    hidden = ("id", "described", "note", "hidden")
    return {name: value for name, value in asdict(listing).items() if name not in hidden}
