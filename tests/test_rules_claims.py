"""What paper.toml may say about metrics, rules and published figures: each mistake is one line with its fix."""

import pytest
from pydantic import ValidationError

from claimbench.paper import Claim, cells, settings

BASE = {
    "id": "claim",
    "statement": "s",
    "method": "ours",
    "baselines": ["a", "b"],
    "metrics": {
        "acc": {"kind": "mean"},
        "gap": {"kind": "mean", "derived": True},
        "loss": {"kind": "jumpy", "on_failure": 0.0},
    },
    "sweep": {"n": [1, 2, 4], "m": [10, 20]},
    "varies": ["seed"],
    "rules": [{"effect": "difference", "metric": "acc", "against": "a", "at_least": 0}],
    "caveat": "none",
    "scales": {"smoke": {"sweep": {"n": [1]}}, "quick": {}},
}


def rule(**fields):
    return {"rules": [{"effect": "value", "metric": "acc", "at_least": 0, **fields}]}


def metric(**fields):
    return {"metrics": {**BASE["metrics"], "acc": {"kind": "mean", **fields}}}


def figure(**fields):
    return {"published": {"value": 1, "where": "table 1", **fields}}


def test_the_base_is_valid():
    assert Claim.model_validate(BASE).method == BASE["method"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (metric(kind="proportion"), "a proportion needs items"),
        (metric(items=3), 'items belongs to kind = "proportion"'),
        (metric(kind="proportion", items=0), "at least 1 case"),
        (metric(kind="proportion", items="cases"), 'no whole size "cases"'),
        (metric(kind="proportion", items=9, on_failure=2), "between 0 and 1"),
        (metric(on_failure=float("inf")), "no mean over seeds"),
        (metric(on_failure=float("nan")), "on_failure must be a number"),
        (rule(effect="ratio", against="a", at_least=0), "its bounds are positive"),
        (rule(effect="ratio", against="a", at_least=1, metric="loss"), "on_failure must be positive"),
        (rule(at_least=2, at_most=1), "lies above at_most"),
        (rule(at_least=float("inf")), "must be finite"),
        (rule(at_least=None), "none has a bound"),
        (rule(at_least=None, need="1/3"), "need counts cells"),
        (rule(need="2/3"), "the rule has 6 cells"),
        (rule(need="2/6", at="mean"), "the rule has 1 cells"),
        (rule(at=[]), "at is empty"),
        (rule(at={"n": 3}), "no point of the sweep at scale quick"),
        (rule(effect="difference", against="ours"), "compared with itself"),
        (rule(effect="difference", against="b", arm="b"), "compared with itself"),
        (rule(effect="slope", along="m"), "needs at least 3 values of m"),
        (rule(effect="slope", along="k"), "not swept"),
        (rule(effect="slope", along="n", at={"n": 1}), "no setting beside n"),
        (rule(effect="slope", along="n", need="2/3"), "the rule has 2 cells"),
        (rule(effect="slope", along="n", metric="loss"), "on_failure must be positive"),
        (rule(metric="gap", at="last"), "one number a seed"),
        (rule(metric="gap", arm="a"), "judged as a value without an arm"),
        ({"given": [{"effect": "value", "metric": "acc"}]}, r"given\[0\]: has no bound"),
        ({"scales": {"quick": {"baselines": ["b"]}}}, 'leaves out "a"'),
        ({"sweep": {"n": [0, 1, 2], "m": [10]}, **rule(effect="slope", along="n")}, "positive numbers"),
        (figure(rule=1), "counted from 0"),
        (figure(rule=0), "6 cells of rules"),
        (figure(rule=0, at={"n": 2}), "2 cells of rules"),
        (figure(rule=0, at={"n": 3, "m": 10}), "has no cell"),
        (figure(rule=0, at={"n": 2, "m": 10}, against="b"), "has no cell"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(ValidationError, match=message):
        Claim.model_validate({**BASE, **change})


@pytest.mark.parametrize(
    "change",
    [
        rule(need="4/6"),
        rule(effect="slope", along="n", need="1/2"),
        rule(effect="slope", along="n", at={"m": 20}),
        rule(effect="ratio", against="baselines", at_least=2, sure=1),
        rule(metric="gap"),
        figure(rule=0, at={"n": 2, "m": 10}, factor=0.01),
        metric(kind="proportion", items="cases") | {"size": {"cases": 50}},
        {
            "rules": [*BASE["rules"], {"effect": "value", "metric": "acc", "arm": "b"}],
            "scales": {"quick": {"baselines": ["a"]}},
        },
    ],
)
def test_what_is_allowed(change):
    assert Claim.model_validate({**BASE, **change}).id == BASE["id"]


def test_cells_of_a_rule():
    claim = Claim.model_validate({**BASE, **rule(effect="slope", along="n")})
    points = claim.points("quick")
    assert cells(points, claim.rules[0]) == [{"m": 10}, {"m": 20}]
    assert settings(points, "n") == [({"m": 10}, [0, 2, 4]), ({"m": 20}, [1, 3, 5])]
    assert cells(points, Claim.model_validate({**BASE, **rule(at="mean")}).rules[0]) == [{}]
    assert cells(points, Claim.model_validate({**BASE, **rule(at="last")}).rules[0]) == [{"n": 4, "m": 20}]


def test_opponents():
    claim = Claim.model_validate({**BASE, **rule(effect="difference", against="baselines", arm="a")})
    assert claim.opponents(claim.rules[0], "quick") == ["b"]
    claim = Claim.model_validate({**BASE, **rule(effect="difference", against=["baselines", "a"])})
    assert claim.opponents(claim.rules[0], "quick") == ["a", "b"]
