"""Verdicts of sets, and what is kept ready of every set for lists and leaderboards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import sqlalchemy as sa

from claimbench.ledger.planned import Plans
from claimbench.ledger.rows import SetRow, moment, set_row
from claimbench.ledger.schema import MEMBER, SUMMARY, TRIAL, TRIAL_SET, VERDICT
from claimbench.ledger.summary import recount
from claimbench.rules.verdict import Verdict
from claimbench.spec import canonical


@dataclass(frozen=True)
class SetSummary:
    """A set in short. `state` is its latest verdict's; while `current`, it is the verdict of the trials as they are."""

    set_uid: str
    planned: int
    filled: int
    changes: int  # grows with all that a verdict is judged from
    judged_at: int
    state: str = ""
    members: str = ""  # digest of what was judged; empty if nobody has looked
    cells: str = ""  # the arms' numbers, as `claimbench.summaries` wrote them

    @property
    def current(self) -> bool:
        return self.judged_at == self.changes


class Verdicts(Plans):
    """The part of the ledger that verdicts lie in."""

    def summary(self, uid: str) -> SetSummary:
        """The set in short: right at every moment, whoever wrote last."""
        with self.read() as connection:
            row = connection.execute(sa.select(SUMMARY).where(SUMMARY.c.set_uid == uid)).one_or_none()
        return SetSummary(uid, 0, 0, 0, 0) if row is None else SetSummary(**row._mapping)

    def standings(self) -> list[tuple[SetRow, SetSummary]]:
        """The latest set of every plan with its summary (without cells), oldest first: what a list of papers shows."""
        latest = sa.select(sa.func.max(TRIAL_SET.c.serial)).group_by(
            TRIAL_SET.c.fingerprint, TRIAL_SET.c.environment, TRIAL_SET.c.scale, TRIAL_SET.c.replication
        )
        sets = sa.select(TRIAL_SET).where(TRIAL_SET.c.serial.in_(latest)).order_by(TRIAL_SET.c.serial)
        short = [column for column in SUMMARY.c if column.name != "cells"]
        summaries = (
            sa.select(*short)
            .join(TRIAL_SET, TRIAL_SET.c.uid == SUMMARY.c.set_uid)
            .where(TRIAL_SET.c.serial.in_(latest))
        )
        with self.read() as connection:
            kept = {row.set_uid: SetSummary(*row) for row in connection.execute(summaries)}
            rows = [set_row(row) for row in connection.execute(sets)]
        return [(row, kept.get(row.uid) or SetSummary(row.uid, 0, 0, 0, 0)) for row in rows]

    def summaries(self) -> dict[str, SetSummary]:
        """Every set in short, without its cells."""
        columns = [column for column in SUMMARY.c if column.name != "cells"]
        with self.read() as connection:
            rows = connection.execute(sa.select(*columns)).all()
        return {row.set_uid: SetSummary(*row) for row in rows}

    def content(self, uid: str) -> tuple[str, int]:
        """A digest of the trials that `judged` returns, and the number of changes at which it was taken.

        It is of which trials count, by their rows, which are never changed.
        """
        filled = (
            sa.select(MEMBER.c.key, TRIAL.c.id)
            .join(TRIAL, TRIAL.c.id == MEMBER.c.trial)
            .where(MEMBER.c.set_uid == uid)
        )
        lost = lost_trials(uid)
        query = filled.union_all(sa.select(TRIAL.c.key, TRIAL.c.id).where(TRIAL.c.id.in_(lost)))
        planned = sa.select(MEMBER.c.key).where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None))
        with self.read() as connection:
            changes = connection.scalar(sa.select(SUMMARY.c.changes).where(SUMMARY.c.set_uid == uid)) or 0
            rows = sorted(f"{row.key} {row.id}" for row in connection.execute(query))
            missing = sorted(connection.scalars(planned))
        return hashlib.sha256("\n".join([*rows, "", *missing]).encode()).hexdigest()[:32], changes

    def save_verdict(
        self,
        uid: str,
        verdict: Verdict,
        stamp: str,
        *,
        judged: tuple[str, int] | None = None,
        cells: str = "",
    ) -> None:
        """Append a set's verdict, unless it says what stands there already. stamp: what it was a function of.

        judged: what `content` said before the trials were read, so that the summary tells of later ones. cells: the
        arms' numbers of the same trials.
        """
        content = canonical(verdict.to_json())
        with self.write() as connection:
            last = connection.execute(
                sa.select(VERDICT).where(VERDICT.c.set_uid == uid).order_by(VERDICT.c.id.desc()).limit(1)
            ).one_or_none()
            if last is None or last.content != content:
                values = {"set_uid": uid, "state": verdict.state, "content": content, "stamp": stamp}
                connection.execute(VERDICT.insert().values(**values, created=moment()))
            elif last.stamp != stamp:
                connection.execute(VERDICT.update().where(VERDICT.c.id == last.id).values(stamp=stamp))
            if judged is not None:
                connection.execute(
                    SUMMARY.update()
                    .where(SUMMARY.c.set_uid == uid)
                    .values(state=verdict.state, members=judged[0], judged_at=judged[1], cells=cells)
                )

    def verdict(self, uid: str, stamp: str | None = None) -> Verdict | None:
        """The set's latest verdict; with a stamp, only if it was made from that."""
        with self.read() as connection:
            row = connection.execute(
                sa.select(VERDICT).where(VERDICT.c.set_uid == uid).order_by(VERDICT.c.id.desc()).limit(1)
            ).one_or_none()
        if row is None or stamp not in (None, row.stamp):
            return None
        return Verdict.from_json(json.loads(row.content))

    def first_rules(self, paper: str, claim: str, scale: str, replication: int) -> str | None:
        """The digest of the rules under which these seeds were first measured."""
        query = (
            sa.select(TRIAL_SET.c.rules_digest)
            .where(TRIAL_SET.c.paper == paper, TRIAL_SET.c.claim == claim, TRIAL_SET.c.scale == scale)
            .where(TRIAL_SET.c.replication == replication)
            .order_by(TRIAL_SET.c.serial)
            .limit(1)
        )
        with self.read() as connection:
            return connection.scalar(query)

    def recount(self) -> None:
        """Make the summaries of all sets anew from members and verdicts."""
        with self.write() as connection:
            recount(connection)


def lost_trials(uid: str) -> sa.Select[tuple[int]]:
    """Of each member that nothing fills the latest trial that was lost."""
    return (
        sa.select(sa.func.max(TRIAL.c.id))
        .join(MEMBER, MEMBER.c.key == TRIAL.c.key)
        .join(TRIAL_SET, TRIAL_SET.c.uid == MEMBER.c.set_uid)
        .where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None), TRIAL.c.status == "lost")
        .where(TRIAL.c.environment == TRIAL_SET.c.environment)
        .group_by(TRIAL.c.key)
    )
