"""A digest: what was trending in the days that have ended, and the verdicts, since the last accepted digest.

Each is composed once, when its period (a day or a week, UTC) has come and nothing else of the subscriber is on its way.
What it tells is counted by the numbers that `note_news` gives, so a verdict that reaches the page late is in the next
digest, and one whose digest was refused or is in doubt is in the next one again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache

import sqlalchemy as sa

from claimbench.community.schema import LETTER, NEWS
from claimbench.community.searches import Finds, holds_words, wanted
from claimbench.community.store import Choices, Subscription, active, note_news, queue_letter
from claimbench.community.tokens import Keys, stamp
from claimbench.feed.listing import Listing, from_row
from claimbench.feed.schema import LISTING, MEASURED
from claimbench.feed.settings import ScoreSettings
from claimbench.feed.store import PageStore
from claimbench.feed.trending import DAYS, Ranked, WindowName, rank

MOST_PAPERS = 10
MOST_VERDICTS = 200  # in one digest; the rest is in the next
CANDIDATES = 1000  # trending papers among which a subscriber's choices are looked for
UNDERWAY = ("queued", "transmitting")
Statements = Mapping[tuple[str, str], str]
"""Of a paper's claim, by their ids on the shelf."""


@dataclass(frozen=True)
class News:
    """A judged set with its paper."""

    serial: int
    listing: Listing
    claim: str
    scale: str
    state: str
    judged: str


@dataclass(frozen=True)
class Digest:
    """What one letter says. told: serial of the last news it covers. covered: the end of its time. more: left over."""

    period: str
    window: WindowName
    papers: list[Ranked]
    verdicts: list[News]
    told: int
    covered: str
    more: int = 0

    @property
    def empty(self) -> bool:
        return not self.papers and not self.verdicts


Compose = Callable[[Digest, Subscription], str]
"""The message without To, in ASCII."""


def queue_digests(
    store: PageStore,
    score: ScoreSettings,
    keys: Keys,
    compose: Compose,
    now: datetime,
    finds: Finds = holds_words,
) -> dict[str, int]:
    """Compose what is due. Returns counts: queued, waiting (an earlier one is on its way), done, empty.

    finds: which papers a saved search is about.
    """
    counts = dict.fromkeys(("queued", "waiting", "done", "empty"), 0)
    with store.write() as connection:
        latest = note_news(connection, now)

    @cache
    def trending(window: WindowName) -> list[Ranked]:
        return rank(store, score, window=window, day=last_day(now), limit=CANDIDATES, now=now).papers

    @cache
    def news(after: int) -> list[News]:
        return news_after(store, after, latest)

    for subscription in active(store):
        found = _due(store, subscription, now)
        if found is None:
            digest = gather(subscription, trending, news, latest, now, finds)
            if digest.empty:
                found = "empty"
            else:
                message = compose(digest, subscription)
                found = "queued" if _queue(store, keys, subscription, digest, message, now) else "done"
        counts[found] += 1
    return counts


def gather(
    subscription: Subscription,
    trending: Callable[[WindowName], list[Ranked]],
    news: Callable[[int], list[News]],
    latest: int,
    now: datetime,
    finds: Finds = holds_words,
) -> Digest:
    choices = subscription.choices
    window = window_since(subscription.covered, now)
    papers = [found for found in trending(window) if wanted(choices, found.listing, finds)]
    verdicts = [found for found in news(subscription.told) if wanted(choices, found.listing, finds)]
    shown, more = verdicts[:MOST_VERDICTS], max(0, len(verdicts) - MOST_VERDICTS)
    told = shown[-1].serial if more else latest
    return Digest(period(choices, now), window, papers[:MOST_PAPERS], shown, told, stamp(now), more)


def period(choices: Choices, now: datetime) -> str:
    """The day, or the ISO week, that a digest is of."""
    if choices.every == "day":
        return now.date().isoformat()
    year, week, _ = now.isocalendar()
    return f"{year}-W{week:02}"


def last_day(now: datetime) -> date:
    """The last day that has ended: of one that has only begun, half the papers would be in no digest."""
    return now.date() - timedelta(1)


def window_since(covered: str, now: datetime) -> WindowName:
    """The shortest trending window up to `last_day` that reaches back to the last accepted digest; a month at most."""
    days = (now.date() - datetime.fromisoformat(covered).date()).days
    return next((name for name, length in DAYS.items() if days <= length), "month")


def news_after(store: PageStore, after: int, latest: int) -> list[News]:
    """Judged sets of visible papers by number, with their state of now."""
    query = (
        sa.select(
            NEWS.c.serial, MEASURED.c.claim, MEASURED.c.scale, MEASURED.c.state, MEASURED.c.judged, LISTING
        )
        .join(MEASURED, MEASURED.c.set_uid == NEWS.c.set_uid)
        .join(LISTING, LISTING.c.id == MEASURED.c.listing)
        .where(NEWS.c.serial > after, NEWS.c.serial <= latest, LISTING.c.hidden == 0)
        .order_by(NEWS.c.serial)
    )
    with store.read() as connection:
        return [
            News(row.serial, from_row(row), row.claim, row.scale, row.state, row.judged)
            for row in connection.execute(query)
        ]


def _due(store: PageStore, subscription: Subscription, now: datetime) -> str | None:
    """None if a digest is to be composed, else why not."""
    with store.read() as connection:
        query = sa.select(LETTER.c.state, LETTER.c.period).where(LETTER.c.subscription == subscription.id)
        rows = connection.execute(query).all()
    if any(row.state in UNDERWAY for row in rows):
        return "waiting"
    return "done" if any(row.period == period(subscription.choices, now) for row in rows) else None


def _queue(
    store: PageStore, keys: Keys, subscription: Subscription, digest: Digest, message: str, now: datetime
) -> bool:
    """False if another process has queued this period's meanwhile."""
    try:
        with store.write() as connection:
            queue_letter(
                connection,
                now,
                subscription=subscription.id,
                period=digest.period,
                message_id=message_id(keys, subscription, digest.period),
                message=message,
                told=digest.told,
                covered=digest.covered,
            )
    except sa.exc.IntegrityError:
        return False
    return True


def message_id(keys: Keys, subscription: Subscription, period: str) -> str:
    """The same whenever it is asked for, and nobody else's guess: who returns it in a bounce has had the letter."""
    return keys.digest("letter", f"{subscription.id} {period}")[:40]
