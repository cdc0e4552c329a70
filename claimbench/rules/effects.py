"""From trials to effects: one number per seed and cell, and the reason where a cell has none.

A rule's effect is linear in the values of a metric, or in their logarithms: W selects points, averages them,
or takes the least-squares slope along a sweep variable. So every effect is values @ W of the rule's arm, less
values @ W of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from claimbench.errors import UserError, nearest
from claimbench.paper import Claim, Metric, Point, Rule, select, settings
from claimbench.rules.intervals import Array, Bounds, moments, project, snap, variance_floor
from claimbench.rules.verdict import Judged
from claimbench.trial import Row, Table

Derive = Callable[[Table], Mapping[str, float]]

# Why a value is not there or cannot be used, worst last: the highest code of a cell gives its reason.
(
    OK,
    DIFFERS,
    INFINITE,
    NOT_POSITIVE,
    NOT_A_SHARE,
    NOT_A_NUMBER,
    ABSENT,
    FAILED,
    NOT_APPLICABLE,
    LOST,
    MISSING,
    UNDERIVED,
) = range(12)
_WORDS = {
    DIFFERS: "exact metric differs between seeds",
    INFINITE: "is infinite",
    NOT_POSITIVE: "is not positive, and this effect is taken on logarithms",
    NOT_A_SHARE: "does not lie between 0 and 1",
    NOT_A_NUMBER: "is not a number",
    ABSENT: "was not returned",
    FAILED: "failed, and the metric has no on_failure",
    NOT_APPLICABLE: "not applicable on this machine",
    LOST: "lost",
    MISSING: "missing",
}
_SPREADLESS = 'without a resolution that tells nothing of its spread (is it kind = "exact"?)'
_STATUS = {"failed": FAILED, "not-applicable": NOT_APPLICABLE, "lost": LOST}


@dataclass
class SubRule:
    """A rule against one baseline: what is judged together, `needed` of its cells."""

    against: str | None
    points: list[Point]
    effect: Array  # (seeds, cells), on the scale on which it is judged
    bounds: Bounds  # on that scale
    log: bool  # effects are logarithms of ratios
    floor: Callable[[float], Array | float]  # t quantile -> least variance of one seed's effect, (cells,)
    problems: list[str]  # per cell; empty: it can be judged
    needed: int = 0
    problem: str = ""  # the sub-rule as a whole cannot be judged
    extras: list[dict[str, float]] = field(default_factory=list)


def weights_of(points: Sequence[Point], rule: Rule) -> tuple[list[Point], Array, Array]:
    """The cells that a rule selects, as shown; their weights and which points each uses, both (points,
    cells).

    A point may be used with weight 0: the middle one of a slope. Raises UserError if the rule selects
    nothing.
    """
    if rule.effect == "slope":
        choices = settings(list(points), str(rule.along))
    else:
        choices = [(point, [place]) for place, point in enumerate(points)]
    shown = select([choice for choice, _ in choices], rule.at)
    places = {id(choice): members for choice, members in choices}
    kept = [places[id(choice)] for choice in shown]
    if rule.effect == "slope":
        columns = [_slope(points, str(rule.along), group) for group in kept]
    else:
        columns = [np.ones(1)] * len(kept)
    if not shown:
        raise UserError(f"no point of this set matches at = {rule.at}")
    weights = np.zeros((len(points), len(shown)))
    used = np.zeros(weights.shape, dtype=bool)
    for cell, (group, column) in enumerate(zip(kept, columns, strict=True)):
        weights[group, cell] = column
        used[group, cell] = True
    if rule.at == "mean":
        return [{}], weights.mean(axis=1, keepdims=True), np.asarray(used.any(axis=1, keepdims=True))
    return shown, weights, used


def _slope(points: Sequence[Point], along: str, group: Sequence[int]) -> Array:
    """Ordinary least squares of log values on log `along`, as weights of the group's points."""
    x = np.array([float(points[place][along]) for place in group])
    if len(set(x)) < 3 or (x <= 0).any():
        raise UserError(
            f"a slope along {along} needs 3 different positive values; this set has {sorted(set(x))}"
        )
    centred = np.log(x) - np.log(x).mean()
    return np.asarray(centred / (centred @ centred))


class Grid:
    """The trials of the seeds at hand as arrays (seeds, arms, points)."""

    def __init__(
        self,
        claim: Claim,
        scale: str,
        seeds: Sequence[int],
        rows: Sequence[Sequence[Judged | None]],
        derive: Derive | None,
    ) -> None:
        """rows: each seed's trials in the order of the plan: arms, then points."""
        self.claim, self.scale, self.derive = claim, scale, derive
        self.arms, self.points, self.seeds = claim.arms(scale), claim.points(scale), list(seeds)
        self.trials = [trial for row in rows for trial in row]
        self.shape = (len(self.seeds), len(self.arms), len(self.points))
        status = [
            MISSING if t is None else OK if t.status == "ok" else _STATUS[t.status] for t in self.trials
        ]
        self.status = np.array(status, dtype=np.int8).reshape(self.shape)
        self._values: dict[str, tuple[Array, Array]] = {}
        self._derived: list[Mapping[str, float] | str] | None = None

    def values(self, name: str) -> tuple[Array, Array]:
        """A measured metric and its codes, both (seeds, arms, points). Failed trials stand with
        `on_failure`."""
        if name not in self._values:
            nan = math.nan
            raw = [nan if t is None else t.metrics.get(name, nan) for t in self.trials]
            values = np.array(raw, dtype=float).reshape(self.shape)
            codes = self.status.copy()
            instead = self.claim.metrics[name].on_failure
            failed = codes == FAILED
            if failed.any():
                values[failed] = nan if instead is None else instead
                if instead is not None:
                    codes[failed] = OK
            strange = (codes == OK) & np.isnan(values)
            if strange.any():
                present = [t is not None and name in t.metrics for t in self.trials]
                codes[strange] = np.where(
                    np.array(present).reshape(self.shape)[strange], NOT_A_NUMBER, ABSENT
                )
            values[codes != OK] = nan
            self._values[name] = values, codes
        return self._values[name]

    def derived(self, name: str) -> tuple[Array, Array, str]:
        """A derived number (seeds, 1), its codes, and why the first seed that has none has none."""
        if self._derived is None:
            self._derived = [self._derive(index) for index in range(len(self.seeds))]
        values = np.full((len(self.seeds), 1), np.nan)
        codes = np.full(values.shape, UNDERIVED, dtype=np.int8)
        why = ""
        for index, numbers in enumerate(self._derived):
            if isinstance(numbers, str):
                why = why or numbers
                continue
            if name not in numbers:
                raise UserError(f'@derive("{self.claim.id}") gave no "{name}"{nearest(name, numbers)}')
            values[index, 0] = numbers[name]
            codes[index, 0] = NOT_A_NUMBER if math.isnan(numbers[name]) else OK
        return values, codes, why

    def _derive(self, index: int) -> Mapping[str, float] | str:
        if self.derive is None:
            raise UserError(f'claims.py: no @derive("{self.claim.id}"), but a rule judges a derived metric')
        instead = {n: m.on_failure for n, m in self.claim.metrics.items() if m.on_failure is not None}
        rows, complete = [], True
        _, arms, points = self.shape
        for a, arm in enumerate(self.arms):
            for p, point in enumerate(self.points):
                trial = self.trials[(index * arms + a) * points + p]
                if trial is not None and trial.status == "ok":
                    rows.append(Row(arm, point, trial.seed, trial.metrics))
                    continue
                complete = False
                if trial is not None and trial.status == "failed" and instead:
                    rows.append(Row(arm, point, trial.seed, instead))
        try:
            return self.derive(Table(rows))
        except LookupError as error:
            if complete:  # nothing is missing, so the function itself is wrong
                raise
            return f"seed {self.seeds[index]}: nothing to derive from: {error}"


def sub_rules(grid: Grid, rule: Rule) -> list[SubRule]:
    """A rule as one sub-rule for each baseline (one without baseline for values and slopes)."""
    metric = grid.claim.metrics[rule.metric]
    if metric.derived:
        values, codes, why = grid.derived(rule.metric)
        return [
            _sub_rule(
                grid,
                rule,
                metric,
                None,
                [{}],
                np.ones((1, 1)),
                np.ones((1, 1), dtype=bool),
                [("", values, codes)],
                why,
            )
        ]
    arm = rule.arm or grid.claim.method
    try:
        shown, weights, used = weights_of(grid.points, rule)
    except UserError as error:
        return [_unjudged(rule, against, str(error)) for against in grid.claim.opponents(rule, grid.scale)]
    out = []
    for against in grid.claim.opponents(rule, grid.scale):
        sides = [arm] if against is None else [arm, against]
        absent = [side for side in sides if side not in grid.arms]
        if absent:
            out.append(_unjudged(rule, against, f"{absent[0]} is not in this set"))
            continue
        values, codes = grid.values(rule.metric)
        members = [(side, values[:, (i := grid.arms.index(side))], codes[:, i]) for side in sides]
        out.append(_sub_rule(grid, rule, metric, against, shown, weights, used, members, ""))
    return out


def bounds_of(rule: Rule) -> Bounds:
    return Bounds(rule.at_least, rule.at_most, rule.sure)


def _unjudged(rule: Rule, against: str | None, problem: str) -> SubRule:
    return SubRule(against, [], np.zeros((0, 0)), bounds_of(rule), False, lambda q: 0.0, [], problem=problem)


def _sub_rule(
    grid: Grid,
    rule: Rule,
    metric: Metric,
    against: str | None,
    shown: list[Point],
    weights: Array,
    used: Array,
    members: list[tuple[str, Array, Array]],
    why: str,
) -> SubRule:
    """members: the rule's arm and, for a contrast, its baseline: name, values (seeds, points) and codes."""
    student = metric.kind in ("mean", "proportion")
    counted = rule.effect == "ratio" and not student and rule.at != "mean"  # no logarithm: a tie stays a tie
    logged = rule.effect in ("ratio", "slope") and not counted
    checked = []
    for name, values, codes in members:
        codes = _check(metric, rule, values, codes, student)
        checked.append((name, np.where(codes == OK, values, np.nan) if codes.any() else values, codes))
    sides, magnitude = [], np.zeros(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _, values, _ in checked:
            side = project(np.log(values) if logged else values, weights)
            magnitude = np.fmax(magnitude, np.abs(side))
            sides.append(side)
        if len(sides) == 1:
            effect = sides[0]
        elif counted:
            effect, magnitude = sides[0] / sides[1], np.zeros(1)
        else:
            effect = sides[0] - sides[1]
    bounds = bounds_of(rule)
    if logged and rule.effect == "ratio":
        bounds = bounds.map(np.log)
    if not student:
        effect = snap(effect, bounds, magnitude)
    items = items_of(grid.claim, grid.scale, metric)

    def floor(quantile: float) -> Array | float:
        if metric.resolution == 0 and items is None:
            return 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [
                variance_floor(
                    values, weights, quantile=quantile, resolution=metric.resolution, items=items, log=logged
                )
                for _, values, _ in checked
            ]
        return np.sum(parts, axis=0)

    problems = _problems(rule.metric, grid.points, shown, used, checked, why)
    for cell, problem in enumerate(problems):
        if not problem and np.isnan(effect[:, cell]).any():
            problems[cell] = f"{rule.metric}: both sides are infinite or zero in the same seed"
    extras: list[dict[str, float]] = [{} for _ in shown]
    if rule.effect == "slope":
        extras = _fit(grid.points, str(rule.along), np.log(checked[0][1]), used)
    sub = SubRule(
        against, shown, effect, bounds, logged and rule.effect == "ratio", floor, problems, extras=extras
    )
    if student and metric.resolution == 0 and items is None and len(effect) > 1:
        for cell in np.flatnonzero(moments(effect).agree).tolist():
            problems[cell] = problems[cell] or f"{rule.metric}: all seeds agree exactly; {_SPREADLESS}"
    return sub


def items_of(claim: Claim, scale: str, metric: Metric) -> int | None:
    """How many cases a proportion is a share of, at this scale."""
    if metric.kind != "proportion" or metric.items is None:
        return None
    return int(claim.sizes(scale)[metric.items] if isinstance(metric.items, str) else metric.items)


def _check(metric: Metric, rule: Rule, values: Array, codes: Array, student: bool) -> Array:
    """The codes, with those values marked that this effect cannot use."""
    codes = codes.copy()
    with np.errstate(invalid="ignore"):
        if metric.kind == "proportion":
            codes[(codes == OK) & ((values < 0) | (values > 1))] = NOT_A_SHARE
        if rule.effect in ("ratio", "slope"):
            codes[(codes == OK) & (values <= 0)] = NOT_POSITIVE
        if student or rule.effect == "slope" or rule.at == "mean":
            codes[(codes == OK) & np.isinf(values)] = INFINITE
        if metric.kind == "exact" and len(values):
            differs = np.nanmax(values, axis=0, initial=-np.inf) - np.nanmin(values, axis=0, initial=np.inf)
            codes[(codes == OK) & (differs > metric.resolution)] = DIFFERS
    return codes


def _problems(
    name: str,
    points: Sequence[Point],
    shown: Sequence[Point],
    used: Array,
    members: Sequence[tuple[str, Array, Array]],
    why: str,
) -> list[str]:
    """Per cell why it cannot be judged: the worst that befell one of its values, and how often."""
    if not any(codes.any() for _, _, codes in members):
        return [""] * len(shown)
    out = []
    for cell in range(len(shown)):
        found = ""
        worst = 0
        for arm, _, codes in members:
            for p in np.flatnonzero(used[:, cell]).tolist():
                code = int(codes[:, p].max(initial=0))
                if code <= worst:
                    continue
                worst = code
                count = f"{(codes[:, p] == code).sum()} of {len(codes)} seeds"
                place = " ".join([arm, *(f"{k}={v}" for k, v in points[p].items())]) if arm else ""
                if code == UNDERIVED:
                    found = f"{name}: {why}"
                elif code == DIFFERS:
                    found = f"{_WORDS[code]}: {name} of {place}" if place else f"{_WORDS[code]}: {name}"
                elif code >= FAILED:
                    found = f"{place}: {count} {_WORDS[code]}"
                else:
                    found = f"{name} {_WORDS[code]} in {count}" + (f": {place}" if place else "")
        out.append(found)
    return out


def _fit(points: Sequence[Point], along: str, logs: Array, used: Array) -> list[dict[str, float]]:
    """How straight the line is: from the curve that is the average over seeds, so that noise is not taken for
    curvature.

    logs: (seeds, points). used: (points, cells). A cell that averages several curves has their average last
    slope and the largest of their residuals.
    """
    out = []
    mean = logs.mean(axis=0)
    for cell in range(used.shape[1]):
        places = np.flatnonzero(used[:, cell]).tolist()
        last, worst = [], []
        for _, group in settings([points[p] for p in places], along):
            rest = [places[i] for i in group]
            x = np.log([float(points[p][along]) for p in rest])
            order = np.argsort(x)
            x, y = x[order], mean[rest][order]
            residual = y - y.mean() - _slope(points, along, rest)[order] @ y * (x - x.mean())
            last.append((y[-1] - y[-2]) / (x[-1] - x[-2]))
            worst.append(np.abs(residual).max())
        out.append({"last_two_slope": float(np.mean(last)), "largest_residual": float(np.max(worst))})
    return out
