"""From targets to verdicts: shelf, plan, ledger, runner and rules, in that order and no other.

What the command line does, as functions. `run` takes paths, names and in-memory objects as subjects.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from claimbench.currency import source_digest
from claimbench.errors import UserError, nearest
from claimbench.ledger import LEASE_SECONDS, Ledger, SetRow, spec_of
from claimbench.machine import choose_device, environment_facts, memory_bytes, this_machine
from claimbench.paper import SCALES, Claim, Paper
from claimbench.plan import FIRST_SEED, Overrides, Plan, choose_tuned, make_plan, rules_digest
from claimbench.rules.verdict import Verdict
from claimbench.runner.local import Event, LocalRunner
from claimbench.shelf import Entry, Shelf, is_trusted, load_claims, package_of, trust
from claimbench.spec import Group, Result, SubjectRef, TrialSpec, canonical, digest
from claimbench.trial import Derive, registry

DISTURBED_PASSES = 4  # how often a timing round that was disturbed is tried in one run
MODEL_KINDS = ("causal-lm",)
DATA_KINDS = ("text", "table", "images")


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


def select_claims(
    shelf: Shelf, targets: Sequence[str], *, group: str | None = None, everything: bool = False
) -> list[tuple[Paper, Claim]]:
    """The claims meant by the words of the command line, in shelf order, each once."""
    if not targets and group is None and not everything:
        raise UserError("nothing to run: name a PAPER or PAPER/CLAIM, or use --group GROUP or --all")
    found: dict[str, tuple[Paper, Claim]] = {}
    names = list(targets)
    if group is not None:
        groups = {entry.group for entry in shelf.entries.values()}
        if group not in groups:
            raise UserError(f'--group: no group "{group}" on the shelf{nearest(group, groups)}')
        names += [entry.id for entry in shelf.entries.values() if entry.group == group]
    if everything:
        names += list(shelf.entries)
    for name in names:
        paper, claims = shelf.resolve(name)
        for claim in claims:
            found.setdefault(f"{paper.id}/{claim.id}", (paper, claim))
    return list(found.values())


def plan(
    targets: str | Sequence[str] = (),
    *,
    group: str | None = None,
    everything: bool = False,
    scale: str = "quick",
    device: str = "auto",
    sizes: Mapping[str, Any] | None = None,
    at: Mapping[str, Sequence[Any]] | None = None,
    arms: Sequence[str] = (),
    subjects: Mapping[str, Any] | None = None,
    model: Any = None,
    data: Any = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    development: bool = False,
    shelf: Shelf | None = None,
) -> tuple[list[Plan], list[Outcome]]:
    """The sets that `run` would write, and the claims it would skip with the reason. Runs nothing."""
    if scale not in SCALES:
        raise UserError(f'--scale: no scale "{scale}"{nearest(scale, SCALES)}')
    shelf = shelf or Shelf.find()
    chosen = select_claims(
        shelf, [targets] if isinstance(targets, str) else targets, group=group, everything=everything
    )
    where = choose_device(device)
    given = dict(subjects or {})
    plans: list[Plan] = []
    skipped: list[Outcome] = []
    used: set[str] = set()
    taken: set[str] = set()
    for paper, claim in chosen:
        outcome = Outcome(paper.id, claim.id, scale)
        replaced = _replacements(claim, given, model, data)
        taken |= {name for name in given if name in claim.subjects}
        if (model is not None or data is not None) and not replaced:
            kinds = " and ".join(
                [*(["a model"] if model is not None else []), *(["data"] if data is not None else [])]
            )
            skipped.append(replace(outcome, skipped=f"takes no {kinds.removeprefix('a ')} of the user's"))
            continue
        if scale not in claim.scales:
            skipped.append(replace(outcome, skipped=f"needs --scale {next(iter(claim.scales))}"))
            continue
        if claim.scales[scale].gpu and where == "cpu":
            skipped.append(replace(outcome, skipped=f"scale {scale} needs a GPU"))
            continue
        known_sizes = {k: v for k, v in (sizes or {}).items() if k in claim.sizes(scale) or k == "dtype"}
        points = claim.points(scale)
        known_at = {k: v for k, v in (at or {}).items() if points and k in points[0]}
        used |= {*known_sizes, *known_at}
        several = len(chosen) > 1
        overrides = Overrides(
            known_sizes if several else sizes or {}, known_at if several else at or {}, arms
        )
        plans.append(
            make_plan(
                paper,
                claim,
                scale=scale,
                subjects=_subjects(claim, scale, replaced),
                device=where,
                overrides=overrides,
                development=development,
                time_limit=time_limit,
                memory_limit=memory_limit,
            )
        )
    for flag, names, known in (
        ("--size", sizes or {}, used),
        ("--at", at or {}, used),
        ("--subject", given, taken),
    ):
        for name in names:
            if plans and name not in known:
                options = {s for p in plans for s in (p.claim.subjects if flag == "--subject" else p.sizes)}
                raise UserError(f'{flag}: none of these claims has "{name}"{nearest(name, options)}')
    return plans, skipped


def _replacements(claim: Claim, given: Mapping[str, Any], model: Any, data: Any) -> dict[str, Any]:
    replaced = {name: value for name, value in given.items() if name in claim.subjects}
    for value, kinds in ((model, MODEL_KINDS), (data, DATA_KINDS)):
        if value is not None:
            replaced.update(
                {n: value for n, spec in claim.subjects.items() if spec.kind in kinds and n not in given}
            )
    return replaced


def _subjects(claim: Claim, scale: str, replaced: Mapping[str, Any]) -> dict[str, SubjectRef]:
    if not claim.subjects:
        return {}
    from claimbench.subjects import resolve_subject

    defaults = {name: spec.default for name, spec in claim.subjects.items()}
    defaults.update(claim.scales[scale].subjects or {})  # type: ignore[index]  # checked by the caller
    return {
        name: value
        if isinstance(value := replaced.get(name, defaults[name]), SubjectRef)
        else resolve_subject(spec.kind, value)
        for name, spec in claim.subjects.items()
    }


def run(
    targets: str | Sequence[str] = (),
    *,
    group: str | None = None,
    everything: bool = False,
    scale: str = "quick",
    device: str = "auto",
    sizes: Mapping[str, Any] | None = None,
    at: Mapping[str, Sequence[Any]] | None = None,
    arms: Sequence[str] = (),
    subjects: Mapping[str, Any] | None = None,
    model: Any = None,
    data: Any = None,
    jobs: int | None = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    fresh: bool = False,
    fresh_setup: bool = False,
    until_decided: bool = False,
    development: bool = False,
    ledger: Ledger | str | Path | None = None,
    shelf: Shelf | None = None,
    on_step: OnStep | None = None,
    may_trust: Callable[[Path], bool] | None = None,
) -> list[Outcome]:
    """Measure claims and judge them. Finished trials come from the ledger: an interrupted run goes on where it was.

    subjects: by the claim's name for them; a name, a path, a hub id, or a `SubjectRef`. model, data: replace every
    subject of that kind. fresh: a replication on new seeds. until_decided: go on to the schedule's later looks.
    development: seeds below 1000, never published. Raises UserError for the caller's mistakes.
    """
    plans, skipped = plan(
        targets,
        group=group,
        everything=everything,
        scale=scale,
        device=device,
        sizes=sizes,
        at=at,
        arms=arms,
        subjects=subjects,
        model=model,
        data=data,
        time_limit=time_limit,
        memory_limit=memory_limit or 0.9 * memory_bytes(),
        development=development,
        shelf=shelf,
    )
    _ask_trust([p.paper.folder for p in plans], may_trust)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs: {jobs} is none; give 1 or more")
    own_ledger = not isinstance(ledger, Ledger)
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    if fresh_setup:
        os.environ["CLAIMBENCH_FRESH_SETUP"] = str(time.time())
    try:
        session = Session(
            store, plans, jobs=jobs or this_machine().cores, on_step=on_step or (lambda step: None)
        )
        return [*session.run(fresh=fresh, until_decided=until_decided), *skipped]
    finally:
        if fresh_setup:
            del os.environ["CLAIMBENCH_FRESH_SETUP"]
        if own_ledger:
            store.close()


def _ask_trust(folders: Sequence[Path], may_trust: Callable[[Path], bool] | None) -> None:
    """A foreign shelf runs code on this machine: it is asked about once for each state of its code."""
    from claimbench.shelf import BUILT_IN

    for root in {
        folder.resolve().parent.parent for folder in folders if not folder.resolve().is_relative_to(BUILT_IN)
    }:
        if not is_trusted(root):
            if may_trust is None or not may_trust(root):
                raise UserError(
                    f"--shelf: {root} is not trusted to run code here; look at it, then pass --trust"
                )
            trust(root)


class Session:
    """One call of `run`: the state between plans and outcomes."""

    def __init__(self, ledger: Ledger, plans: Sequence[Plan], *, jobs: int, on_step: OnStep) -> None:
        self.ledger, self.jobs, self.on_step = ledger, jobs, on_step
        self.owner = uuid.uuid4().hex
        self.works = [Work(p, outcome=Outcome(p.paper.id, p.claim.id, p.scale, own=p.own)) for p in plans]
        self.environments = {
            device: ledger.remember_environment(environment_facts(device), this_machine().id)
            for device in {p.device for p in plans}
        }
        self._renewed = time.monotonic()

    def run(self, *, fresh: bool, until_decided: bool) -> list[Outcome]:
        try:
            self._tune()
            for work in self.works:
                self._open_set(work, fresh=fresh)
            pending = self.works
            while pending:
                self._measure(pending)
                for work in pending:
                    self._judge(work)
                pending = [w for w in pending if until_decided and self._next_look(w)]
            return [work.outcome for work in self.works]
        finally:
            self.ledger.release(self.owner)

    # --- planning ---

    def _tune(self) -> None:
        """Choose every arm's hyper-parameters from the claim's grid, on validation data and seeds of their own."""
        tuning = {w.plan.name: w.plan.tuning_specs() for w in self.works if w.plan.claim.tuning}
        if not tuning:
            return
        rows: dict[str, SetRow] = {}
        for work in (w for w in self.works if w.plan.name in tuning):
            rows[work.plan.name] = self._find_or_create(work.plan, tuning[work.plan.name], kind="tuning")
        self._fill(
            {name: (w.plan, rows[name], tuning[name]) for w in self.works if (name := w.plan.name) in tuning}
        )
        for work in self.works:
            if work.plan.name in tuning:
                trials = self.ledger.trials(rows[work.plan.name].uid)
                work.plan = work.plan.with_tuned(
                    choose_tuned(work.plan, [(spec_of(t), t["metrics"]) for t in trials])
                )

    def _open_set(self, work: Work, *, fresh: bool) -> None:
        base = work.plan
        if fresh and base.first_seed >= FIRST_SEED:
            known = self.ledger.sets(paper=base.paper.id, claim=base.claim.id)
            last = max((s.replication for s in known if s.scale == base.scale), default=-1)
            work.plan = replace(base, replication=last + 1, first_seed=FIRST_SEED * (last + 2))
        look = work.plan.specs(work.plan.seeds(work.plan.schedule[0]))
        work.set = self._find_or_create(work.plan, look)
        planned = sum(1 for s in self.ledger.members(work.set.uid).values() if s is not None)
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
        for name, (_, row, specs) in jobs.items():
            self.ledger.reuse(row.uid, row.environment)
            self.on_step(
                Step("planned", name, total=len(self.ledger.unfinished(row.uid) & {s.key for s in specs}))
            )
        while True:
            groups: dict[str, Group] = {}
            owners: dict[str, list[str]] = {}
            for name, (plan, row, specs) in jobs.items():
                missing = self.ledger.unfinished(row.uid)
                for group in plan.groups(specs):
                    limit = DISTURBED_PASSES if group.timing else 1
                    if any(s.key in missing for s in group.specs) and tried.get(group.key, 0) < limit:
                        groups.setdefault(group.key, group)
                        owners.setdefault(group.key, []).append(name)
            if not groups:
                return ran
            self._run_groups(groups, owners, jobs, ran, tried)

    def _run_groups(
        self,
        groups: Mapping[str, Group],
        owners: Mapping[str, Sequence[str]],
        jobs: Mapping[str, tuple[Plan, SetRow, Sequence[TrialSpec]]],
        ran: dict[str, int],
        tried: dict[str, int],
    ) -> None:
        watermark = self.ledger.newest_trial()
        busy: list[Group] = []

        def place(group: Group) -> tuple[str, list[str]]:
            names = owners[group.key]
            return jobs[names[0]][1].environment, [jobs[n][1].uid for n in names]

        def begin(group: Group) -> bool:
            environment, uids = place(group)
            if not self.ledger.take(group.specs, environment, self.owner):
                busy.append(group)
                return False
            keys = [spec.key for spec in group.specs]
            if self.ledger.finished_since(watermark, keys, environment) and not group.timing:
                for uid in uids:
                    self.ledger.reuse(uid, environment)
                if not any(set(keys) & self.ledger.unfinished(uid) for uid in uids):
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

        def event(happened: Event) -> None:
            if happened.kind in ("started", "building", "retry"):
                for name in owners[happened.group.key]:
                    self.on_step(Step(happened.kind, name, message=happened.message))

        runner = LocalRunner(jobs=self.jobs, on_event=event)
        runner.run(list(groups.values()), begin=begin, finish=finish, tick=tick)
        if busy and len(busy) == len(groups):
            self._wait_for_others(busy, place)
        for group in busy:
            environment, uids = place(group)
            for uid in uids:
                self.ledger.reuse(uid, environment)

    def _wait_for_others(
        self, busy: Sequence[Group], place: Callable[[Group], tuple[str, list[str]]]
    ) -> None:
        """Another run holds all that is left: wait until it lets go of something."""
        keys = {group.key: [s.key for s in group.specs] for group in busy}
        while all(self.ledger.held(keys[g.key], place(g)[0], self.owner) for g in busy):
            time.sleep(0.5)

    # --- judging ---

    def _judge(self, work: Work) -> None:
        assert work.set is not None
        work.outcome.verdict = judge_set(self.ledger, work.set, work.plan.claim, work.plan.paper)
        trials = self.ledger.judged(work.set.uid)
        work.outcome.failed = sum(trial.status in ("failed", "lost") for trial in trials)
        state = work.outcome.verdict.state if work.outcome.verdict else "measured"
        self.on_step(Step("judged", work.plan.name, message=state))


def judge_set(ledger: Ledger, row: SetRow, claim: Claim, paper: Paper) -> Verdict | None:
    """A set's verdict under the claim's rules as they stand, kept in the ledger. None at a scale without verdicts."""
    if row.scale == "smoke":
        return None
    stamp = digest([rules_digest(claim), _judging_code(paper, claim), ledger.members(row.uid)])
    known = ledger.verdict(row.uid, stamp)
    if known is not None:
        return known
    from claimbench.rules.judging import (
        judge,  # with SciPy, which a run that has nothing to judge need not wait for
    )

    trials = ledger.judged(row.uid)
    derive = _derive(paper, claim)
    arms, points = row.plan["arms"], row.plan["points"]
    verdict = judge(restrict(claim, row.scale, arms, points), row.scale, trials, derive=derive)
    discarded = ledger.discarded(row.uid)
    if discarded:
        verdict.notes.append(f"{discarded} timing rounds were discarded as disturbed and measured again")
    first = ledger.first_rules(row.paper, row.claim, row.scale, row.replication)
    if first not in (None, rules_digest(claim)):
        verdict.notes.append(
            "the rules were changed after these seeds were first measured; use --fresh for new seeds"
        )
    if row.own:
        verdict.notes.append("own setting: not comparable with the paper's row")
    ledger.save_verdict(row.uid, verdict, stamp)
    return verdict


def _derive(paper: Paper, claim: Claim) -> Derive | None:
    """The claim's @derive function, if it declares derived metrics: the one thing of a paper that judging imports."""
    if not any(metric.derived for metric in claim.metrics.values()):
        return None
    _ask_trust([paper.folder], None)
    load_claims(paper.folder)
    derived = registry(f"{package_of(paper.folder)}.claims").derived
    if claim.id not in derived:
        raise UserError(
            f'{paper.folder}/claims.py: no @derive("{claim.id}"), but the claim declares derived metrics'
        )
    return derived[claim.id]


def _judging_code(paper: Paper, claim: Claim) -> list[str]:
    """Digests of what turns numbers into a verdict: the rules' modules, and claims.py where it derives numbers."""
    files = sorted((Path(__file__).parent / "rules").glob("*.py"))
    if any(metric.derived for metric in claim.metrics.values()):
        files += sorted(paper.folder.glob("*.py"))
    return [source_digest(path) for path in files]


def restrict(claim: Claim, scale: str, arms: Sequence[str], points: Sequence[Mapping[str, Any]]) -> Claim:
    """The claim as a set planned it: the user may have left out arms or changed the points."""
    if list(arms) == claim.arms(scale) and [dict(p) for p in points] == claim.points(scale):
        return claim
    kept = [b for b in claim.baselines if b in arms]
    changed = {"baselines": kept, "sweep": [dict(p) for p in points]}
    settings = claim.scales[scale].model_copy(update=changed)  # type: ignore[index]  # a set's scale
    return claim.model_copy(update={"scales": {**claim.scales, scale: settings}})


def recheck(
    targets: str | Sequence[str] = (),
    *,
    everything: bool = False,
    jobs: int | None = None,
    ledger: Ledger | str | Path | None = None,
    shelf: Shelf | None = None,
    on_step: OnStep | None = None,
) -> list[dict[str, Any]]:
    """Re-run one seed a cell of every stale set; carry the set forward where the numbers agree exactly.

    Times never agree exactly: a set whose rules use them is measured again by `run`.
    """
    shelf = shelf or Shelf.find()
    store = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    answers = []
    for paper, claim in select_claims(
        shelf, [targets] if isinstance(targets, str) else targets, everything=everything
    ):
        newest = {}
        for row in store.sets(paper=paper.id, claim=claim.id):
            if row.environment == store.remember_environment(
                environment_facts(row.plan["device"]), this_machine().id
            ):
                newest[(row.scale, row.fingerprint, row.replication)] = row
        for row in newest.values():
            changes = store.stale(row.uid)
            answer = {
                "paper": paper.id,
                "claim": claim.id,
                "set": row.uid,
                "scale": row.scale,
                "changed": changes,
            }
            if changes and claim.timing:
                answer["state"] = "must be measured again: its rules use times"
            elif changes:
                answer.update(_recheck_set(store, paper, claim, row, jobs or this_machine().cores, on_step))
            else:
                answer["state"] = "current"
            answers.append(answer)
    return answers


def _recheck_set(
    store: Ledger, paper: Paper, claim: Claim, row: SetRow, jobs: int, on_step: OnStep | None
) -> dict[str, Any]:
    stored = {trial["key"]: trial for trial in store.trials(row.uid)}
    if not stored:
        return {"state": "stale: nothing was finished"}
    first = min(trial["seed"] for trial in stored.values())
    specs = [spec_of(trial) for trial in stored.values() if trial["seed"] == first]
    plan = Plan(
        paper=paper,
        claim=claim,
        scale=row.scale,
        arms=tuple(row.plan["arms"]),
        points=tuple(row.plan["points"]),
        sizes=row.plan["sizes"],
        subjects=specs[0].subjects,
        device=row.plan["device"],
        schedule=tuple(row.plan["schedule"]),
    )
    results: list[Result] = []
    owner = uuid.uuid4().hex

    def finish(group: Group, found: list[Result]) -> None:
        results.extend(found)
        store.record(found, row.environment, owner)
        if on_step is not None:
            on_step(Step("finished", plan.name, total=len(found)))

    if on_step is not None:
        on_step(Step("planned", plan.name, total=len(specs)))
    try:
        LocalRunner(jobs=jobs).run(
            plan.groups(specs),
            begin=lambda group: store.take(group.specs, row.environment, owner),
            finish=finish,
            tick=lambda: store.renew(owner),
        )
    finally:
        store.release(owner)
    differing = [
        f"{r.spec.arm} at {r.spec.point}: {name} {stored[r.spec.key]['metrics'].get(name)} -> {value}"
        for r in results
        for name, value in r.metrics.items()
        if name in claim.metrics
        and claim.metrics[name].kind != "time"
        and canonical(stored[r.spec.key]["metrics"].get(name)) != canonical(value)
    ]
    if len(results) < len(specs) or any(r.status != "ok" for r in results):
        return {"state": "stale: some trials did not finish"}
    if differing:
        return {"state": "stale: numbers changed", "differing": differing}
    everything = replace(
        results[0],
        modules={name: digest for r in results for name, digest in r.modules.items()},
        packages={name: version for r in results for name, version in r.packages.items()},
    )
    store.carry(row.uid, store.code_of(everything), len(results))
    return {"state": "carried forward", "trials": len(results)}


def entries(shelf: Shelf | None = None) -> list[Entry]:
    """Every paper on the shelf, by group and id."""
    return sorted((shelf or Shelf.find()).entries.values(), key=lambda entry: (entry.group, entry.id))
