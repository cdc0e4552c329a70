"""After a change of code: one seed of every cell again, and the set carried forward where the numbers agree exactly.

Where a claim's seeds go through a measure together (`together = ["seed"]`), those of the first look do again: one of
them alone may differ in the last digits of a batched product.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from claimbench.ledger import Ledger, SetRow, spec_of
from claimbench.paper import Claim, Paper
from claimbench.plan import Plan
from claimbench.runner.local import LocalRunner
from claimbench.session import OnStep, Step
from claimbench.spec import Group, Result, canonical


def recheck_set(
    store: Ledger, paper: Paper, claim: Claim, row: SetRow, jobs: int, on_step: OnStep | None
) -> dict[str, Any]:
    stored = {trial["key"]: trial for trial in store.trials(row.uid)}
    if not stored:
        return {"state": "stale: nothing was finished"}
    seeds = sorted({trial["seed"] for trial in stored.values()})
    again = seeds[: row.plan["schedule"][0] if "seed" in claim.together else 1]
    specs = [spec_of(trial) for trial in stored.values() if trial["seed"] in again]
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
        f"{r.spec.arm} at {r.spec.point}: {stored[r.spec.key]['status']} -> {r.status}"
        for r in results
        if stored[r.spec.key]["status"] != r.status
    ]
    differing += [
        f"{r.spec.arm} at {r.spec.point}: {name} {stored[r.spec.key]['metrics'].get(name)} -> {value}"
        for r in results
        if stored[r.spec.key]["status"] == r.status
        for name, value in r.metrics.items()
        if name in claim.metrics
        and claim.metrics[name].kind != "time"
        and canonical(stored[r.spec.key]["metrics"].get(name)) != canonical(value)
    ]
    if len(results) < len(specs):
        return {"state": "stale: some trials did not finish"}
    if differing:
        return {"state": "stale: results changed", "differing": differing}
    everything = replace(
        results[0],
        modules={name: digest for r in results for name, digest in r.modules.items()},
        packages={name: version for r in results for name, version in r.packages.items()},
    )
    store.carry(row.uid, store.code_of(everything), len(results))
    return {"state": "carried forward", "trials": len(results)}
