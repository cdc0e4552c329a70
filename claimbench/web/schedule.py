"""`--schedule`: a daily pull of every source and the digests that are due, beside the requests.

One process of a machine does it for all workers, whoever holds the lock; that two machines do not pull at once is seen
to by the store. A day whose moment passed while nobody served is made up for at the start. Between two days, letters
that a mail server put off are tried again.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import sqlalchemy as sa

from claimbench.community.service import Service, open_service, statements_of
from claimbench.community.tokens import stamp, utc_now
from claimbench.errors import UserError
from claimbench.feed.lock import LostLock
from claimbench.feed.pull import pull
from claimbench.feed.schema import PULL
from claimbench.feed.shelf import sync_shelf
from claimbench.feed.store import Pull
from claimbench.shelf import Shelf
from claimbench.web.maintenance import alone
from claimbench.web.site import Site

log = logging.getLogger("claimbench.web")
AGAIN = 300.0  # seconds between two looks at letters that were put off
SHORTEST = 1.0  # seconds between two looks at the clock


class _Stopped(Exception):
    """The server leaves."""


def time_of_day(flag: str, text: str) -> time:
    """`06:30`, in UTC. Raises UserError."""
    try:
        return datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise UserError(f'{flag}: "{text}" is no time of day; write it as 06:30 (UTC)') from None


def last_moment(at: time, now: datetime) -> datetime:
    """The latest moment, up to now, at which it was `at`."""
    today = datetime.combine(now.date(), at, UTC)
    return today if today <= now else today - timedelta(1)


class Schedule:
    """A thread. at: time of day in UTC. Stop it with `stop`."""

    def __init__(self, site: Site, at: time, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Raises UserError where mail is configured and cannot be used."""
        self._site, self._at, self._clock = site, at, clock
        self._done: datetime | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedule", daemon=True)
        self._service()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once. A pull ends after its page and goes on another time; the store knows of every letter."""
        self._stop.set()

    def _run(self) -> None:
        folder = self._site.index.storage.folder
        if folder is None:
            return
        with alone(folder / ".schedule", self._stop, AGAIN) as chosen:
            while chosen and not self._stop.is_set():
                self.look()
                now = self._clock()
                following = last_moment(self._at, now) + timedelta(1)
                self._stop.wait(min(max((following - now).total_seconds(), SHORTEST), AGAIN))

    def look(self) -> None:
        """Do what is due. Never raises: what went wrong is said, and is tried again when it is due again."""
        moment = last_moment(self._at, self._clock())
        if moment == self._done:
            self._guarded("mail", self._send_again)
            return
        steps = [("shelf", self._sync), ("pull", lambda: self._pull(moment)), ("mail", self._send)]
        said = [line for name, step in steps if (line := self._guarded(name, step))]
        self._done = moment
        if not self._stop.is_set():
            _say(f"schedule: {'; '.join(said) or 'nothing to do'}")

    def _guarded(self, name: str, step: Callable[[], str]) -> str:
        """What the step has to say, or what went wrong."""
        if self._stop.is_set():
            return ""
        try:
            return step()
        except _Stopped:
            return ""
        except (UserError, LostLock) as error:
            return f"{name} failed: {error}"
        except Exception:  # a thread that ends here would never pull or send again
            log.exception("schedule: %s", name)
            return f"{name} failed, as said above"

    def _sync(self) -> str:
        sync_shelf(self._site.store, Shelf(self._site.shelf.roots), self._site.ledger)
        return ""

    def _pull(self, moment: datetime) -> str:
        """Every source, unless each was pulled since: by this schedule before a restart, by cron, or by hand."""
        latest = sa.select(PULL.c.source, sa.func.max(PULL.c.finished)).group_by(PULL.c.source)
        with self._site.store.read() as connection:
            finished = {row[0]: row[1] for row in connection.execute(latest)}
        names = [source.name for source in self._site.settings.source]
        if all((finished.get(name) or "") >= stamp(moment) for name in names):
            return ""
        found = pull(self._site.store, self._site.settings, on_page=self._go_on)
        return ", ".join(_told(one) for one in found)

    def _go_on(self, _: Pull) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _service(self) -> Service | None:
        settings = self._site.settings
        if settings.mail is None:
            return None
        statements = statements_of(Shelf(self._site.shelf.roots))
        found = open_service(self._site.store, settings, statements, self._site.index)
        return replace(found, clock=self._clock)

    def _send(self) -> str:
        service = self._service()
        if service is None:
            return ""
        composed = service.queue()["queued"]
        sent = service.sender().run()
        line = f"{composed} digests composed, {sent.accepted} letters sent, {sent.later} later"
        line += "".join(
            f", {n} {word}" for n, word in ((sent.refused, "refused"), (sent.in_doubt, "in doubt")) if n
        )
        return f"{line}; mail: {sent.trouble}" if sent.trouble else line

    def _send_again(self) -> str:
        service = self._service()
        if service is not None:
            service.sender().run()
        return ""


def _told(one: Pull) -> str:
    line = f"{one.source} {one.counts['added']} new"
    return f"{line} (failed: {one.reason})" if one.state == "failed" else line


def _say(line: str) -> None:
    print(f"claimbench: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {line}", file=sys.stderr, flush=True)
