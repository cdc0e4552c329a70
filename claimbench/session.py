"""One run on its way from plans to outcomes: sets are opened, filled by the runner, and judged."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from claimbench.ledger import LEASE_SECONDS, Ledger, SetRow, spec_of
from claimbench.machine import environment_facts, this_machine
from claimbench.plan import FIRST_SEED, Plan, choose_tuned, rules_digest
from claimbench.rules.verdict import Verdict
from claimbench.runner.local import Event, LocalRunner
from claimbench.spec import Group, Result, TrialSpec, canonical
from claimbench.verdicts import judge_set

DISTURBED_PASSES = 4  # how often a timing round that was disturbed is tried in one run


@dataclass(frozen=True)
class Step:
    """Something a progress display may show."""

    kind: Literal["planned", "started", "finished", "building", "retry", "judged"]
    claim: str
    total: int = 0
    message: str = ""


@dataclass
class Outcome:
    """What came of one claim in one run."""

    paper: str
    claim: str
    scale: str
    set_uid: str = ""
    verdict: Verdict | None = None
    ran: int = 0  # trials that ran in this call
    failed: int = 0  # of the set's trials
    missing: int = 0  # trials of the set, or of its tuning, that are still to be run
    skipped: str = ""  # why it was not run
    own: bool = False
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.claim}"


@dataclass
class Work:
    """A plan on its way: the set it writes, and what has come of it."""

    plan: Plan
    set: SetRow | None = None
    look: int = 0
    outcome: Outcome = field(default_factory=lambda: Outcome("", "", ""))


OnStep = Callable[[Step], None]
Wanted = Callable[[Plan, Group], bool]


class Session:
    """One call of `run` or `work`: the state between plans and outcomes.

    environments: by device; this machine's own unless given. wanted: the groups that this session is to run; the others
    are left to somebody else, and a set is judged when it is complete.
    """

    def __init__(
        self,
        ledger: Ledger,
        plans: Sequence[Plan],
        *,
        jobs: int,
        on_step: OnStep,
        environments: Mapping[str, str] | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self.ledger, self.jobs, self.on_step = ledger, jobs, on_step
        self.wanted = wanted
        self.owner = uuid.uuid4().hex
        self.works = [Work(p, outcome=Outcome(p.paper.id, p.claim.id, p.scale, own=p.own)) for p in plans]
        self.environments = environments or {
            device: ledger.remember_environment(environment_facts(device), this_machine().id)
            for device in {p.device for p in plans}
        }
        self._renewed = time.monotonic()

    def run(self, *, fresh: bool, until_decided: bool) -> list[Outcome]:
        try:
            self._tune()
            pending = [work for work in self.works if not work.outcome.skipped]
            for work in pending:
                self._open_set(work, fresh=fresh)
            while pending:
                self._measure(pending)
                for work in pending:
                    self._judge(work)
                pending = [w for w in pending if until_decided and self._next_look(w)]
            return [work.outcome for work in self.works]
        finally:
            self.ledger.release(self.owner)

    def open(self) -> list[Work]:
        """Write the sets, with what was measured already, and run nothing.

        A claim with a grid has its tuning as its set until that is complete.
        """
        self._tune(run=False)
        for work in self.works:
            if not work.outcome.skipped:
                self._open_set(work, fresh=False)
                assert work.set is not None
                self.ledger.reuse(work.set.uid, work.set.environment)
        return self.works

    # --- planning ---

    def _tune(self, *, run: bool = True) -> None:
        """Choose every arm's hyper-parameters from the claim's grid, on validation data and seeds of their own.

        Where tuning trials were lost (killed from outside), nothing is chosen: no arm may have had fewer than others.
        """
        tuning = {w.plan.name: w.plan.tuning_specs() for w in self.works if w.plan.claim.tuning}
        if not tuning:
            return
        rows: dict[str, SetRow] = {}
        for work in (w for w in self.works if w.plan.name in tuning):
            rows[work.plan.name] = work.set = self._find_or_create(
                work.plan, tuning[work.plan.name], kind="tuning"
            )
        if run:
            self._fill(
                {
                    name: (w.plan, rows[name], tuning[name])
                    for w in self.works
                    if (name := w.plan.name) in tuning
                }
            )
        else:
            for row in rows.values():
                self.ledger.reuse(row.uid, row.environment)
        for work in (w for w in self.works if w.plan.name in tuning):
            uid = rows[work.plan.name].uid
            lost = len(self.ledger.unfinished(uid))
            if lost:
                work.outcome.failed = work.outcome.missing = lost
                why = "were lost; the same command runs them again" if run else "come first"
                work.outcome.skipped = f"{lost} tuning trials {why}"
                continue
            scored = [
                (spec_of(t), t["metrics"] if t["status"] == "ok" else {}) for t in self.ledger.trials(uid)
            ]
            work.plan = work.plan.with_tuned(choose_tuned(work.plan, scored))

    def _open_set(self, work: Work, *, fresh: bool) -> None:
        if fresh:
            work.plan = replicated(self.ledger, work.plan)
        look = work.plan.specs(work.plan.seeds(work.plan.schedule[0]))
        work.set = self._find_or_create(work.plan, look)
        planned = len(self.ledger.members(work.set.uid))
        done = planned / max(1, len(look) / work.plan.schedule[0])
        work.look = sum(
            1 for n in work.plan.schedule[1:] if done >= n
        )  # a set that was extended before stays so
        work.outcome.set_uid = work.set.uid

    def _find_or_create(self, plan: Plan, specs: Sequence[TrialSpec], *, kind: str = "") -> SetRow:
        """The newest set of this plan whose trials are current, else a new one."""
        environment = self.environments[plan.device]
        fingerprint = (
            f"{plan.fingerprint}{kind}" if not plan.tuned else f"{plan.fingerprint}{canonical(plan.tuned)}"
        )
        same = self.ledger.sets(fingerprint=fingerprint, environment=environment)
        if same and not self.ledger.stale(same[-1].uid):
            row = same[-1]
        else:
            claim = plan.claim
            row = self.ledger.create_set(
                paper=plan.paper.id,
                claim=f"{claim.id}#{kind}" if kind else claim.id,
                scale=plan.scale,
                environment=environment,
                fingerprint=fingerprint,
                replication=plan.replication,
                own=plan.own,
                plan={**plan.content(), "tuned": dict(plan.tuned)},
                rules_digest=rules_digest(claim),
                claim_text=claim.model_dump_json(exclude_defaults=True),
                newest=same[-1].serial if same else 0,
            )
        self.ledger.add_members(row.uid, specs)
        return row

    def _next_look(self, work: Work) -> bool:
        """Plan the schedule's next look if the set is undecided for want of seeds."""
        verdict = work.outcome.verdict
        if verdict is None or verdict.state != "undecided" or work.look + 1 >= len(work.plan.schedule):
            return False
        work.look += 1
        assert work.set is not None
        self.ledger.add_members(work.set.uid, work.plan.specs(work.plan.seeds(work.plan.schedule[work.look])))
        return True

    # --- measuring ---

    def _measure(self, works: Sequence[Work]) -> None:
        jobs = {}
        for work in works:
            assert work.set is not None
            specs = work.plan.specs(work.plan.seeds(work.plan.schedule[work.look]))
            jobs[work.plan.name] = (work.plan, work.set, specs)
        ran = self._fill(jobs)
        for work in works:
            work.outcome.ran += ran.get(work.plan.name, 0)

    def _fill(self, jobs: Mapping[str, tuple[Plan, SetRow, Sequence[TrialSpec]]]) -> dict[str, int]:
        """Run what the sets lack. Ends when every trial is there, or has been tried as often as it may."""
        ran: dict[str, int] = dict.fromkeys(jobs, 0)
        tried: dict[str, int] = {}
        for name, (plan, row, specs) in jobs.items():
            self.ledger.reuse(row.uid, row.environment)
            missing = self.ledger.unfinished(row.uid)
            lacking = [s for group in self._lacking(plan, specs, missing) for s in group.specs]
            self.on_step(Step("planned", name, total=sum(s.key in missing for s in lacking)))
        while True:
            watermark = (
                self.ledger.newest_trial()
            )  # before looking: what is finished from here on is seen below
            groups: dict[str, Group] = {}
            owners: dict[str, list[str]] = {}
            for name, (plan, row, specs) in jobs.items():
                for group in self._lacking(plan, specs, self.ledger.unfinished(row.uid)):
                    if tried.get(group.key, 0) < (DISTURBED_PASSES if group.timing else 1):
                        groups.setdefault(group.key, group)
                        owners.setdefault(group.key, []).append(name)
            if not groups:
                return ran
            self._prepare(
                [jobs[name][0] for name in dict.fromkeys(n for names in owners.values() for n in names)]
            )
            self._run_groups(groups, owners, jobs, ran, tried, watermark)

    def _lacking(self, plan: Plan, specs: Sequence[TrialSpec], missing: set[str]) -> list[Group]:
        """The calls of the measure that would fill what is missing, of those that are wanted."""
        whole = plan.claim.timing  # a round holds every arm; otherwise only what is missing runs again
        groups = plan.groups([s for s in specs if whole or s.key in missing])
        return [
            group
            for group in groups
            if any(s.key in missing for s in group.specs)
            and (self.wanted is None or self.wanted(plan, group))
        ]

    def _prepare(self, plans: Sequence[Plan]) -> None:
        """Fetch and build subjects before the trials that use them, so that no trial's time is spent on it."""
        for plan in plans:
            if plan.subjects:
                from claimbench.subjects import prepare

                self.on_step(Step("building", plan.name, message="its subjects"))
                prepare(plan.subjects.values())

    def _run_groups(
        self,
        groups: Mapping[str, Group],
        owners: Mapping[str, Sequence[str]],
        jobs: Mapping[str, tuple[Plan, SetRow, Sequence[TrialSpec]]],
        ran: dict[str, int],
        tried: dict[str, int],
        watermark: int,
    ) -> None:
        busy: list[Group] = []

        def place(group: Group) -> tuple[str, list[str]]:
            names = owners[group.key]
            return jobs[names[0]][1].environment, [jobs[n][1].uid for n in names]

        def begin(group: Group) -> bool:
            environment, uids = place(group)
            if self.wanted is not None and not self.wanted(jobs[owners[group.key][0]][0], group):
                return False
            if not self.ledger.take(group.specs, environment, self.owner):
                busy.append(group)
                return False
            keys = [spec.key for spec in group.specs]
            if self.ledger.finished_since(watermark, keys, environment):
                for uid in uids:
                    self.ledger.reuse(uid, environment)
                if not any(self.ledger.lacks(uid, keys) for uid in uids):
                    self.ledger.release(self.owner, group.specs)
                    for name in owners[group.key]:
                        self.on_step(Step("finished", name, total=len(keys)))
                    return False
            return True

        def finish(group: Group, results: list[Result]) -> None:
            tried[group.key] = tried.get(group.key, 0) + 1
            environment, uids = place(group)
            if group.timing and any(result.timing.get("disturbed") for result in results):
                reason = next(str(r.timing.get("reason", "")) for r in results if r.timing.get("disturbed"))
                for result in results:
                    result.status, result.failure = "lost", f"disturbed: {reason}"
                self.ledger.record(results, environment, self.owner, uids)
                again = tried[group.key] < DISTURBED_PASSES
                self.on_step(
                    Step(
                        "retry" if again else "finished",
                        owners[group.key][0],
                        len(results),
                        f"disturbed: {reason}",
                    )
                )
                return
            self.ledger.record(results, environment, self.owner, uids)
            for name in owners[group.key]:
                ran[name] += len(results)
                failures = [r.failure for r in results if r.status in ("failed", "lost")]
                self.on_step(
                    Step("finished", name, total=len(results), message=failures[0] if failures else "")
                )

        def tick() -> None:
            if time.monotonic() - self._renewed > LEASE_SECONDS / 4:
                self.ledger.renew(self.owner)
                self._renewed = time.monotonic()

        building: dict[str, str] = {}  # group -> the set-up it waits for

        def event(happened: Event) -> None:
            if happened.kind == "building":
                building[happened.group.key] = happened.message
            else:
                building.pop(happened.group.key, None)
            for name in owners[happened.group.key]:
                if happened.kind in ("building", "retry"):
                    self.on_step(Step(happened.kind, name, message=happened.message))
                elif happened.kind in ("started", "progress") and not any(
                    name in owners[k] for k in building
                ):
                    self.on_step(Step("started", name))

        runner = LocalRunner(jobs=self.jobs, on_event=event)
        runner.run(list(groups.values()), begin=begin, finish=finish, tick=tick)
        if busy and len(busy) == len(groups):
            self._wait_for_others(busy, owners, place)
        for group in busy:
            environment, uids = place(group)
            for name, uid in zip(owners[group.key], uids, strict=True):
                self.ledger.reuse(uid, environment)
                if not self.ledger.lacks(uid, [spec.key for spec in group.specs]):
                    self.on_step(Step("finished", name, total=len(group.specs)))

    def _wait_for_others(
        self,
        busy: Sequence[Group],
        owners: Mapping[str, Sequence[str]],
        place: Callable[[Group], tuple[str, list[str]]],
    ) -> None:
        """Another run holds all that is left: wait until it lets go of something."""
        keys = {group.key: [s.key for s in group.specs] for group in busy}
        for name in {name for group in busy for name in owners[group.key]}:
            self.on_step(Step("started", name, message="waiting for trials that others run"))
        while all(self.ledger.held(keys[g.key], place(g)[0], self.owner) for g in busy):
            time.sleep(0.5)

    # --- judging ---

    def _judge(self, work: Work) -> None:
        assert work.set is not None
        work.outcome.missing = len(self.ledger.unfinished(work.set.uid))
        if self.wanted is not None and work.outcome.missing:
            return  # somebody else's trials
        work.outcome.verdict = judge_set(self.ledger, work.set, work.plan.claim, work.plan.paper)
        work.outcome.failed = self.ledger.failed(work.set.uid)
        state = work.outcome.verdict.state if work.outcome.verdict else "measured"
        self.on_step(Step("judged", work.plan.name, message=state))


def replicated(ledger: Ledger, plan: Plan) -> Plan:
    """The plan's next replication, on seeds that none before it has used; development has none."""
    if plan.first_seed < FIRST_SEED:
        return plan
    known = ledger.sets(paper=plan.paper.id, claim=plan.claim.id)
    last = max((s.replication for s in known if s.scale == plan.scale), default=-1)
    return replace(plan, replication=last + 1, first_seed=FIRST_SEED * (last + 2))
