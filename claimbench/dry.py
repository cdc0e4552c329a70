"""What a run would do, before it does anything: trials, expected time and memory, downloads, and what could be seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claimbench.ledger import Ledger
from claimbench.machine import this_machine
from claimbench.plan import Plan
from claimbench.progress import clock
from claimbench.rules import ALPHA, look_level, sign_boundary
from claimbench.rules.levels import t_quantile
from claimbench.session import Outcome


def describe(
    plans: Sequence[Plan],
    skipped: Sequence[Outcome],
    *,
    ledger: str | Path | None = None,
    jobs: int | None = None,
) -> list[dict[str, Any]]:
    """One entry a claim. Times come from finished trials of the measure, else from the paper's own expectation."""
    described: list[dict[str, Any]] = []
    with Ledger(ledger) as store:
        for plan in plans:
            specs = plan.specs(plan.seeds(plan.schedule[0]))
            tuning = plan.tuning_specs()
            expected = plan.expected_seconds()
            if expected is not None and plan.claim.timing:
                expected /= len(plan.arms)  # the paper says it for a round
            per_trial = store.expected_seconds(plan.paper.id, plan.claim.measured_by) or expected
            at_once = 1 if plan.claim.timing else jobs or this_machine().cores
            calls = len(specs) + len(tuning)
            settings = plan.claim.scales[plan.scale]  # type: ignore[index]  # a plan's scale is one of the claim's
            described.append(
                {
                    "claim": plan.name,
                    "scale": plan.scale,
                    "arms": list(plan.arms),
                    "points": [dict(p) for p in plan.points],
                    "seeds": plan.schedule[0],
                    "schedule": list(plan.schedule),
                    "trials": len(specs),
                    "tuning_trials": len(tuning),
                    "expected_seconds": None if per_trial is None else per_trial * calls / at_once,
                    "expected_memory_gib": settings.memory_gib,
                    "download_bytes": _downloads(plan),
                    "smallest_effect": smallest_effect(plan) if plan.verdict_possible else {},
                    "skipped": "",
                }
            )
    described += [{"claim": o.name, "scale": o.scale, "skipped": o.skipped} for o in skipped]
    return described


def smallest_effect(plan: Plan) -> dict[str, str]:
    """For each metric that decides: how far beyond its bound an effect must lie for the first look to see it."""
    words = {}
    looks, first, seeds = plan.schedule, plan.schedule[0], "rounds" if plan.claim.timing else "seeds"
    for rule in [*plan.claim.rules, *plan.claim.given]:
        if not rule.bounded:
            continue
        kind = plan.claim.metrics[rule.metric].kind
        if kind == "exact":
            words[rule.metric] = "any: exact numbers need no interval"
        elif kind in ("jumpy", "time"):
            boundary = sign_boundary(ALPHA, looks)[0]
            words[rule.metric] = (
                f"any that lies on one side of the bound in {boundary} of {first} {seeds}"
                if boundary is not None
                else f"nothing at {first} seeds; use --until-decided"
            )
        else:
            width = t_quantile(look_level(ALPHA, looks), first - 1) / first**0.5
            words[rule.metric] = f"{width:.2f} standard deviations between seeds beyond the bound"
    return words


def _downloads(plan: Plan) -> int:
    if not plan.subjects:
        return 0
    from claimbench.subjects import downloads

    return int(downloads(list(plan.subjects.values())))


def print_description(described: Sequence[dict[str, Any]]) -> None:
    for item in described:
        if item["skipped"]:
            print(f"{item['claim']}: skipped: {item['skipped']}")
            continue
        print(f"{item['claim']} at {item['scale']}")
        arms, points = len(item["arms"]), len(item["points"])
        print(f"  {item['trials']} trials: {arms} arms, {points} points, {item['seeds']} seeds")
        if item["tuning_trials"]:
            print(f"  {item['tuning_trials']} tuning trials on validation data first")
        if len(item["schedule"]) > 1:
            print(
                f"  looks at {', '.join(map(str, item['schedule']))} seeds; --until-decided goes past the first"
            )
        seconds = item["expected_seconds"]
        print(f"  expected time {clock(seconds)}" if seconds is not None else "  expected time unknown")
        if item["expected_memory_gib"]:
            print(f"  expected memory {item['expected_memory_gib']:g} GiB a trial")
        if item["download_bytes"]:
            print(f"  downloads {item['download_bytes'] / 1e6:.0f} MB")
        for metric, words in item["smallest_effect"].items():
            print(f"  can see in {metric}: {words}")
