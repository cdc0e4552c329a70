"""Plans that wait for workers: what a machine that never saw the command line needs to run a set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from claimbench.ledger.leases import Leases
from claimbench.ledger.rows import moment
from claimbench.ledger.schema import PLANNED
from claimbench.spec import canonical


@dataclass(frozen=True)
class PlannedRow:
    """One plan as stored. `id` stands for the plan in its environment; a later plan of the same replaces it."""

    id: str
    paper: str
    claim: str
    scale: str
    environment: str
    content: dict[str, Any]
    created: str


class Plans(Leases):
    """The part of the ledger that workers find their work in."""

    def keep_plan(
        self, identity: str, *, paper: str, claim: str, scale: str, environment: str, content: dict[str, Any]
    ) -> None:
        """Write a plan for workers to find, or take it up again with this content."""
        values = {
            "paper": paper,
            "claim": claim,
            "scale": scale,
            "environment": environment,
            "content": canonical(content),
            "done": 0,
            "created": moment(),
        }
        with self.write() as connection:
            here = PLANNED.c.id == identity
            if connection.scalar(sa.select(PLANNED.c.id).where(here)) is None:
                connection.execute(PLANNED.insert().values(id=identity, **values))
            else:
                connection.execute(PLANNED.update().where(here).values(**values))

    def plans(self, *, done: bool = False) -> list[PlannedRow]:
        """Plans that nobody has finished, or those that somebody has, oldest first."""
        query = sa.select(PLANNED).where(PLANNED.c.done == int(done))
        with self.read() as connection:
            rows = [
                dict(row._mapping)
                for row in connection.execute(query.order_by(PLANNED.c.created, PLANNED.c.id))
            ]
        return [
            PlannedRow(
                **{name: value for name, value in row.items() if name not in ("done", "content")},
                content=json.loads(row["content"]),
            )
            for row in rows
        ]

    def finish_plan(self, identity: str) -> None:
        """Its set is complete and judged: workers look for it no longer."""
        with self.write() as connection:
            connection.execute(PLANNED.update().where(PLANNED.c.id == identity).values(done=1))
