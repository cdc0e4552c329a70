"""Letters on their way: each is sent at most once knowingly, and what nobody knows of is never sent again.

    queued ──▶ transmitting ──▶ accepted      the server said 250 after the final dot
      ▲  │          ├─────────▶ queued        it said 4xx: tried again, each time after twice the wait
      └──┘ 4xx      ├─────────▶ refused       it said 5xx
                    └─────────▶ in doubt      no answer, or the sender was killed

"transmitting" is committed after all of a letter but its final dot is sent. A sender that is killed before leaves the
letter queued and the server with nothing; one that is killed after leaves it in doubt, which nobody sends again: what
it said stands in the subscriber's next digest, because only an accepted one counts as told.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from claimbench.community.schema import LETTER, MAIL_LINK, SUBSCRIPTION
from claimbench.community.settings import MailSettings
from claimbench.community.smtp import InDoubt, Never, NotNow, Session, Unreachable, Withdrawn
from claimbench.community.store import forget_old
from claimbench.community.tokens import stamp, utc_now
from claimbench.feed.lock import alive, this_owner
from claimbench.feed.store import PageStore

log = logging.getLogger("claimbench.mail")
LEASE = timedelta(hours=1)  # far longer than the slowest dialogue with one letter
LONGEST_WAIT = timedelta(hours=6)
PER_SESSION = 50  # letters after which a server is called anew
GONE = "the subscription is stopped"
Make = Callable[[sa.Row[Any], str], bytes]
"""A link's letter: from its `mail_link` row and the letter's Message-ID, made when it is sent."""


@dataclass
class Sent:
    """What became of the letters of one run."""

    accepted: int = 0
    later: int = 0
    refused: int = 0
    in_doubt: int = 0
    trouble: str = ""  # why the run ended before all were tried
    of: dict[int, str] = field(default_factory=dict)  # letter to state


@dataclass(frozen=True)
class Letter:
    """A letter that this sender has; see `claim`."""

    id: int
    recipient: str
    message: bytes
    attempts: int
    created: datetime

    def __repr__(self) -> str:
        return f"Letter({self.id})"


class Sender:
    """Sends what is due. clock: tells the time, in UTC."""

    def __init__(
        self,
        store: PageStore,
        settings: MailSettings,
        *,
        password: str,
        folder: Path,
        make_link: Make,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store, self._settings, self._make_link, self._clock = store, settings, make_link, clock
        self._password, self._folder = password, folder
        self._owner = f"{secrets.token_hex(4)} {this_owner()}"

    def run(self, only: int | None = None) -> Sent:
        """Send every letter that is due, or only this one. Never raises for a letter's or a server's fault."""
        sent = Sent()
        settle(self._store, self._clock(), timedelta(days=self._settings.keep_days))
        with ExitStack() as stack:
            session: Session | None = None
            letters = 0
            for identity in self._due(only):
                letter = self._claim(identity)
                if letter is None:
                    continue
                try:
                    if session is None or not session.usable or letters % PER_SESSION == 0:
                        stack.close()
                        session = stack.enter_context(Session(self._settings, self._password, self._folder))
                    letters += 1
                    self._send(session, letter, sent)
                except Unreachable as error:
                    sent.trouble = str(error)
                    log.warning("mail: %s: %s", self._settings.host, error)
                    break
                finally:
                    self._release(identity)
        return sent

    def _due(self, only: int | None) -> list[int]:
        now = stamp(self._clock())
        query = sa.select(LETTER.c.id).where(LETTER.c.state == "queued", LETTER.c.due <= now)
        if only is not None:
            query = query.where(LETTER.c.id == only)
        with self._store.read() as connection:
            return list(connection.scalars(query.order_by(LETTER.c.due, LETTER.c.id)))

    def _claim(self, identity: int) -> Letter | None:
        """Take a queued letter unless a living sender has it, or its subscription has ended."""
        now = self._clock()
        with self._store.write() as connection:
            row = connection.execute(
                sa.select(LETTER).where(LETTER.c.id == identity).with_for_update()
            ).one_or_none()
            if row is None or row.state != "queued" or row.due > stamp(now) or _held(row, now):
                return None
            where = LETTER.c.id == identity
            found = self._content(connection, row)
            if found is None:
                _end(connection, where, "refused", GONE)
                return None
            connection.execute(
                LETTER.update().where(where).values(owner=self._owner, until=stamp(now + LEASE))
            )
        return Letter(identity, *found, row.attempts, datetime.fromisoformat(row.created))

    def _content(self, connection: sa.Connection, row: sa.Row[Any]) -> tuple[str, bytes] | None:
        """Recipient and message. None if the letter is for nobody any more."""
        message_id = f"<{row.message_id}@{self._settings.sender.rpartition('@')[2]}>"
        if row.link is not None:
            link = connection.execute(sa.select(MAIL_LINK).where(MAIL_LINK.c.id == row.link)).one_or_none()
            if link is None or link.used is not None or link.expires <= stamp(self._clock()):
                return None
            return link.address, addressed(self._make_link(link, message_id), link.address)
        query = sa.select(SUBSCRIPTION.c.address).where(
            SUBSCRIPTION.c.id == row.subscription, SUBSCRIPTION.c.state == "active"
        )
        address = connection.scalar(query)
        return None if address is None else (address, addressed(row.message.encode("ascii"), address))

    def _send(self, session: Session, letter: Letter, sent: Sent) -> None:
        try:
            session.send(letter.recipient, letter.message, lambda: self._transmitting(letter))
        except NotNow as error:
            self._later(letter, str(error), sent)
        except Never as error:
            sent.refused += 1
            self._refused(letter, str(error), stop=error.about_address)
            sent.of[letter.id] = "refused"
        except InDoubt:
            sent.in_doubt += 1
            with self._store.write() as connection:
                _end(connection, self._mine(letter), "in doubt", "no answer to the final dot")
            sent.of[letter.id] = "in doubt"
        except Withdrawn:
            sent.of[letter.id] = "withdrawn"
        else:
            sent.accepted += 1
            self._accepted(letter)
            sent.of[letter.id] = "accepted"

    def _mine(self, letter: Letter) -> sa.ColumnElement[bool]:
        return (LETTER.c.id == letter.id) & (LETTER.c.owner == self._owner)

    def _transmitting(self, letter: Letter) -> bool:
        """Commit that the final dot comes next. False if the letter was taken over or deleted meanwhile."""
        with self._store.write() as connection:
            where = self._mine(letter) & (LETTER.c.state == "queued")
            values = {"state": "transmitting", "until": stamp(self._clock() + LEASE)}
            return connection.execute(LETTER.update().where(where).values(**values)).rowcount == 1

    def _accepted(self, letter: Letter) -> None:
        """The server has it, whatever became of the row meanwhile; what it said counts as told."""
        with self._store.write() as connection:
            row = connection.execute(sa.select(LETTER).where(LETTER.c.id == letter.id)).one_or_none()
            if row is None:
                return
            _end(connection, LETTER.c.id == letter.id, "accepted", "")
            if row.subscription is not None:
                connection.execute(
                    SUBSCRIPTION.update()
                    .where(SUBSCRIPTION.c.id == row.subscription, SUBSCRIPTION.c.told <= row.told)
                    .values(told=row.told, covered=row.covered)
                )

    def _later(self, letter: Letter, status: str, sent: Sent) -> None:
        now = self._clock()
        if now - letter.created > timedelta(hours=self._settings.give_up):
            sent.refused += 1
            sent.of[letter.id] = "refused"
            self._refused(letter, f"{status}, until it was given up", stop=False)
            return
        sent.later += 1
        sent.of[letter.id] = "queued"
        wait = min(timedelta(seconds=self._settings.backoff * 2.0 ** min(letter.attempts, 30)), LONGEST_WAIT)
        with self._store.write() as connection:
            connection.execute(
                LETTER.update()
                .where(self._mine(letter))
                .values(
                    state="queued",
                    owner="",
                    attempts=letter.attempts + 1,
                    due=stamp(now + wait),
                    reason=status,
                )
            )

    def _refused(self, letter: Letter, status: str, *, stop: bool) -> None:
        with self._store.write() as connection:
            subscription = connection.scalar(sa.select(LETTER.c.subscription).where(LETTER.c.id == letter.id))
            _end(connection, self._mine(letter), "refused", status)
            if stop and subscription is not None:
                stop_subscription(connection, subscription)

    def _release(self, identity: int) -> None:
        where = (LETTER.c.id == identity) & (LETTER.c.owner == self._owner) & (LETTER.c.state == "queued")
        with self._store.write() as connection:
            connection.execute(LETTER.update().where(where).values(owner=""))


def settle(store: PageStore, now: datetime, keep: timedelta) -> int:
    """Put in doubt what senders that are gone were transmitting; returns how many. Forgets what has expired.

    keep: how long a letter that is done with is known; its text went when it was. It is longer than any period, whose
    letter must not be composed twice, and than a bounce takes. What was told stands with the subscription.
    """
    with store.write() as connection:
        forget_old(connection, now)
        done = LETTER.c.state.in_(("accepted", "refused", "in doubt")) & LETTER.c.subscription.is_not(None)
        connection.execute(LETTER.delete().where(done, LETTER.c.created <= stamp(now - keep)))
        rows = connection.execute(sa.select(LETTER).where(LETTER.c.state == "transmitting")).all()
        lost = [row.id for row in rows if not _held(row, now)]
        for identity in lost:
            where = (LETTER.c.id == identity) & (LETTER.c.state == "transmitting")
            _end(connection, where, "in doubt", "its sender was stopped")
        return len(lost)


def stop_subscription(connection: sa.Connection, subscription: str) -> None:
    """No more letters until the address is confirmed anew; those that wait are refused."""
    connection.execute(SUBSCRIPTION.update().where(SUBSCRIPTION.c.id == subscription).values(state="stopped"))
    where = (LETTER.c.subscription == subscription) & (LETTER.c.state == "queued")
    _end(connection, where, "refused", GONE)


def addressed(message: bytes, recipient: str) -> bytes:
    """The message with its To: kept out of what is stored, so that addresses stand in one place."""
    return b"To: " + recipient.encode("ascii") + b"\r\n" + message


def _end(connection: sa.Connection, where: sa.ColumnElement[bool], state: str, reason: str) -> None:
    values = {"state": state, "reason": reason, "owner": "", "message": ""}
    connection.execute(LETTER.update().where(where).values(**values))


def _held(row: sa.Row[Any], now: datetime) -> bool:
    """Whether a sender that may be alive has the letter."""
    return bool(row.owner) and row.until > stamp(now) and alive(row.owner.partition(" ")[2])
