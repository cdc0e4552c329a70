"""Who runs what, and recording what came of it: leases with an owner, an expiry and a fencing number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from claimbench.ledger.database import Database
from claimbench.ledger.rows import moment, trial_values
from claimbench.ledger.schema import ARTEFACT, CODE, LEASE, MEMBER, TRIAL
from claimbench.spec import Result, TrialSpec, canonical, digest

VARIABLE = "CLAIMBENCH_LEASE"
LEASE_SECONDS = float(os.environ.get(VARIABLE) or 90.0)  # silence after which an owner counts as dead


class Leases(Database):
    """The part of the ledger that running trials needs."""

    def take(self, specs: Sequence[TrialSpec], environment: str, owner: str) -> bool:
        """Lease trials together before they run: False if somebody else holds any of them."""
        with self.write() as connection:
            now = self.now(connection)
            held = {}
            for spec in specs:
                row = connection.execute(
                    sa.select(LEASE).where(LEASE.c.key == spec.key, LEASE.c.environment == environment)
                ).one_or_none()
                if row is not None and row.owner != owner and row.owner and row.expires > now:
                    return False
                held[spec.key] = row
            for spec in specs:
                row = held[spec.key]
                values = {
                    "owner": owner,
                    "expires": now + LEASE_SECONDS,
                    "fence": (row.fence if row else self._last_fence(connection, spec, environment)) + 1,
                }
                if row is None:
                    connection.execute(LEASE.insert().values(key=spec.key, environment=environment, **values))
                else:
                    where = (LEASE.c.key == spec.key) & (LEASE.c.environment == environment)
                    connection.execute(LEASE.update().where(where).values(**values))
        return True

    def _last_fence(self, connection: sa.Connection, spec: TrialSpec, environment: str) -> int:
        query = sa.select(sa.func.max(TRIAL.c.fence)).where(
            TRIAL.c.key == spec.key, TRIAL.c.environment == environment
        )
        return connection.scalar(query) or 0

    def renew(self, owner: str) -> None:
        with self.write() as connection:
            values = {"expires": self.now(connection) + LEASE_SECONDS}
            connection.execute(LEASE.update().where(LEASE.c.owner == owner).values(**values))

    def release(self, owner: str, specs: Sequence[TrialSpec] | None = None) -> None:
        """Let go of these trials, or of all that the owner holds."""
        here = LEASE.c.owner == owner
        if specs is not None:
            here &= LEASE.c.key.in_([spec.key for spec in specs])
        with self.write() as connection:
            connection.execute(LEASE.update().where(here).values(owner="", expires=0.0))

    def record(
        self, results: Sequence[Result], environment: str, owner: str, sets: Sequence[str] = ()
    ) -> int:
        """Store a group's results in one transaction and fill the waiting members of these sets.

        A result whose lease has passed to another owner (this one slept or was cut off) is dropped: nothing is
        recorded twice. A lost trial is stored but fills no member, so that the next run tries it again.
        Returns how many were stored.
        """
        stored = 0
        with self.write() as connection:
            for result in results:
                spec = result.spec
                where = (LEASE.c.key == spec.key) & (LEASE.c.environment == environment)
                lease = connection.execute(sa.select(LEASE).where(where)).one_or_none()
                if lease is None or lease.owner != owner:
                    continue
                trial = connection.execute(
                    TRIAL.insert().values(
                        **trial_values(result, environment, lease.fence, self._code(connection, result))
                    )
                ).inserted_primary_key
                assert trial is not None
                if result.status != "lost":
                    here = (MEMBER.c.key == spec.key) & MEMBER.c.trial.is_(None) & MEMBER.c.set_uid.in_(sets)
                    connection.execute(MEMBER.update().where(here).values(trial=trial[0]))
                connection.execute(LEASE.update().where(where).values(owner="", expires=0.0))
                for key, seconds in result.artefacts.items():
                    if connection.scalar(sa.select(ARTEFACT.c.key).where(ARTEFACT.c.key == key)) is None:
                        values = {
                            "key": key,
                            "environment": environment,
                            "seconds": seconds,
                            "created": moment(),
                        }
                        connection.execute(ARTEFACT.insert().values(**values))
                stored += 1
        return stored

    def code_of(self, result: Result) -> str:
        """The identity of the code that a result was measured with."""
        with self.write() as connection:
            return self._code(connection, result)

    def _code(self, connection: sa.Connection, result: Result) -> str:
        identity = digest([result.modules, result.packages])
        if connection.scalar(sa.select(CODE.c.id).where(CODE.c.id == identity)) is None:
            values = {
                "id": identity,
                "modules": canonical(result.modules),
                "packages": canonical(result.packages),
            }
            connection.execute(CODE.insert().values(**values))
        return identity

    def held(self, keys: Iterable[str], environment: str, owner: str) -> bool:
        """Whether another owner holds a live lease on any of these trials."""
        query = sa.select(LEASE.c.key).where(
            LEASE.c.environment == environment, LEASE.c.owner > "", LEASE.c.owner != owner
        )
        with self.read() as connection:
            live = query.where(LEASE.c.expires > self.now(connection))
            return not set(connection.scalars(live)).isdisjoint(keys)

    def finished_since(self, watermark: int, keys: Sequence[str], environment: str) -> bool:
        """Whether somebody finished any of these trials after the watermark."""
        query = sa.select(TRIAL.c.id).where(
            TRIAL.c.id > watermark,
            TRIAL.c.key.in_(keys),
            TRIAL.c.environment == environment,
            TRIAL.c.status != "lost",
        )
        with self.read() as connection:
            return connection.scalar(query.limit(1)) is not None

    def newest_trial(self) -> int:
        """A watermark: the last trial's row number."""
        with self.read() as connection:
            return connection.scalar(sa.select(sa.func.max(TRIAL.c.id))) or 0
