"""Leaderboard tasks: what several arms were measured on, quality against cost, read from the latest sets.

A task is a paper's measure at a scale on a machine; a point of its sweep is one leaderboard. Claims that read the same
measure share their trials, so their arms stand together. Nothing is compared between machines, sizes or subjects.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from claimbench.paper import SCALES, Claim, Metric
from claimbench.report import where
from claimbench.rule import Point
from claimbench.spec import canonical
from claimbench.summaries import CellSummary, summarise
from claimbench.web.board import Board, SetBrief

_AMOUNTS = (
    r"(seconds?|s|ms|time|bytes?|[kmg]i?b|memory|flops?|macs|tokens?|parameters|params|evaluations|calls"
    r"|numbers)"
)
_SPENT_NAME = re.compile(rf"(^|_){_AMOUNTS}(_|$)", re.I)
_SPENT_UNIT = re.compile(_AMOUNTS, re.I)  # of a whole unit: nats a token are no amount of tokens


@dataclass(frozen=True)
class Task:
    """Sets of one measure that may stand together, the latest of each claim. quality, cost: names of metrics."""

    paper: str
    measure: str
    scale: str
    machine: str
    sets: tuple[SetBrief, ...]
    points: tuple[Point, ...]
    metrics: dict[str, Metric]
    quality: tuple[str, ...]
    cost: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"/leaderboard/{quote(self.paper, safe='')}/{quote(self.measure, safe='')}"

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.measure}"


def is_cost(name: str, metric: Metric) -> bool:
    """Something that is spent: a time, or an amount whose name or unit says so. Less of it is better."""
    spent = metric.kind == "time" or bool(_SPENT_NAME.search(name) or _SPENT_UNIT.fullmatch(metric.unit))
    return metric.better == "lower" and spent


def tasks(board: Board) -> list[Task]:
    """Every task that has both a quality and a cost, the largest scale and the latest first within a measure."""
    grouped: dict[tuple[str, ...], dict[str, SetBrief]] = {}
    for brief in board.all():
        if not brief.counts or brief.row.replication:
            continue
        plan = brief.row.plan
        setting = canonical([plan["sizes"], plan["subjects"], plan["device"], plan["dtype"], plan["threads"]])
        key = (brief.row.paper, plan["measure"], brief.row.scale, brief.machine["id"], setting)
        grouped.setdefault(key, {})[brief.row.claim] = brief  # oldest first: the latest stays
    found = [_task(board, key, list(sets.values())) for key, sets in grouped.items()]
    return sorted(
        (task for task in found if task is not None),
        key=lambda t: (t.paper, t.measure, -SCALES.index(t.scale), -max(b.row.serial for b in t.sets)),
    )


def _task(board: Board, key: tuple[str, ...], sets: Sequence[SetBrief]) -> Task | None:
    claims = [_claim(brief) for brief in sets]
    metrics = {
        name: metric
        for claim in claims
        if claim is not None
        for name, metric in claim.metrics.items()
        if not metric.derived
    }
    judged = {rule.metric for claim in claims if claim is not None for rule in claim.rules if rule.bounded}
    names = sorted(metrics, key=lambda name: name not in judged)  # what the claims are about comes first
    cost = tuple(name for name in names if is_cost(name, metrics[name]))
    quality = tuple(name for name in names if metrics[name].better and name not in cost)
    if not cost or not quality:
        return None
    points = {canonical(point): point for brief in sets for point in brief.row.plan["points"]}
    paper, measure, scale, machine, _ = key
    return Task(paper, measure, scale, machine, tuple(sets), tuple(points.values()), metrics, quality, cost)


def _claim(brief: SetBrief) -> Claim | None:
    try:
        return Claim.model_validate(json.loads(brief.row.claim_text))
    except ValueError:
        return None


@dataclass(frozen=True)
class Line:
    """An arm at the task's point: middle, lowest and highest seed of quality and cost; on the Pareto front or not."""

    arm: str
    place: int  # among the arms, the method first: decides colour and marker
    quality: float
    quality_low: float
    quality_high: float
    cost: float
    cost_low: float
    cost_high: float
    seeds: int
    failed: int
    front: bool


def lines(board: Board, task: Task, point: Point, quality: str, cost: str) -> list[Line]:
    """Best quality first; arms without a number for both are left out."""
    found: dict[str, dict[str, CellSummary]] = {}
    for brief in task.sets:
        row = board.row(brief)
        for cell in summarise(row.claim, row.set.plan, row.judged):
            if cell.point == point and cell.metric in (quality, cost) and math.isfinite(cell.middle):
                found.setdefault(cell.arm, {})[cell.metric] = cell
    usable = {arm: cells for arm, cells in found.items() if len(cells) == len({quality, cost})}
    sign = 1.0 if task.metrics[quality].better == "higher" else -1.0
    front = pareto([(sign * cells[quality].middle, cells[cost].middle) for cells in usable.values()])
    made = [
        Line(
            arm=arm,
            place=place,
            quality=cells[quality].middle,
            quality_low=cells[quality].low,
            quality_high=cells[quality].high,
            cost=cells[cost].middle,
            cost_low=cells[cost].low,
            cost_high=cells[cost].high,
            seeds=min(cell.seeds for cell in cells.values()),
            failed=max(cell.failed for cell in cells.values()),
            front=place in front,
        )
        for place, (arm, cells) in enumerate(usable.items())
    ]
    return sorted(made, key=lambda line: (-sign * line.quality, line.cost))


def pareto(found: Iterable[tuple[float, float]]) -> set[int]:
    """Places of (quality, cost) that no other one beats: higher quality is better, lower cost is better."""
    ordered = sorted(enumerate(found), key=lambda item: (item[1][1], -item[1][0]))
    front: set[int] = set()
    best, at = -math.inf, math.nan
    for place, (quality, cost) in ordered:
        if quality > best or (quality == best and cost == at):
            front.add(place)
            best, at = quality, cost
    return front


def point_words(point: Point) -> str:
    return where(point) or "as measured"
