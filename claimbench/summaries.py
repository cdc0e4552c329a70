"""A set's trials in short: every cell's middle and range over seeds, its sweeps as panels, the command for it.

The middle is what the rules use: the mean over seeds, or the median where the metric is jumpy or a time. The range is
from the lowest seed to the highest; it is not an interval, and no verdict rests on it.
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from claimbench.claim import Claim
from claimbench.ledger import Ledger, SetRow
from claimbench.paper import Paper
from claimbench.plan import FIRST_SEED
from claimbench.rule import Point, Scalar, settings
from claimbench.rules.verdict import Judged
from claimbench.shared import given
from claimbench.shelf import BUILT_IN
from claimbench.spec import digest

ROBUST = ("jumpy", "time")  # kinds whose estimate is a median


@dataclass(frozen=True)
class CellSummary:
    """One metric of one arm at one point over the seeds that have a number for it."""

    arm: str
    point: Point
    metric: str
    middle: float  # NaN without a number
    low: float
    high: float
    seeds: int
    failed: int  # trials that failed; they count with the metric's on_failure if it has one
    absent: int  # trials without a number: failed without on_failure, lost, not applicable


@dataclass(frozen=True)
class Panel:
    """Points of a sweep along one variable, all else equal."""

    along: str
    rest: Point
    points: tuple[Point, ...]


def summarise(claim: Claim, plan: Mapping[str, Any], trials: Sequence[Judged]) -> list[CellSummary]:
    """Every cell of a set's plan, for each metric that trials return; arms and points in the plan's order."""
    found: dict[tuple[str, frozenset[tuple[str, Scalar]]], list[Judged]] = {}
    for trial in trials:
        found.setdefault((trial.arm, frozenset(trial.point.items())), []).append(trial)
    return [
        _cell(claim, arm, dict(point), name, found.get((arm, frozenset(point.items())), []))
        for name, metric in claim.metrics.items()
        if not metric.derived
        for arm in plan["arms"]
        for point in plan["points"]
    ]


def _cell(claim: Claim, arm: str, point: Point, name: str, trials: Sequence[Judged]) -> CellSummary:
    metric = claim.metrics[name]
    failed = sum(trial.status == "failed" for trial in trials)
    values = [t.metrics[name] for t in trials if t.status == "ok" and name in t.metrics]
    values = [v for v in values if not math.isnan(v)]
    if metric.on_failure is not None:
        values += [metric.on_failure] * failed
    if not values:
        return CellSummary(arm, point, name, math.nan, math.nan, math.nan, 0, failed, len(trials))
    middle = statistics.median(values) if metric.kind in ROBUST else math.fsum(values) / len(values)
    return CellSummary(
        arm, point, name, middle, min(values), max(values), len(values), failed, len(trials) - len(values)
    )


def set_cells(ledger: Ledger, row: SetRow, claim: Claim) -> list[CellSummary]:
    """`summarise` of a stored set, from what was kept with its verdict where trials and metrics are still those."""
    kept = ledger.summary(row.uid)
    if kept.current and kept.cells:
        found = cells_from_text(claim, kept.cells)
        if found is not None:
            return found
    return summarise(claim, row.plan, ledger.judged(row.uid))


def cells_to_text(claim: Claim, cells: Sequence[CellSummary]) -> str:
    """Cells as the ledger keeps them, with what they depend on besides trials. JSON with NaN."""
    return json.dumps(
        {"metrics": _metrics_digest(claim), "cells": [list(vars(cell).values()) for cell in cells]}
    )


def cells_from_text(claim: Claim, text: str) -> list[CellSummary] | None:
    """None if the claim's metrics have been changed since."""
    kept = json.loads(text)
    return (
        [CellSummary(*cell) for cell in kept["cells"]] if kept["metrics"] == _metrics_digest(claim) else None
    )


def _metrics_digest(claim: Claim) -> str:
    return digest({name: metric.model_dump() for name, metric in claim.metrics.items()})


def panels(claim: Claim, points: Sequence[Point]) -> list[Panel]:
    """A sweep as few panels that show every point; variables that a slope rule runs along come first.

    Each panel varies one variable. Points that share a line with no other stand in a panel of their own kind.
    """
    names = list(dict.fromkeys(name for point in points for name in point))
    if not names:
        return []
    slopes = [rule.along for rule in claim.rules if rule.along in names]

    def worth(name: str) -> tuple[bool, bool, int]:
        values = {point[name] for point in points if name in point}
        return (name in slopes, all(map(_is_number, values)), len(values))

    ranked = sorted(names, key=worth, reverse=True)
    chosen: list[Panel] = []
    left = list(points)
    for least in (2, 1):
        for along in ranked:
            swept = [point for point in points if along in point]
            for rest, places in settings(swept, along):
                members = tuple(swept[place] for place in places)
                if len(members) >= least and any(point in left for point in members):
                    chosen.append(Panel(along, rest, members))
                    left = [point for point in left if point not in members]
    return chosen


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def setting_notes(ledger: Ledger, row: SetRow) -> list[str]:
    """What a verdict should say of its trials: set-up that all seeds share, and tuning that ended at a grid's edge."""
    artefacts = {name for trial in ledger.trials(row.uid) for name in trial["artefacts"]}
    return [f"given one {name} for all seeds" for name in given(artefacts)] + _edges(row.plan)


def _edges(plan: Mapping[str, Any]) -> list[str]:
    """A note for each tuned value that lies at an end of its grid: a wider grid might have served that arm better."""
    chosen = [(json.loads(cell), values) for cell, values in plan.get("tuned", {}).items()]
    notes = []
    for name, grid in plan["tuning"].items():
        if len(grid) < 2 or not all(map(_is_number, grid)):
            continue  # one value is fixed rather than tuned, and words have no edge
        ends = (min(grid), max(grid))
        arms = [
            f"{arm} ({found} of {len(at_arm)} points)" if len(at_arm) > 1 else arm
            for arm in plan["arms"]
            if (at_arm := [values[name] for (of, _), values in chosen if of == arm])
            and (found := sum(value in ends for value in at_arm))
        ]
        if arms:
            notes.append(f"tuning: the best {name} lies at an end of the grid {grid} for {', '.join(arms)}")
    return notes


def command(paper: Paper, claim: Claim, row: SetRow, look: int = 1) -> str:
    """The command that measures this set again. A private subject or shelf is named by a word in capitals."""
    words = [
        "claimbench",
        "run",
        f"{paper.id}/{claim.id}",
        "--scale",
        row.scale,
        "--device",
        row.plan["device"],
    ]
    usual = claim.sizes(row.scale) if row.scale in claim.scales else {}
    for name, value in row.plan["sizes"].items():
        if name not in usual or usual[name] != value:
            words += ["--size", f"{name}={_word(value)}"]
    points = row.plan["points"]
    if row.scale not in claim.scales or points != claim.points(row.scale):
        for name in dict.fromkeys(n for point in points for n in point):
            values = dict.fromkeys(_word(point[name]) for point in points if name in point)
            words += ["--at", f"{name}={','.join(values)}"]
    if row.scale not in claim.scales or row.plan["arms"] != claim.arms(row.scale):
        words += [word for arm in row.plan["arms"] for word in ("--arm", arm)]
    for name, reference in row.plan["subjects"].items():
        if reference["private"]:
            words += ["--subject", f"{name}=YOUR-OWN"]
        elif (
            "@" in reference["label"]
        ):  # a hub's repository with its commit; other public subjects are the default
            words += ["--subject", f"{name}={reference['label'].partition('@')[0]}"]
        elif name in claim.subjects and claim.subjects[name].optional:
            words += ["--subject", f"{name}={reference['label']}"]
    if row.replication:
        words.append("--fresh")
    if look > 1:
        words.append("--until-decided")
    if row.plan["first_seed"] < FIRST_SEED and row.scale != "smoke":
        words.append("--development")
    if not paper.folder.resolve().is_relative_to(BUILT_IN):
        words += ["--shelf", "SHELF"]
    return shlex.join(words)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_word(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
