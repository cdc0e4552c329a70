"""Running what planned sets lack, beside any number of others who do the same.

A trial is leased before it runs, so that none runs twice at once; a worker that is killed falls silent, its leases end,
and whoever comes next takes its trials. Nothing here depends on how a worker was started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from claimbench.bench import select_claims
from claimbench.errors import UserError
from claimbench.ledger import Ledger, PlannedRow
from claimbench.machine import environments, this_machine
from claimbench.plan import Plan
from claimbench.session import OnStep, Outcome, Session, Step
from claimbench.shelf import Shelf, ask_trust
from claimbench.spec import Group
from claimbench.work.patience import patient
from claimbench.work.planning import Differs, code_differs, read, trials_differ

LOOK_AGAIN = 1.0  # seconds between two looks at a paper's sources


@dataclass(frozen=True)
class Shard:
    """Part `number` of `of`, counted from 1: trials by their identity, whoever plans or asks."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(f'--shard: "{text}" is no part; write it as 1/8, the first of eight')
        return cls(int(number), int(of))

    def holds(self, group: Group) -> bool:
        return int(group.key, 16) % self.of == self.number - 1


@dataclass
class Worked:
    """What came of one call: an outcome for each plan worked at, and a line for each plan refused."""

    outcomes: list[Outcome] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def work(
    targets: Sequence[str] = (),
    *,
    ledger: Ledger,
    shelf: Shelf | None = None,
    shard: Shard | None = None,
    jobs: int | None = None,
    on_step: OnStep | None = None,
    may_trust: Callable[[Path], bool] | None = None,
) -> Worked:
    """Run what plans in the ledger lack, of these papers and claims or of all, until nothing is missing.

    Without a shard it waits for trials that others hold, and takes them if those fall silent. With one it leaves when
    its part is done; tuning, which every part needs, is shared among whoever is there. Raises UserError where nothing
    is planned for this machine, and for what `claimbench run` would raise it.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs: {jobs} is none; give 1 or more")
    ledger = patient(ledger, lambda why: (on_step or _silent)(Step("retry", "", message=why)))
    worker = _Worker(ledger, shelf or Shelf.find(), shard, jobs or this_machine().cores, on_step, may_trust)
    worker.select(targets)
    worker.run()
    return Worked(list(worker.outcomes.values()), list(worker.refused.values()))


def _silent(step: Step) -> None:
    """Nobody wants to know."""


@dataclass
class _Batch:
    """Plans that one session can run: no two of one claim, one environment a device, one way of ending."""

    until_decided: bool
    plans: list[tuple[PlannedRow, Plan]] = field(default_factory=list)
    environments: dict[str, str] = field(default_factory=dict)

    def fits(self, row: PlannedRow, plan: Plan) -> bool:
        return (
            row.content["until_decided"] == self.until_decided
            and all(plan.name != other.name for _, other in self.plans)
            and self.environments.get(plan.device, row.environment) == row.environment
        )

    def add(self, row: PlannedRow, plan: Plan) -> None:
        self.plans.append((row, plan))
        self.environments[plan.device] = row.environment


class _Worker:
    def __init__(
        self,
        ledger: Ledger,
        shelf: Shelf,
        shard: Shard | None,
        jobs: int,
        on_step: OnStep | None,
        may_trust: Callable[[Path], bool] | None,
    ) -> None:
        self.ledger, self.shelf, self.shard, self.jobs = ledger, shelf, shard, jobs
        self.on_step, self.may_trust = on_step or _silent, may_trust
        self.outcomes: dict[str, Outcome] = {}  # by the plan's id
        self.refused: dict[str, str] = {}
        self._left: set[str] = set()  # plans in which this worker could do no more
        self._claims: set[tuple[str, str]] | None = None
        self._looked: dict[str, float] = {}

    def select(self, targets: Sequence[str]) -> None:
        """Raises UserError if none of these is planned, or nothing is planned for machines like this."""
        if targets:
            chosen = select_claims(self.shelf, targets)
            self._claims = {(paper.id, claim.id) for paper, claim in chosen}
        planned = [row for row in self.ledger.plans() if self._is_meant(row)]
        if not planned:
            finished = any(self._is_meant(row) for row in self.ledger.plans(done=True))
            if targets and not finished:
                raise UserError(
                    f"{' '.join(targets)}: not planned in {self.ledger.url}; claimbench plan {' '.join(targets)}"
                )
        elif not self._mine(planned):
            first = planned[0]
            raise UserError(
                f"{first.paper}/{first.claim} was planned for machines like {first.content['machine']}; this one is "
                f"{this_machine().label()}: work there, or run claimbench plan on a machine like this"
            )

    def run(self) -> None:
        while rows := [
            row
            for row in self._mine([row for row in self.ledger.plans() if self._is_meant(row)])
            if row.id not in self._left | self.refused.keys()
        ]:
            for batch in self._batches(rows):
                self._run(batch)

    def _is_meant(self, row: PlannedRow) -> bool:
        return self._claims is None or (row.paper, row.claim) in self._claims

    def _mine(self, rows: Sequence[PlannedRow]) -> list[PlannedRow]:
        here = environments({row.content["device"] for row in rows})
        return [row for row in rows if row.environment in here]

    def _batches(self, rows: Sequence[PlannedRow]) -> list[_Batch]:
        batches: list[_Batch] = []
        for row in rows:
            try:
                plan = read(row, self.shelf)
            except Differs as differs:
                self.refused[row.id] = str(differs)
                continue
            differing = trials_differ(row, plan, self.ledger)
            if differing:
                self.refused[row.id] = differing
                continue
            batch = next((b for b in batches if b.fits(row, plan)), None)
            if batch is None:
                batches.append(batch := _Batch(row.content["until_decided"]))
            batch.add(row, plan)
        return batches

    def _run(self, batch: _Batch) -> None:
        ask_trust([plan.paper.folder for _, plan in batch.plans], self.may_trust)
        rows = {plan.name: row for row, plan in batch.plans}

        def wanted(plan: Plan, group: Group) -> bool:
            row = rows[plan.name]
            if not self._is_as_planned(row, plan):
                return False
            tuning = bool(group.specs[0].size.get("tuning"))
            return self.shard is None or tuning or self.shard.holds(group)

        session = Session(
            self.ledger,
            [plan for _, plan in batch.plans],
            jobs=self.jobs,
            on_step=self.on_step,
            environments=batch.environments,
            wanted=wanted,
        )
        for outcome in session.run(fresh=False, until_decided=batch.until_decided):
            self._keep(rows[outcome.name], outcome)

    def _is_as_planned(self, row: PlannedRow, plan: Plan) -> bool:
        """Whether the sources are still what was planned: somebody may edit them while this runs."""
        if row.id not in self.refused and time.monotonic() - self._looked.get(row.id, 0.0) > LOOK_AGAIN:
            differing = code_differs(row, plan)
            if differing:
                self.refused[row.id] = differing
            self._looked[row.id] = time.monotonic()
        return row.id not in self.refused

    def _keep(self, row: PlannedRow, outcome: Outcome) -> None:
        before = self.outcomes.get(row.id)
        stuck = not outcome.ran or (before is not None and before.missing == outcome.missing)
        if before is not None:
            outcome.ran += before.ran
        self.outcomes[row.id] = outcome
        if not outcome.missing and not outcome.skipped:
            self.ledger.finish_plan(row.id)
        elif stuck:
            self._left.add(row.id)
