"""Properties that every verdict must have: order, mirror images, monotonicity, and a round trip through JSON."""

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_sets import DIFFERENCE, VALUE, claim, one, trials

from claimbench.rules import Verdict, judge

numbers = st.floats(-10, 10, allow_nan=False).map(lambda v: round(v, 2))


@st.composite
def sets(draw):
    """A claim with a rule on two points and a set at its first look."""
    kind = draw(st.sampled_from(["mean", "jumpy", "exact"]))
    seeds = {"mean": 5, "jumpy": 6, "exact": 2}[kind]
    rule = {**DIFFERENCE, "at_least": draw(numbers), "need": draw(st.sampled_from(["1/2", "2/2"]))}
    column = st.lists(st.tuples(numbers, numbers), min_size=seeds, max_size=seeds)
    values = {"ours": draw(column), "base": draw(column)}
    if kind == "exact":
        values = {arm: [v[0]] * seeds for arm, v in values.items()}
    return kind, rule, values


def judged(kind, rule, values):
    made = claim(rule, kind=kind, points=(1, 2), metric={} if kind == "exact" else {"resolution": 0.01})
    return judge(made, "quick", trials(values, points=(1, 2)))


@given(sets(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_trials_does_not_matter(case, rng: random.Random):
    kind, rule, values = case
    made = claim(rule, kind=kind, points=(1, 2), metric={} if kind == "exact" else {"resolution": 0.01})
    found = trials(values, points=(1, 2))
    shuffled = rng.sample(found, len(found))
    assert judge(made, "quick", shuffled) == judge(made, "quick", found)


@given(sets())
@settings(max_examples=60, deadline=None)
def test_json_round_trip(case):
    verdict = judged(*case)
    assert repr(Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False)))) == repr(
        verdict
    )


def test_json_keeps_what_is_not_finite():
    verdict = judge(claim(VALUE, kind="jumpy", baselines=()), "quick", one({"ours": [1.0] * 3}))
    cell = Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False))).rules[0].cells[0]
    assert math.isnan(cell.low)
    cell.low, cell.high, cell.extra["x"] = -math.inf, math.inf, math.nan
    verdict.rules[0].cells = [cell]
    again = Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False))).rules[0].cells[0]
    assert (again.low, again.high) == (-math.inf, math.inf)
    assert math.isnan(again.extra["x"])


@given(sets(), st.floats(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_better_method_never_has_a_worse_verdict(case, gain):
    """The same gain in every seed moves the interval and nothing else."""
    kind, rule, values = case
    rank = {"fails": 0, "undecided": 1, "holds": 2}
    gain = round(gain, 2)
    better = {**values, "ours": [tuple(v + gain for v in seed) for seed in values["ours"]]}
    assert rank[judged(kind, rule, better).state] >= rank[judged(kind, rule, values).state]


@given(sets(), st.integers(0, 5), st.floats(0, 5))
@settings(max_examples=100, deadline=None)
def test_one_better_seed_never_worsens_a_count(case, seed, gain):
    _, rule, values = case
    values = {arm: (v * 6)[:6] for arm, v in values.items()}
    rank = {"fails": 0, "undecided": 1, "holds": 2}
    better = {
        **values,
        "ours": [tuple(v + gain * (s == seed) for v in x) for s, x in enumerate(values["ours"])],
    }
    assert rank[judged("jumpy", rule, better).state] >= rank[judged("jumpy", rule, values).state]


@given(sets())
@settings(max_examples=100, deadline=None)
def test_changing_every_sign_mirrors_the_rule(case):
    """The negated numbers under the negated bound get the same verdict, with the intervals mirrored."""
    kind, rule, values = case
    mirrored = {arm: [tuple(-v for v in seed) for seed in column] for arm, column in values.items()}
    other = {k: v for k, v in rule.items() if k != "at_least"} | {"at_most": -rule["at_least"]}
    left, right = judged(kind, rule, values), judged(kind, other, mirrored)
    assert left.state == right.state
    for a, b in zip(left.rules[0].cells, right.rules[0].cells, strict=True):
        assert (a.low, a.high) == pytest.approx((-b.high, -b.low), abs=1e-9)


@given(sets())
@settings(max_examples=100, deadline=None)
def test_swapped_arms_turn_holds_into_fails(case):
    """One cell against a bound of zero, no ties: what holds of ours against base fails of base against ours."""
    kind, _, values = case
    values = {arm: [seed[:1] for seed in column] for arm, column in values.items()}
    made = claim(DIFFERENCE, kind=kind, metric={} if kind == "exact" else {"resolution": 0.01})
    swapped = {"ours": values["base"], "base": values["ours"]}
    if any(a == b for a, b in zip(values["ours"], values["base"], strict=True)):
        return
    mirror = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    found = judge(made, "quick", trials(values)).state
    assert judge(made, "quick", trials(swapped)).state == mirror[found]
