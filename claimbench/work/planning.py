"""Plans written where workers find them, and read again on the machine that works.

A set belongs to one environment. Planned for several machines it is that of their kind: the same processor, cores,
memory, GPUs, system and Python, whichever of them measures. Nothing else of the planning machine is written but what
its user named: subjects by name or path, with the hash of their content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from claimbench.errors import UserError
from claimbench.ledger import Ledger, PlannedRow, SetRow
from claimbench.machine import alike, environment_facts, memory_bytes, this_machine
from claimbench.plan import Plan
from claimbench.session import Session, replicated
from claimbench.shelf import Shelf
from claimbench.spec import SubjectRef, TrialSpec, digest
from claimbench.work.code import but_shelves, code_of, differences


@dataclass(frozen=True)
class Written:
    """One plan as workers will find it."""

    plan: Plan
    set: SetRow
    tuning: bool  # the set is the claim's tuning, its own comes after
    planned: int
    missing: list[TrialSpec]

    def to_json(self) -> dict[str, Any]:
        return {
            "paper": self.plan.paper.id,
            "claim": self.plan.claim.id,
            "scale": self.plan.scale,
            "set": self.set.uid,
            "environment": self.set.environment,
            "tuning": self.tuning,
            "planned": self.planned,
            "missing": [
                {
                    "key": s.key,
                    "arm": s.arm,
                    "point": s.point,
                    "seed": s.seed,
                    "tuned": s.tuned,
                    "device": s.device,
                }
                for s in self.missing
            ],
        }


class Differs(Exception):
    """This machine does not hold what a plan was made with; one line says what, and what to do."""


def environment_of(ledger: Ledger, device: str, *, here: bool) -> str:
    facts = environment_facts(device) if here else alike(device)
    return ledger.remember_environment(facts, facts["machine"]["id"])


def write(
    ledger: Ledger,
    plans: Sequence[Plan],
    *,
    here: bool = False,
    fresh: bool = False,
    until_decided: bool = False,
) -> list[Written]:
    """Write sets and their plans; nothing runs. Writing what is there already changes nothing but the code asked for.

    here: for this very machine rather than for all of its kind. fresh: replications on new seeds. until_decided:
    workers go on to the schedule's later looks.
    """
    if fresh:
        plans = [replicated(ledger, plan) for plan in plans]
    places = {device: environment_of(ledger, device, here=here) for device in {plan.device for plan in plans}}
    session = Session(ledger, plans, jobs=1, on_step=lambda step: None, environments=places)
    written = []
    code: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for plan, work in zip(plans, session.open(), strict=True):
        assert work.set is not None
        if plan.paper.id not in code:
            code[plan.paper.id] = code_of(plan.paper.folder, plan.paper.id, ledger)
        modules, packages = code[plan.paper.id]
        ledger.keep_plan(
            identity_of(plan, places[plan.device]),
            paper=plan.paper.id,
            claim=plan.claim.id,
            scale=plan.scale,
            environment=places[plan.device],
            content={
                **_content(plan),
                "until_decided": until_decided,
                "modules": modules,
                "packages": packages,
                "machine": this_machine().label(),
            },
        )
        tuning = work.set.claim != plan.claim.id
        specs = work.plan.tuning_specs() if tuning else work.plan.specs(plan.seeds(plan.schedule[work.look]))
        unfinished = ledger.unfinished(work.set.uid)
        missing = [spec for spec in specs if spec.key in unfinished]
        written.append(Written(plan, work.set, tuning, len(specs), missing))
    return written


def identity_of(plan: Plan, environment: str) -> str:
    return digest([plan.fingerprint, environment])


def _content(plan: Plan) -> dict[str, Any]:
    return {
        "fingerprint": plan.fingerprint,
        "arms": list(plan.arms),
        "points": [dict(point) for point in plan.points],
        "sizes": dict(plan.sizes),
        "subjects": {
            name: {"kind": ref.kind, "value": ref.value, "identity": ref.identity}
            for name, ref in plan.subjects.items()
        },
        "device": plan.device,
        "schedule": list(plan.schedule),
        "first_seed": plan.first_seed,
        "replication": plan.replication,
        "own": plan.own,
        "time_limit": plan.time_limit,
        "memory_limit": plan.memory_limit,
    }


def read(row: PlannedRow, shelf: Shelf) -> Plan:
    """The plan on this machine's shelf. Raises Differs where shelf or subjects are not those it was made with."""
    try:
        paper = shelf.entry(row.paper).load()
        claim = paper.find_claim(row.claim)
    except UserError as error:
        raise Differs(f"{row.paper}: {error}; give the shelf that holds it with --shelf") from None
    content = row.content
    differing = differences(content["modules"], content["packages"], paper.folder)
    if not differing and row.scale not in claim.scales:
        differing = [f"paper.toml: no scale {row.scale}"]
    if differing:
        raise Differs(_line(row, differing))
    plan = Plan(
        paper=paper,
        claim=claim,
        scale=row.scale,
        arms=tuple(content["arms"]),
        points=tuple(content["points"]),
        sizes=content["sizes"],
        subjects=_subjects(row, content["subjects"]),
        device=content["device"],
        schedule=tuple(content["schedule"]),
        first_seed=content["first_seed"],
        replication=content["replication"],
        own=content["own"],
        time_limit=content["time_limit"],
        memory_limit=content["memory_limit"] or 0.9 * memory_bytes(),
    )
    if plan.fingerprint != content["fingerprint"]:
        raise Differs(_line(row, ["paper.toml"]))
    return plan


def code_differs(row: PlannedRow, plan: Plan) -> str:
    """One line if this machine's code is no longer what the plan was made with; else nothing."""
    differing = differences(row.content["modules"], row.content["packages"], plan.paper.folder)
    return _line(row, differing) if differing else ""


def trials_differ(row: PlannedRow, plan: Plan, ledger: Ledger) -> str:
    """One line if trials of the plan's set ran with other code or packages than are here; else nothing."""
    same = ledger.sets(paper=row.paper, environment=row.environment)
    ours = [found for found in same if found.fingerprint.startswith(plan.fingerprint)]
    differing = but_shelves(ledger.stale(ours[-1].uid)) if ours else []
    return _line(row, differing) if differing else ""


def _line(row: PlannedRow, differing: Sequence[str]) -> str:
    shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
    return (
        f"{row.paper}/{row.claim}: its code here is not what was planned: {shown}; take the code it was planned with, "
        f"or plan it again: claimbench plan {row.paper}/{row.claim}"
    )


def _subjects(row: PlannedRow, named: Mapping[str, Mapping[str, str]]) -> dict[str, SubjectRef]:
    if not named:
        return {}
    from claimbench.subjects import resolve_subject

    found = {}
    for name, wanted in named.items():
        try:
            ref = resolve_subject(wanted["kind"], wanted["value"])
        except UserError as error:
            raise Differs(f"{row.paper}/{row.claim}: subject {name}: {error}") from None
        if ref.identity != wanted["identity"]:
            raise Differs(
                f"{row.paper}/{row.claim}: subject {name}: {wanted['value']} holds something else here than where "
                "it was planned; copy the same files there"
            )
        found[name] = replace(ref, value=wanted["value"])
    return found
