"""Sets to verdicts: a verdict is a function of the claim, the scale and one set of trials, and of nothing
else.

Why the levels keep the promise. Let a sub-rule be one rule against one baseline, with n cells of which k must
hold.

*Holds*, every cell tested at a = alpha / (n - k + 1). If the sub-rule is false, at most k - 1 cells are true,
so at least m >= n - k + 1 are false, and k cells can only hold if m - (n - k) or more of the false ones do.
The expected number of false ones that hold is at most m a, so by Markov's inequality the probability is at
most m a / (m - (n - k)), which is largest at m = n - k + 1: alpha. A claim of several sub-rules is false if
one of them is, and holds only if all do, so nothing is added.

*Fails*, every cell tested at b = alpha / (sum of k over the sub-rules). If the claim is true, every sub-rule
has m >= k true cells. It is said to fail if n - k + 1 cells lie outside, of which at most n - m are truly
false: m - k + 1 or more true ones. By the same inequality that has probability at most m b / (m - k + 1),
largest at m = k: k b. Summed over sub-rules: alpha. A cell with two bounds can be outside in two ways and
counts twice. An exact metric cannot err by chance and is not counted.

Neither argument needs independent cells. `given` rules and an A/A test can only turn a verdict into
*undecided*.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from claimbench.errors import UserError
from claimbench.paper import Claim, Point, Published, Rule, matches
from claimbench.rules.effects import Derive, Grid, SubRule, sub_rules
from claimbench.rules.intervals import Array, moments, possible, share_beyond, sign_interval, t_interval
from claimbench.rules.levels import ALPHA, look_level, sign_boundary, sign_level, t_quantile
from claimbench.rules.looks import schedule
from claimbench.rules.verdict import Cell, Figure, Judged, RuleVerdict, Verdict
from claimbench.rules.words import describe, listed, notes, sub_reason, unreachable

STUDENT = ("mean", "proportion")


def judge(claim: Claim, scale: str, trials: Sequence[Judged], *, derive: Derive | None = None) -> Verdict:
    """The verdict of one set.

    Raises UserError if a derived metric has no function to make it, ValueError if one cell of the set stands
    twice.
    """
    looks = schedule(claim)
    rows, foreign = _index(claim, scale, trials)
    lacking = {seed: sum(trial is None for trial in rows[seed]) for seed in sorted(rows)}
    complete = [seed for seed, missing in lacking.items() if not missing]
    problem = _schedule_problem(complete, lacking, looks)
    if scale == "smoke":
        problem = "smoke proves that the claim runs and gives no verdict"
    look = 0 if problem else looks.index(len(complete)) + 1
    grid = Grid(claim, scale, complete, [rows[seed] for seed in complete], derive)
    shared = _shares(claim, grid)
    results = [
        _judge_rule(grid, index, given, rule, subs, looks, look, fails_share)
        for index, given, rule, subs, fails_share in shared
    ]
    aa, aa_problem = _aa(claim, grid) if claim.timing and look else (None, "")
    state, reason = _decide(results, problem or aa_problem)
    used = complete if look else rows
    status = Counter(trial.status for seed in used for trial in rows[seed] if trial is not None)
    verdict = Verdict(
        state=state,
        reason=reason,
        scale=scale,
        rules=results,
        seeds=complete,
        look=look,
        schedule=list(looks),
        failed=status["failed"],
        lost=status["lost"],
        not_applicable=status["not-applicable"],
        aa=aa,
    )
    verdict.figures = [_compare(figure, results) for figure in claim.figures]
    verdict.notes = notes(claim, verdict, len(rows) - len(complete), foreign)
    return verdict


def _index(claim: Claim, scale: str, trials: Sequence[Judged]) -> tuple[dict[int, list[Judged | None]], int]:
    """Each seed's trials in the order of the plan (arms, then points), and how many others there are."""
    points = {frozenset(point.items()): place for place, point in enumerate(claim.points(scale))}
    arms = {arm: place * len(points) for place, arm in enumerate(claim.arms(scale))}
    cells = len(arms) * len(points)
    rows: dict[int, list[Judged | None]] = {}
    foreign = 0
    for trial in trials:
        arm, point = arms.get(trial.arm), points.get(frozenset(trial.point.items()))
        if arm is None or point is None:
            foreign += 1
            continue
        row = rows.get(trial.seed)
        if row is None:
            row = rows[trial.seed] = [None] * cells
        if row[arm + point] is not None:
            raise ValueError(f"two trials of {trial.arm} at {dict(trial.point)} with seed {trial.seed}")
        row[arm + point] = trial
    return rows, foreign


def _schedule_problem(complete: Sequence[int], lacking: Mapping[int, int], looks: Sequence[int]) -> str:
    """Empty if the complete seeds are exactly the first of the set and as many as a look takes.

    lacking: how many trials each seed of the set has not got, in the order of the seeds.
    """
    count = len(complete)
    planned = listed(looks)
    partial = [seed for seed, missing in lacking.items() if missing]
    if partial and complete and partial[0] < complete[-1]:
        return f"incomplete: seed {partial[0]} lacks {lacking[partial[0]]} trials"
    if count in looks:
        return ""
    following = [look for look in looks if look > count]
    if following and (partial or count < looks[0]):
        return f"incomplete: {count} of {following[0]} seeds (looks are at {planned})"
    return f"outside the schedule: {count} seeds, looks are at {planned}"


def _shares(claim: Claim, grid: Grid) -> list[tuple[int, bool, Rule, list[SubRule], float]]:
    """Every rule with its sub-rules, the cells each needs, and the error that a cell's *outside* may
    spend."""
    ways = 0
    out = []
    for given, rules in ((False, claim.rules), (True, claim.given)):
        for index, rule in enumerate(rules):
            subs = sub_rules(grid, rule)
            for sub in subs:
                try:
                    sub.needed = rule.needed(len(sub.points)) if not sub.problem else 0
                except UserError as error:
                    sub.problem = str(error)
                if rule.bounded and not given and claim.metrics[rule.metric].kind != "exact":
                    ways += sub.needed * (2 if sub.bounds.both else 1)
            out.append((index, given, rule, subs))
    return [(*entry, ALPHA / max(ways, 1)) for entry in out]


def _judge_rule(
    grid: Grid,
    index: int,
    given: bool,
    rule: Rule,
    subs: Sequence[SubRule],
    looks: tuple[int, ...],
    look: int,
    fails_share: float,
) -> RuleVerdict:
    cells: list[Cell] = []
    states, reasons = [], []
    holds_share = ALPHA
    for sub in subs:
        holds_share = ALPHA / max(len(sub.points) - sub.needed + 1, 1) if rule.bounded else ALPHA
        made, holds, fails = _judge_sub_rule(grid, rule, sub, looks, look, holds_share, fails_share)
        cells += made
        states.append("holds" if holds else "fails" if fails else "undecided")
        reasons.append(sub_reason(rule, sub, made))
    text = describe(grid.claim, rule)
    if not rule.bounded:
        return RuleVerdict(index, given, text, "reported", "", 0, ALPHA, ALPHA, cells)
    state = "fails" if "fails" in states else "undecided" if "undecided" in states else "holds"
    if not subs:
        state, reasons = "undecided", ["no baseline of this rule is in this set"]
    reason = next((r for s, r in zip(states, reasons, strict=False) if s == state), reasons[0])
    needed = max((sub.needed for sub in subs), default=0)
    return RuleVerdict(index, given, text, state, reason, needed, holds_share, fails_share, cells)  # type: ignore[arg-type]  # one of the three words


def _judge_sub_rule(
    grid: Grid,
    rule: Rule,
    sub: SubRule,
    looks: tuple[int, ...],
    look: int,
    holds_share: float,
    fails_share: float,
) -> tuple[list[Cell], bool, bool]:
    if sub.problem:
        return [_blank(sub, {}, sub.problem)], False, False
    kind = grid.claim.metrics[rule.metric].kind
    effect = sub.effect
    seeds, count = effect.shape
    usable = np.array([not problem for problem in sub.problems])
    remarks = list(sub.problems)
    if seeds == 0:
        return [_blank(sub, p, "no complete seed") for p in sub.points], False, False
    estimate = _estimate(effect, kind, sub, rule)
    low = high = fail_low = fail_high = np.full(count, np.nan)
    level = fail_level = 0.0
    with np.errstate(invalid="ignore"):
        if not look:
            usable[:] = False
        elif kind == "exact":
            low, high = (
                effect.min(axis=0),
                effect.max(axis=0),
            )  # they differ by less than the resolution, if at all
            fail_low, fail_high = low, high
        elif kind in STUDENT:
            level, fail_level = look_level(holds_share, looks), look_level(fails_share, looks)
            quantile, fail_quantile = t_quantile(level, seeds - 1), t_quantile(fail_level, seeds - 1)
            of = moments(effect)
            low, high = t_interval(of, sub.floor(quantile), quantile)
            fail_low, fail_high = t_interval(of, sub.floor(fail_quantile), fail_quantile)
        else:
            boundary = sign_boundary(holds_share, looks)[look - 1]
            fail_boundary = sign_boundary(fails_share, looks)[look - 1]
            ordered = np.sort(effect, axis=0)
            low, high = sign_interval(ordered, boundary)
            fail_low, fail_high = sign_interval(ordered, fail_boundary)
            level = sign_level(boundary, seeds) if boundary is not None else 0.0
            fail_level = sign_level(fail_boundary, seeds) if fail_boundary is not None else 0.0
            remarks = [r or unreachable(seeds, boundary, fail_boundary, rule) for r in remarks]
        inside = sub.bounds.inside(estimate, low, high) & usable
        outside = sub.bounds.outside(fail_low, fail_high) & usable
    holds, fails = possible(inside, outside, sub.needed)
    share = share_beyond(effect, sub.bounds) if rule.bounded and kind in ("jumpy", "time") else None
    back = np.exp if sub.log else np.asarray
    made = []
    for c, point in enumerate(sub.points):
        extra = dict(sub.extras[c]) if sub.extras else {}
        if share is not None:
            extra["share"] = float(share[c])
        if not usable[c]:
            problem = sub.problems[c]
            made.append(_blank(sub, point, problem, float(back(estimate[c])), seeds, extra))
            continue
        if rule.bounded and kind != "exact":
            extra |= {
                "fail_low": float(back(fail_low[c])),
                "fail_high": float(back(fail_high[c])),
                "fail_level": fail_level,
            }
        made.append(
            Cell(
                against=sub.against,
                point=dict(point),
                estimate=float(back(estimate[c])),
                low=float(back(low[c])),
                high=float(back(high[c])),
                level=level,
                n=seeds,
                state="reported"
                if not rule.bounded
                else "holds"
                if inside[c]
                else "outside"
                if outside[c]
                else "unclear",
                note=remarks[c],
                extra=extra,
            )
        )
    return made, rule.bounded and bool(holds), rule.bounded and bool(fails)


def _estimate(effect: Array, kind: str, sub: SubRule, rule: Rule) -> Array:
    """Mean of a Student kind, median of one that is counted, the value itself of an exact one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if kind in STUDENT:
            return np.asarray(effect.mean(axis=0))
        if kind == "exact":
            return np.asarray(effect[0])
        ordered = np.sort(effect, axis=0)
        low, high = ordered[(len(effect) - 1) // 2], ordered[len(effect) // 2]
        halfway = np.sqrt(low) * np.sqrt(high) if rule.effect == "ratio" and not sub.log else (low + high) / 2
        return np.where(low == high, low, halfway)


def _blank(
    sub: SubRule,
    point: Point,
    note: str,
    estimate: float = math.nan,
    n: int = 0,
    extra: dict[str, float] | None = None,
) -> Cell:
    return Cell(sub.against, dict(point), estimate, math.nan, math.nan, 0.0, n, "unjudged", note, extra or {})


def _aa(claim: Claim, grid: Grid) -> tuple[Cell | None, str]:
    """The A/A ratio over all rounds of these seeds, and why no time can be trusted if it is not 1.

    One look, each side at alpha: a false alarm only costs a verdict, so sensitivity comes first. Rounds of
    all points are taken together; one round is one seed at one point.
    """
    seeds, arms, points = grid.shape
    ratios: list[float] = []
    missing = 0
    for s in range(seeds):
        for p in range(points):
            together = [grid.trials[(s * arms + a) * points + p] for a in range(arms)]
            method = together[0]
            if method is None or method.status != "ok":
                continue
            known = [t.aa for t in together if t is not None and t.aa is not None and 0 < t.aa < math.inf]
            if known:
                ratios.append(known[0])
            else:
                missing += 1
    if missing:
        return None, f"A/A ratio missing in {missing} of {missing + len(ratios)} rounds"
    if not ratios:
        return None, "A/A ratio missing: the method finished no round"
    logs = np.log(ratios)[:, None]
    boundary = sign_boundary(ALPHA, (len(ratios),))[0]
    low, high = (float(np.exp(end[0])) for end in sign_interval(np.sort(logs, axis=0), boundary))
    estimate = float(np.exp(np.median(logs)))
    level = sign_level(boundary, len(ratios)) if boundary is not None else 0.0
    differs = low > 1 or high < 1
    cell = Cell(claim.method, {}, estimate, low, high, level, len(ratios), "outside" if differs else "holds")
    return (
        cell,
        f"A/A copies differ: ratio {estimate:.4g}, interval {low:.4g} to {high:.4g}" if differs else "",
    )


def _decide(results: Sequence[RuleVerdict], problem: str) -> tuple[Any, str]:
    if problem:
        return "undecided", problem
    deciding = [r for r in results if not r.given and r.state != "reported"]
    for result in results:
        if result.given and result.state != "holds":
            return "undecided", f"given: {result.reason}"
    for wanted in ("fails", "undecided"):
        for result in deciding:
            if result.state == wanted:
                return wanted, result.reason
    if len(deciding) == 1:
        return "holds", deciding[0].reason
    return "holds", f"all {len(deciding)} rules hold"


def _compare(figure: Published, results: Sequence[RuleVerdict]) -> Figure:
    """The paper's figure beside the cell that it names."""
    value = figure.value * figure.factor
    if figure.rule is None:
        return Figure(value, figure.where, None, None, None, None, "not directly comparable")
    rule = next(r for r in results if not r.given and r.index == figure.rule)
    cells = [
        cell
        for cell in rule.cells
        if (figure.against is None or cell.against == figure.against)
        and (figure.at is None or matches(cell.point, figure.at))
    ]
    if len(cells) != 1:
        note = "this set has no such cell" if not cells else f"{len(cells)} cells could be meant"
        return Figure(value, figure.where, figure.rule, figure.against, figure.at, None, note)
    cell = cells[0]
    if cell.state == "unjudged":
        return Figure(
            value, figure.where, figure.rule, cell.against, cell.point, None, cell.note or "not judged"
        )
    # Where nothing is uncertain the interval is one number; a printed figure equals it if it differs by
    # rounding alone.
    inside = cell.low <= value <= cell.high or math.isclose(value, cell.estimate, rel_tol=1e-9)
    return Figure(value, figure.where, figure.rule, cell.against, cell.point, inside)
