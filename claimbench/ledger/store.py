"""Sets, their trials and their verdicts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from claimbench.currency import changed
from claimbench.ledger.rows import SetRow, decode, decoded, moment, set_row, set_values
from claimbench.ledger.schema import (
    CARRY,
    CODE,
    ENVIRONMENT,
    MEMBER,
    TRIAL,
    TRIAL_SET,
)
from claimbench.ledger.verdicts import Verdicts, lost_trials
from claimbench.rules.verdict import Judged
from claimbench.spec import TrialSpec, canonical, digest


class Ledger(Verdicts):
    """The append-only store. A set's members point at the trials that count for it."""

    def __init__(self, where: str | Path | None = None) -> None:
        super().__init__(where)
        self._codes: dict[str, tuple[dict[str, str], dict[str, str]]] = {}  # a code's identity is its content
        self._environments: dict[str, dict[str, Any]] = {}  # so is an environment's

    # --- environments and code ---

    def remember_environment(self, facts: dict[str, Any], machine: str) -> str:
        identity = digest(facts)
        with self.write() as connection:
            known = connection.scalar(sa.select(ENVIRONMENT.c.id).where(ENVIRONMENT.c.id == identity))
            if known is None:
                connection.execute(
                    ENVIRONMENT.insert().values(id=identity, machine=machine, facts=canonical(facts))
                )
        return identity

    def environment(self, identity: str) -> dict[str, Any]:
        if identity not in self._environments:
            with self.read() as connection:
                facts = connection.scalar(sa.select(ENVIRONMENT.c.facts).where(ENVIRONMENT.c.id == identity))
            if not facts:
                return {}
            self._environments[identity] = json.loads(facts)
        return self._environments[identity]

    # --- sets ---

    def create_set(
        self,
        *,
        paper: str,
        claim: str,
        scale: str,
        environment: str,
        fingerprint: str,
        replication: int,
        own: bool,
        plan: dict[str, Any],
        rules_digest: str,
        claim_text: str,
        newest: int | None = None,
    ) -> SetRow:
        """Write a set with its plan, before its first trial.

        newest: the serial of the last set of this plan that the caller has seen, 0 if none. If another process has
        written one since, that one is returned.
        """
        with self.write() as connection:
            if newest is not None:
                later = sa.select(TRIAL_SET).where(
                    TRIAL_SET.c.fingerprint == fingerprint,
                    TRIAL_SET.c.environment == environment,
                    TRIAL_SET.c.serial > newest,
                )
                found = connection.execute(later.order_by(TRIAL_SET.c.serial.desc()).limit(1)).one_or_none()
                if found is not None:
                    return set_row(found)
            serial = (connection.scalar(sa.select(sa.func.max(TRIAL_SET.c.serial))) or 0) + 1
            created = moment()
            uid = digest([paper, claim, scale, environment, fingerprint, serial, created, time.time_ns()])[
                :16
            ]
            row = SetRow(
                uid,
                serial,
                paper,
                claim,
                scale,
                environment,
                fingerprint,
                replication,
                own,
                plan,
                rules_digest,
                claim_text,
                created,
            )
            connection.execute(TRIAL_SET.insert().values(**set_values(row)))
        return row

    def add_members(self, uid: str, specs: Iterable[TrialSpec]) -> None:
        """Plan trials into a set. A member that is there already stays as it is."""
        rows = [{"set_uid": uid, "key": spec.key, "seed": spec.seed, "trial": None} for spec in specs]
        with self.write() as connection:
            known = set(connection.scalars(sa.select(MEMBER.c.key).where(MEMBER.c.set_uid == uid)))
            missing = [row for row in rows if row["key"] not in known]
            if missing:
                connection.execute(MEMBER.insert(), missing)

    def sets(
        self,
        *,
        paper: str | None = None,
        claim: str | None = None,
        fingerprint: str | None = None,
        environment: str | None = None,
    ) -> list[SetRow]:
        """Sets, oldest first."""
        query = sa.select(TRIAL_SET).order_by(TRIAL_SET.c.serial)
        for column, value in (
            (TRIAL_SET.c.paper, paper),
            (TRIAL_SET.c.claim, claim),
            (TRIAL_SET.c.fingerprint, fingerprint),
            (TRIAL_SET.c.environment, environment),
        ):
            if value is not None:
                query = query.where(column == value)
        with self.read() as connection:
            return [set_row(row) for row in connection.execute(query)]

    def unfinished(self, uid: str) -> set[str]:
        """Keys of the set's members that no trial has filled."""
        with self.read() as connection:
            query = sa.select(MEMBER.c.key).where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None))
            return set(connection.scalars(query))

    def lacks(self, uid: str, keys: Sequence[str]) -> bool:
        """Whether no trial has filled some of these members."""
        query = sa.select(MEMBER.c.key).where(
            MEMBER.c.set_uid == uid, MEMBER.c.key.in_(keys), MEMBER.c.trial.is_(None)
        )
        with self.read() as connection:
            return connection.scalar(query.limit(1)) is not None

    def members(self, uid: str) -> dict[str, int | None]:
        """The set's members: trial key -> row of the trial that fills it, or None."""
        with self.read() as connection:
            query = sa.select(MEMBER.c.key, MEMBER.c.trial).where(MEMBER.c.set_uid == uid)
            return {row.key: row.trial for row in connection.execute(query)}

    def discarded(self, uid: str) -> int:
        """How many timing rounds of the set were discarded as disturbed and then measured."""
        query = (
            sa.select(TRIAL.c.seed, TRIAL.c.point, TRIAL.c.fence)
            .join(MEMBER, MEMBER.c.key == TRIAL.c.key)
            .join(TRIAL_SET, TRIAL_SET.c.uid == MEMBER.c.set_uid)
            .where(MEMBER.c.set_uid == uid, TRIAL.c.environment == TRIAL_SET.c.environment)
            .where(TRIAL.c.status == "lost", TRIAL.c.failure.like("disturbed%"))
            .distinct()
        )
        with self.read() as connection:
            return len(connection.execute(query).all())

    def stale(self, uid: str) -> list[str]:
        """What changed in code or packages since the set's trials were measured; empty if the set is current."""
        with self.read() as connection:
            carried = connection.scalar(
                sa.select(CARRY.c.code).where(CARRY.c.set_uid == uid).order_by(CARRY.c.id.desc()).limit(1)
            )
            codes = (
                sa.select(TRIAL.c.code)
                .join(MEMBER, MEMBER.c.trial == TRIAL.c.id)
                .where(MEMBER.c.set_uid == uid)
            )
            wanted = [carried] if carried else list(connection.scalars(codes.distinct()))
        return sorted({name for code in wanted for name in self._changed(code)})

    def carry(self, uid: str, code: str, trials: int) -> None:
        """A recheck under changed code gave the same numbers: the set goes on as current."""
        with self.write() as connection:
            connection.execute(CARRY.insert().values(set_uid=uid, code=code, trials=trials, created=moment()))

    def _changed(self, code: str) -> list[str]:
        if code not in self._codes:
            with self.read() as connection:
                row = connection.execute(sa.select(CODE).where(CODE.c.id == code)).one()
            self._codes[code] = (json.loads(row.modules), json.loads(row.packages))
        return changed(*self._codes[code])

    def reuse(self, uid: str, environment: str) -> int:
        """Fill members from trials that other sets have measured and that are current. Returns how many."""
        with self.read() as connection:
            query = (
                sa.select(TRIAL.c.key, TRIAL.c.id, TRIAL.c.code)
                .join(MEMBER, MEMBER.c.key == TRIAL.c.key)
                .where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None))
                .where(TRIAL.c.environment == environment, TRIAL.c.status != "lost")
                .order_by(TRIAL.c.id)
            )
            found = {(row.key, row.code): row.id for row in connection.execute(query)}
        current = {code: not self._changed(code) for code in {code for _, code in found}}
        fill = {key: trial for (key, code), trial in found.items() if current[code]}
        with self.write() as connection:
            for key, trial in fill.items():
                where = (MEMBER.c.set_uid == uid) & (MEMBER.c.key == key)
                connection.execute(MEMBER.update().where(where).values(trial=trial))
        return len(fill)

    def failed(self, uid: str) -> int:
        """How many of the set's trials failed, or are missing because they were lost."""
        failed = sa.select(sa.func.count()).select_from(MEMBER).join(TRIAL, MEMBER.c.trial == TRIAL.c.id)
        with self.read() as connection:
            own = connection.scalar(failed.where(MEMBER.c.set_uid == uid, TRIAL.c.status == "failed"))
        return int(own or 0) + len(self.unfinished(uid))

    def judged(self, uid: str) -> list[Judged]:
        """The set's trials as the rules see them: those that fill its members, and lost ones where nothing does."""
        columns = [TRIAL.c[n] for n in ("arm", "point", "seed", "status", "metrics", "failure", "timing")]
        filled = (
            sa.select(*columns, TRIAL.c.id)
            .join(MEMBER, MEMBER.c.trial == TRIAL.c.id)
            .where(MEMBER.c.set_uid == uid)
        )
        latest = lost_trials(uid)
        query = sa.union_all(filled, sa.select(*columns, TRIAL.c.id).where(TRIAL.c.id.in_(latest))).order_by(
            "seed", "id"
        )
        with self.read() as connection:
            return [
                Judged(
                    arm=row.arm,
                    point=decode(row.point),
                    seed=row.seed,
                    status=row.status,
                    metrics=json.loads(row.metrics),
                    failure=row.failure,
                    aa=decode(row.timing).get("aa"),
                )
                for row in connection.execute(query)
            ]

    def trials(self, uid: str) -> list[dict[str, Any]]:
        """The set's trials in full, JSON columns decoded."""
        query = (
            sa.select(TRIAL)
            .join(MEMBER, MEMBER.c.trial == TRIAL.c.id)
            .where(MEMBER.c.set_uid == uid)
            .order_by(TRIAL.c.id)
        )
        with self.read() as connection:
            return [decoded(row) for row in connection.execute(query)]

    def expected_seconds(self, paper: str, measure: str) -> float | None:
        """Median seconds of this measure's finished trials (contended; for expectations only)."""
        query = sa.select(TRIAL.c.seconds).where(
            TRIAL.c.paper == paper, TRIAL.c.measure == measure, TRIAL.c.status == "ok"
        )
        with self.read() as connection:
            seconds = sorted(connection.scalars(query.order_by(TRIAL.c.id.desc()).limit(200)))
        return seconds[len(seconds) // 2] if seconds else None
