"""Verdicts: cases worked out by hand, and an independent t interval."""

import math
import subprocess
import sys

import numpy as np
import pytest
from rules_sets import DIFFERENCE, KINDS, VALUE, claim, one, trials
from scipy import stats

from claimbench.errors import UserError
from claimbench.rules import ALPHA, Judged, judge, look_level, schedule

OURS, BASE = [0.81, 0.85, 0.79, 0.83, 0.86], [0.70, 0.74, 0.72, 0.70, 0.75]


def test_paired_t_against_scipy():
    verdict = judge(claim(DIFFERENCE), "quick", one({"ours": OURS, "base": BASE}))
    (cell,) = verdict.rules[0].cells
    level = look_level(ALPHA, (5, 8, 12))
    interval = stats.ttest_rel(OURS, BASE).confidence_interval(1 - 2 * level)
    assert (cell.low, cell.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert cell.estimate == pytest.approx(np.mean(OURS) - np.mean(BASE))
    assert (verdict.state, verdict.look, verdict.seeds, cell.state) == (
        "holds",
        1,
        [*range(1000, 1005)],
        "holds",
    )
    assert "5 seeds: assumes near-normal seeds" in verdict.notes


def test_ratio_is_the_paired_t_of_logarithms():
    rule = {"effect": "ratio", "metric": "m", "against": "base", "at_least": 1.05}
    (cell,) = judge(claim(rule), "quick", one({"ours": OURS, "base": BASE})).rules[0].cells
    level = look_level(ALPHA, (5, 8, 12))
    interval = stats.ttest_rel(np.log(OURS), np.log(BASE)).confidence_interval(1 - 2 * level)
    assert (cell.low, cell.high) == pytest.approx((math.exp(interval.low), math.exp(interval.high)), rel=1e-9)
    assert cell.estimate == pytest.approx(stats.gmean(OURS) / stats.gmean(BASE))


def test_slope_is_least_squares_on_logarithms():
    points = (1, 2, 4, 16)
    rng = np.random.default_rng(0)
    values = np.exp(1.3 * np.log(points) + 0.05 * rng.standard_normal((5, 4)))
    rule = {"effect": "slope", "metric": "m", "along": "n", "at_most": 1.5}
    made = claim(rule, points=points, baselines=())
    (cell,) = judge(made, "quick", trials({"ours": values}, points=points)).rules[0].cells
    fits = [stats.linregress(np.log(points), np.log(v)) for v in values]
    assert cell.estimate == pytest.approx(np.mean([f.slope for f in fits]))
    last = np.log(values[:, 3] / values[:, 2]) / math.log(16 / 4)
    assert cell.extra["last_two_slope"] == pytest.approx(last.mean())
    mean = np.log(values).mean(axis=0)
    fit = stats.linregress(np.log(points), mean)
    residual = np.abs(mean - fit.intercept - fit.slope * np.log(points)).max()
    assert cell.extra["largest_residual"] == pytest.approx(residual)


def test_middle_point_of_a_slope_is_needed_though_its_weight_is_zero():
    points = (1, 2, 4)
    rule = {"effect": "slope", "metric": "m", "along": "n", "at_most": 9}
    made = trials({"ours": np.full((5, 3), 2.0)}, points=points)
    lost = [
        Judged(t.arm, t.point, t.seed, "lost") if (t.seed, t.point["n"]) == (1001, 2) else t for t in made
    ]
    verdict = judge(claim(rule, points=points, baselines=()), "quick", lost)
    assert verdict.state == "undecided"
    assert "ours n=2: 1 of 5 seeds lost" in verdict.reason


def test_mean_over_points_is_one_cell():
    points = (1, 2)
    rng = np.random.default_rng(1)
    ours, base = rng.normal(1, 0.1, (5, 2)), rng.normal(0, 0.1, (5, 2))
    made = claim({**DIFFERENCE, "at": "mean"}, points=points)
    cells = judge(made, "quick", trials({"ours": ours, "base": base}, points=points)).rules[0].cells
    assert len(cells) == 1
    assert cells[0].estimate == pytest.approx((ours - base).mean())


@pytest.mark.parametrize(
    ("high", "state"),
    [([1] * 6, "holds"), ([1] * 5 + [-1], "undecided"), ([-1] * 6, "fails"), ([0] * 6, "holds")],
)
def test_sign_test_by_hand(high, state):
    """6 of 6 is rarer than 2.5 %, 5 of 6 is not; a seed at the bound meets it."""
    verdict = judge(claim(VALUE, kind="jumpy", baselines=()), "quick", one({"ours": high}))
    assert verdict.state == state
    assert verdict.rules[0].cells[0].extra["share"] == np.mean(np.array(high) >= 0)


def test_sure_needs_more_than_a_tie():
    rule = {**VALUE, "at_least": 0.5, "sure": 0.0}
    made = claim(rule, kind="jumpy", baselines=())
    assert judge(made, "quick", one({"ours": [0.6, 0.6, 0.6, 0.6, 0.1, 0.1]})).state == "holds"
    assert judge(made, "quick", one({"ours": [0.6, 0.6, 0.6, 0.6, 0.1, 0.0]})).state == "undecided"
    assert judge(made, "quick", one({"ours": [0.4, 0.4, 0.4, 0.6, 0.1, 0.1]})).state == "undecided"


def test_sure_of_a_mean():
    rule = {**DIFFERENCE, "at_least": 0.1, "sure": 0.0}
    assert judge(claim(rule), "quick", one({"ours": OURS, "base": BASE})).state == "holds"
    assert (
        judge(claim({**rule, "sure": 0.1}), "quick", one({"ours": OURS, "base": BASE})).state == "undecided"
    )


def test_sign_interval_is_made_of_order_statistics():
    """At 12 seeds 11 must lie on one side: from the second smallest to the second largest."""
    values = [float(v) for v in range(12)]
    (cell,) = judge(claim(VALUE, kind="jumpy", baselines=()), "quick", one({"ours": values})).rules[0].cells
    assert (cell.low, cell.high, cell.estimate) == (1.0, 10.0, 5.5)
    assert cell.level == 13 / 4096


def test_level_out_of_reach_is_said():
    """Four cells of which one is needed: each at 2.5 % / 4, and 6 seeds reach 1.6 % at best."""
    points = (1, 2, 3, 4)
    made = claim({**VALUE, "need": "1/4"}, kind="jumpy", points=points, baselines=())
    verdict = judge(made, "quick", trials({"ours": np.ones((6, 4))}, points=points))
    cell = verdict.rules[0].cells[0]
    assert verdict.state == "undecided"
    assert "6 seeds cannot reach this level" in verdict.reason
    assert (cell.low, cell.high) == (-math.inf, math.inf)


def test_rounding_does_not_decide_a_tie():
    """0.29 - 0.26 is a little less than 0.03 in binary."""
    assert 0.29 - 0.26 < 0.03
    rule = {**DIFFERENCE, "at_least": 0.03}
    for kind, seeds in (("exact", 2), ("jumpy", 6)):
        verdict = judge(
            claim(rule, kind=kind), "quick", one({"ours": [0.29] * seeds, "base": [0.26] * seeds})
        )
        assert verdict.state == "holds"


def test_exact_metrics():
    rule = {"effect": "ratio", "metric": "m", "against": "base", "at_least": 8}
    made = claim(rule, kind="exact")
    holds = judge(made, "quick", one({"ours": [1024, 1024], "base": [128, 128]}))
    cell = holds.rules[0].cells[0]
    assert (holds.state, cell.low, cell.high, cell.level) == ("holds", 8, 8, 0)
    assert judge(made, "quick", one({"ours": [1023, 1023], "base": [128, 128]})).state == "fails"
    differs = judge(made, "quick", one({"ours": [1024, 1025], "base": [128, 128]}))
    assert differs.state == "undecided"
    assert "exact metric differs between seeds" in differs.reason


def test_need_counts_cells_for_each_baseline():
    points, rng = (1, 2, 3), np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal((3, 5, 3))
    made = claim({**DIFFERENCE, "against": "baselines", "need": "2/3"}, points=points, baselines=("a", "b"))
    for worse_at_a, state in ((0, "holds"), (1, "holds"), (2, "fails")):
        ours = np.ones((5, 3)) + noise[0]
        a, b = noise[1].copy(), noise[2]
        a[:, :worse_at_a] += 2
        verdict = judge(made, "quick", trials({"ours": ours, "a": a, "b": b}, points=points))
        assert verdict.state == state
    rule = verdict.rules[0]
    assert (rule.needed, rule.holds_share, rule.fails_share) == (2, ALPHA / 2, ALPHA / 4)
    assert rule.reason == "difference of m against a: 1 of 3 cells hold, 2 needed; 2 outside"


def test_two_bounds_count_twice_and_exact_rules_not_at_all():
    metrics = {"m": {"kind": "mean"}, "count": {"kind": "exact"}}
    rules = [{**VALUE, "at_most": 1.0}, {"effect": "value", "metric": "count", "at_least": 1}]
    made = claim(rules, metrics=metrics, baselines=())
    found = [Judged("ours", {"n": 1}, s, "ok", {"m": 0.5 + 0.01 * s, "count": 3}) for s in range(5)]
    verdict = judge(made, "quick", found)
    assert verdict.state == "holds"
    assert verdict.rules[0].fails_share == ALPHA / 2
    assert verdict.reason == "all 2 rules hold"


def test_given_rules_must_hold():
    given_rule = {"effect": "value", "metric": "m", "arm": "base", "at_least": 0.72}
    made = claim(DIFFERENCE, given=[given_rule])
    verdict = judge(made, "quick", one({"ours": OURS, "base": BASE}))
    assert verdict.state == "undecided"
    assert verdict.reason.startswith("given: value of m")
    assert verdict.rules[0].state == "holds"


@pytest.mark.parametrize(
    ("kinds", "timing", "expected"),
    [
        (("mean",), False, (5, 8, 12)),
        (("proportion", "exact"), False, (5, 8, 12)),
        (("mean", "jumpy"), False, (6, 9, 12)),
        (("exact",), False, (2,)),
        (("exact",), True, (6, 9, 12)),
        (("time",), True, (6, 9, 12)),
    ],
)
def test_schedules(kinds, timing, expected):
    metrics = {f"m{i}": {"kind": kind, **KINDS[kind]} for i, kind in enumerate(kinds)} | {
        "other": {"kind": "jumpy"}
    }
    rules = [{"effect": "value", "metric": f"m{i}", "at_least": 0} for i in range(len(kinds))]
    reported = {"effect": "value", "metric": "other"}
    assert schedule(claim([*rules, reported], metrics=metrics, timing=timing)) == expected


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (0, "incomplete: 0 of 5 seeds"),
        (4, "incomplete: 4 of 5 seeds"),
        (6, "outside the schedule: 6 seeds, looks are at 5, 8 and 12"),
        (13, "outside the schedule: 13 seeds"),
    ],
)
def test_verdicts_only_at_looks(count, reason):
    values = {"ours": [1 + 0.01 * i for i in range(count)], "base": [0.02 * i for i in range(count)]}
    verdict = judge(claim(DIFFERENCE), "quick", one(values))
    assert (verdict.state, verdict.look) == ("undecided", 0)
    assert verdict.reason.startswith(reason)
    assert all(cell.state == "unjudged" for cell in verdict.rules[0].cells)


def test_seeds_of_a_look_are_the_first_of_the_set():
    full = one({"ours": [*OURS, 0.9], "base": [*BASE, 0.7]})
    begun = [t for t in full if not (t.seed == 1005 and t.arm == "base")]
    verdict = judge(claim(DIFFERENCE), "quick", begun)
    assert (verdict.state, verdict.seeds) == ("holds", [*range(1000, 1005)])
    assert "1 seeds are incomplete and not used" in verdict.notes
    gap = [t for t in full if not (t.seed == 1002 and t.arm == "base")]
    verdict = judge(claim(DIFFERENCE), "quick", gap)
    assert (verdict.state, verdict.reason) == ("undecided", "incomplete: seed 1002 lacks 1 trials")


def test_smoke_gives_no_verdict_but_shows_numbers():
    verdict = judge(claim(DIFFERENCE), "smoke", one({"ours": [2.0], "base": [0.5]}))
    assert (verdict.state, verdict.rules[0].cells[0].estimate) == ("undecided", 1.5)
    assert verdict.reason.startswith("smoke")


@pytest.mark.parametrize("status", ["lost", "not-applicable", "failed"])
def test_missing_numbers_leave_a_cell_unjudged(status):
    made = one({"ours": OURS, "base": BASE})
    made[2] = Judged("ours", {"n": 1}, 1002, status, failure="ValueError: x")
    verdict = judge(claim(DIFFERENCE), "quick", made)
    assert verdict.state == "undecided"
    assert verdict.rules[0].cells[0].state == "unjudged"
    assert "1 of 5 seeds" in verdict.reason
    assert (verdict.lost, verdict.not_applicable, verdict.failed) == (
        status == "lost",
        status == "not-applicable",
        status == "failed",
    )


def test_failures_count_as_on_failure():
    made = one({"ours": [1.0] * 6, "base": [0.1] * 6})
    failed = [Judged("base", t.point, t.seed, "failed") if t.arm == "base" else t for t in made]
    with_value = claim(DIFFERENCE, kind="jumpy", metric={"on_failure": 0.0})
    verdict = judge(with_value, "quick", failed)
    assert (verdict.state, verdict.failed, verdict.rules[0].cells[0].estimate) == ("holds", 6, 1.0)
    assert "6 trials failed and count as m = 0" in verdict.notes
    endless = claim({**DIFFERENCE, "at_most": None}, kind="jumpy", metric={"on_failure": -math.inf})
    assert judge(endless, "quick", failed).rules[0].cells[0].estimate == math.inf


def test_lost_cells_do_not_matter_if_enough_others_hold():
    points, rng = (1, 2, 3), np.random.default_rng(0)
    values = {"ours": 1 + 0.01 * rng.standard_normal((5, 3)), "base": 0.01 * rng.standard_normal((5, 3))}
    made = [
        Judged(t.arm, t.point, t.seed, "lost") if t.point["n"] == 3 and t.seed == 1000 else t
        for t in trials(values, points=points)
    ]
    assert judge(claim({**DIFFERENCE, "need": "2/3"}, points=points), "quick", made).state == "holds"
    assert judge(claim(DIFFERENCE, points=points), "quick", made).state == "undecided"


@pytest.mark.parametrize(
    ("rule", "values", "words"),
    [
        ({**DIFFERENCE, "effect": "ratio", "at_least": 1.0}, ([1, 2, 3, 4, 0], BASE), "is not positive"),
        (DIFFERENCE, ([1, 2, 3, 4, math.nan], BASE), "is not a number"),
        (DIFFERENCE, ([1, 2, 3, 4, math.inf], BASE), "is infinite"),
        (DIFFERENCE, ([1.0] * 5, [0.5] * 5), "all seeds agree exactly"),
    ],
)
def test_numbers_that_cannot_be_used(rule, values, words):
    verdict = judge(claim(rule), "quick", one({"ours": values[0], "base": values[1]}))
    assert verdict.state == "undecided"
    assert words in verdict.reason


def test_proportion_outside_its_range():
    verdict = judge(
        claim(DIFFERENCE, kind="proportion"), "quick", one({"ours": [1.2] * 5, "base": [0.5] * 5})
    )
    assert "does not lie between 0 and 1" in verdict.reason


def test_resolution_is_the_least_spread():
    made = claim(DIFFERENCE, metric={"resolution": 0.1})
    (cell,) = judge(made, "quick", one({"ours": [1.0] * 5, "base": [0.0] * 5})).rules[0].cells
    spread = 0.1 * math.sqrt(2)  # two values, each known to 0.1
    expected = stats.t.isf(look_level(ALPHA, (5, 8, 12)), 4) * spread / math.sqrt(5)
    assert cell.estimate - cell.low == pytest.approx(expected)


def test_certain_proportions_are_not_certain():
    """100 of 100 five times: the interval reaches at least to the exact binomial bound, level^(1/500)."""
    rule = {**VALUE, "at_least": 0.95}
    (cell,) = (
        judge(claim(rule, kind="proportion", baselines=()), "quick", one({"ours": [1.0] * 5})).rules[0].cells
    )
    assert 0.95 < cell.low <= look_level(ALPHA, (5, 8, 12)) ** (1 / 500)


def test_items_may_be_a_size():
    size = claim(VALUE, kind="proportion", metric={"items": "cases"}, size={"cases": 100}, baselines=())
    number = claim(VALUE, kind="proportion", baselines=())
    made = one({"ours": [0.9] * 5})
    assert judge(size, "quick", made).rules[0].cells == judge(number, "quick", made).rules[0].cells


# --- derived numbers ---

DERIVED = {"m": {"kind": "mean"}, "gap": {"kind": "mean", "derived": True}}
GAP = {"effect": "value", "metric": "gap", "at_least": 0.05}


def gap(table):
    return {"gap": table.value("m", arm="ours", n=1) - table.value("m", arm="base", n=1)}


def test_derived_numbers_are_judged_as_values():
    made = one({"ours": OURS, "base": BASE})
    verdict = judge(claim(GAP, metrics=DERIVED), "quick", made, derive=gap)
    plain = judge(claim({**DIFFERENCE, "at_least": 0.05}), "quick", made)
    assert verdict.rules[0].cells[0].low == pytest.approx(plain.rules[0].cells[0].low)
    assert verdict.state == "holds"


def test_derive_without_its_data():
    made = one({"ours": OURS, "base": BASE})
    made[3] = Judged("ours", {"n": 1}, 1003, "failed")
    verdict = judge(claim(GAP, metrics=DERIVED), "quick", made, derive=gap)
    assert verdict.state == "undecided"
    assert "seed 1003: nothing to derive from" in verdict.reason


def test_a_wrong_derive_is_not_taken_for_missing_data():
    with pytest.raises(KeyError):
        judge(
            claim(GAP, metrics=DERIVED),
            "quick",
            one({"ours": OURS, "base": BASE}),
            derive=lambda table: {}["x"],
        )
    with pytest.raises(UserError, match='gave no "gap"'):
        judge(
            claim(GAP, metrics=DERIVED),
            "quick",
            one({"ours": OURS, "base": BASE}),
            derive=lambda t: {"gab": 1},
        )
    with pytest.raises(UserError, match="no @derive"):
        judge(claim(GAP, metrics=DERIVED), "quick", one({"ours": OURS, "base": BASE}))


# --- timing ---

FASTER = {"effect": "ratio", "metric": "m", "against": "base", "at_most": 0.9}


def test_timing_needs_equal_copies():
    values = {"ours": [1.0, 1.1, 0.9, 1.0, 1.2, 1.0], "base": [2.0, 2.1, 1.8, 2.2, 2.0, 2.1]}
    made = claim(FASTER, kind="time")
    even = [1.01, 0.99, 1.0, 1.02, 0.98, 1.01] * 2
    fine = [Judged(t.arm, t.point, t.seed, "ok", t.metrics, aa=even[t.seed - 1000]) for t in one(values)]
    verdict = judge(made, "quick", fine)
    assert (verdict.state, verdict.aa.n) == ("holds", 6)
    assert verdict.aa.low <= 1 <= verdict.aa.high
    uneven = [Judged(t.arm, t.point, t.seed, "ok", t.metrics, aa=1.05) for t in one(values)]
    verdict = judge(made, "quick", uneven)
    assert verdict.state == "undecided"
    assert verdict.reason.startswith("A/A copies differ")
    assert judge(made, "quick", one(values)).reason == "A/A ratio missing in 6 of 6 rounds"


# --- the paper's own figures ---


def test_published_figures_lie_inside_or_not():
    figures = [
        {"value": 11, "where": "table 1", "rule": 0, "factor": 0.01},
        {"value": 0.5, "where": "table 2", "rule": 0},
        {"value": 3, "where": "abstract"},
    ]
    verdict = judge(claim(DIFFERENCE, published=figures), "quick", one({"ours": OURS, "base": BASE}))
    assert [(f.inside, f.where) for f in verdict.figures] == [
        (True, "table 1"),
        (False, "table 2"),
        (None, "abstract"),
    ]
    assert verdict.figures[0].value == pytest.approx(0.11)


# --- what it needs ---


def test_a_cell_twice_is_refused():
    made = one({"ours": OURS, "base": BASE})
    with pytest.raises(ValueError, match="two trials of ours"):
        judge(claim(DIFFERENCE), "quick", [*made, made[0]])


def test_trials_of_other_claims_are_counted_and_ignored():
    made = one({"ours": OURS, "base": BASE})
    other = [
        Judged("stranger", {"n": 1}, 1000, "ok", {"m": 1.0}),
        Judged("ours", {"n": 9}, 1000, "ok", {"m": 1.0}),
    ]
    verdict = judge(claim(DIFFERENCE), "quick", made + other)
    assert verdict.state == "holds"
    assert "2 trials are of arms or points" in verdict.notes[-1]


def test_importing_the_rules_imports_nothing_heavy():
    heavy = "('torch', 'sqlalchemy', 'scipy.stats')"
    code = f"import claimbench.rules, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
