"""The claims of unsupervised-pretraining: every arm at smoke, what is derived, and the instrument on users' data."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.paper import load_paper
from claimbench.papers.theory import unsupervised_pretraining
from claimbench.papers.theory.unsupervised_pretraining import claims, compare, fit_factors
from claimbench.papers.theory.unsupervised_pretraining.__main__ import main, open_features
from claimbench.papers.theory.unsupervised_pretraining.classifiers import (
    LEARNERS,
    fit_predict,
    semi_supervised,
)
from claimbench.papers.theory.unsupervised_pretraining.rows import raw_columns, targets, texts_of, words
from claimbench.papers.theory.unsupervised_pretraining.two_stage import risk_of
from claimbench.subjects import open_subject, resolve_subject
from claimbench.testing import Given, check_derived, check_registry, declared, made_up, measured, smoke_trials
from claimbench.trial import Row, Table, registry

PAPER = load_paper(Path(unsupervised_pretraining.__file__).parent / "paper.toml")
FOUND = registry(claims.__name__)


@pytest.fixture(scope="module")
def digits() -> Any:
    return open_subject(resolve_subject("table", "digits"))


def test_every_claim_is_measured_and_derived() -> None:
    check_registry(PAPER, FOUND)
    for claim in PAPER.claim:
        if declared(claim, derived=True):
            numbers = check_derived(claim, FOUND, made_up(claim, lambda point: 0.25))
            assert all(math.isfinite(value) for value in numbers.values())


@pytest.mark.parametrize("claim", PAPER.claim, ids=lambda claim: claim.id)
def test_every_arm_measures_every_metric(claim: Any, digits: Any) -> None:
    subject = Given(table=digits) if "table" in claim.subjects else Given()
    points = claim.points("smoke")
    for point in points[:1] + points[1:][-1:]:
        trials = smoke_trials(claim, point, subject=subject)
        for metrics in measured(claim, FOUND, trials).values():
            assert set(metrics) == declared(claim, derived=False)
            assert all(math.isfinite(value) for value in metrics.values())


def test_the_advantage_is_over_the_best_rival_at_each_point() -> None:
    rows = [
        Row(arm, {"ratio": ratio}, 0, {"risk": risk})
        for ratio, risks in ((1, (1.0, 8.0, 4.0)), (2, (1.0, 2.0, 16.0)))
        for arm, risk in zip(("two-stage", "a", "b"), risks, strict=True)
    ]
    assert claims.log2_advantage(Table(rows), "two-stage", ("a", "b"), "risk") == pytest.approx(1.5)
    assert claims.log2_advantage(Table(rows), "two-stage", ("b",), "risk", ratio=2) == pytest.approx(4)


def test_pretraining_saves_labels_and_needs_the_right_factors() -> None:
    claim = PAPER.find_claim("label-efficiency")
    trials = smoke_trials(claim, {"d": 20, "r": 2, "m": 20000, "ratio": 2}, repeats=10)
    risks = {arm: metrics["risk"] for arm, metrics in measured(claim, FOUND, trials).items()}
    best = min(risks[arm] for arm in claims.TUNED)
    assert risks["two-stage"] < best / 2
    assert risks["two-stage"] == pytest.approx(risks["oracle"], rel=0.3)
    assert risks["two-stage-bic"] == pytest.approx(risks["two-stage"], rel=0.5)
    assert risks["random-projection"] > best
    assert risks["ols"] > risks["ridge"] > risks["spectral-ridge"]


def test_discarded_directions_are_never_learnt() -> None:
    claim = PAPER.find_claim("not-informative")
    risks = {}
    for ratio in (1, 16):
        trials = smoke_trials(claim, {"d": 50, "r": 3, "ratio": ratio}, repeats=3)
        for arm, metrics in measured(claim, FOUND, trials).items():
            risks[arm, ratio] = metrics["risk"]
    assert risks["two-stage", 16] == pytest.approx(1, abs=0.05)
    assert risks["oracle", 16] == pytest.approx(1, abs=0.05)
    assert risks["ridge", 16] < 0.1
    assert risks["ridge-on-both", 16] < 0.1


def test_the_mixtures_labels_are_learnt_from_few() -> None:
    claim = PAPER.find_claim("mixture")
    trials = smoke_trials(claim, {"separation": 8, "n": 40}, m=1500)
    excess = {arm: metrics["excess"] for arm, metrics in measured(claim, FOUND, trials).items()}
    assert excess["oracle"] <= excess["two-stage"] + 0.02
    assert excess["two-stage"] < min(excess[arm] for arm in claims.CLASSIFIERS)


# ---- learners ----


@pytest.mark.parametrize("learner", LEARNERS)
def test_learners_of_classes_and_numbers(learner: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((160, 3))
    y = X[:, 0] + 0.1 * rng.standard_normal(160)
    found = fit_predict(learner, X[:80], y[:80], X[80:], task="regression")
    assert ((found - y[80:]) ** 2).mean() < 0.5 * y.var()
    labels = (y > 0).astype(int)
    found = fit_predict(learner, X[:80], labels[:80], X[80:])
    assert (found == labels[80:]).mean() > 0.8
    assert (fit_predict(learner, X[:3], np.array([1, 1, 1]), X[80:]) == 1).all()
    assert set(fit_predict(learner, X[:4], np.array([0, 0, 0, 1]), X[80:])) <= {0, 1}


def test_semi_supervised_learners_use_unlabelled_inputs() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[-3.0, 0], [3.0, 0]])
    truth = rng.integers(2, size=500)
    X = centres[truth] + rng.standard_normal((500, 2))
    for learner in claims.SEMI_SUPERVISED:
        found = semi_supervised(learner, X[:6], truth[:6], X[6:300], X[300:])
        assert (found == truth[300:]).mean() > 0.95
    with pytest.raises(UserError, match="self-training"):
        semi_supervised("self-trainig", X[:6], truth[:6], X[6:300], X[300:])
    with pytest.raises(UserError, match="forest"):
        fit_predict("florest", X[:6], truth[:6], X[300:])


# ---- the instrument ----


def test_factors_are_probabilistic_principal_components() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    angles = np.pi * np.arange(8) / 8  # columns of one variance, so that noise is even after scaling as well
    X = 3 * rng.standard_normal((3000, 2)) @ [np.cos(angles), np.sin(angles)] + rng.standard_normal((3000, 8))
    X = (X - X.mean(0)) / X.std(0)
    encode = fit_factors(np.column_stack([X, np.ones(3000)]))  # a column that does not vary is left out
    features = encode(np.column_stack([X, np.ones(3000)]))
    assert features.shape == (3000, 2)
    # Scores of the same components, each shrunk by its own factor.
    scores = PCA(2).fit_transform(X)
    correlation = np.abs(np.corrcoef(features.T, scores.T)[:2, 2:])
    np.testing.assert_allclose(np.diag(correlation), 1, atol=1e-6)
    # A standard normal's posterior mean has less than its variance, and nearly all of it where noise is small.
    assert (features.var(0) < 1).all()
    assert (features.var(0) > 0.7).all()
    with pytest.raises(UserError, match="two columns"):
        fit_factors(np.ones((30, 3)))


def test_good_features_are_told_from_none_and_users_mistakes_are_told() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 30))
    y = (X[:, 0] + 0.3 * rng.standard_normal(400) > 0).astype(int)
    good = compare(X[:, :1], X, y, budgets=[20, 60], repeats=3, learners=["linear", "k-nearest"])
    assert (good.advantage > 1.3).all()
    none = compare(rng.standard_normal((400, 1)), X, y, budgets=[60], repeats=3, learners=["linear"])
    assert none.advantage[0] < 0.8
    own = compare(
        X[:, :1], X, y, budgets=[20], repeats=2, learners=[], own=lambda A, b, C: (C[:, 0] > 0).astype(int)
    )
    assert own.supervised[0].name == "your baseline"
    assert own.supervised[0].mean[0] < 0.2
    with pytest.raises(UserError, match="one row for each target"):
        compare(X[:10], X, y)
    with pytest.raises(UserError, match="budgets"):
        compare(X[:, :1], X, y, budgets=[390])
    with pytest.raises(UserError, match="baseline: predicts"):
        compare(X[:, :1], X, y, budgets=[20], learners=[], own=lambda A, b, C: C)


def test_risks() -> None:
    assert risk_of(np.array([0, 1, 1]), np.array([0, 1, 0]), "classification", 1.0) == pytest.approx(1 / 3)
    assert risk_of(np.array([0.0, 2.0]), np.array([0.0, 0.0]), "regression", 4.0) == pytest.approx(0.5)


ENCODER = """
import numpy as np

def first(X):
    return X[:, :1]

def wrong(X):
    return X[:3]

def end_to_end(X, y, X_test):
    return np.full(len(X_test), y[0])
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(ENCODER)
    rng = np.random.default_rng(0)
    lines = ["x,noise,emb_0,emb_1,text,label"]
    for _ in range(120):
        label = int(rng.integers(2))
        word = ("warm", "cold")[label]
        values = rng.standard_normal(4)
        lines.append(
            f"{label + 0.3 * values[0]},{values[1]},{values[2]},{label},it is {word} {rng.integers(9)},{label}"
        )
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    return tmp_path


def test_features_from_an_encoder_from_columns_or_fitted(mine: Path) -> None:
    table = open_subject(resolve_subject("table", f"{mine}/mine.csv"))
    raw = raw_columns(table)
    assert raw.shape[0] == 120
    y, task = targets(table)
    assert (task, set(y)) == ("classification", {0, 1})
    frozen, inputs, _ = open_features(table, f"{mine}/mine.py:first", "", "", "")
    np.testing.assert_array_equal(frozen, raw[:, :1])
    np.testing.assert_array_equal(inputs, raw)
    frozen, inputs, _ = open_features(table, "", "emb_", "", "")
    np.testing.assert_array_equal(frozen[:, 1], y)
    np.testing.assert_array_equal(inputs, table.numeric[:, :2])
    with pytest.raises(UserError, match="encoder: returns shape"):
        open_features(table, f"{mine}/mine.py:wrong", "", "", "")
    with pytest.raises(UserError, match="one of them"):
        open_features(table, "a.py:b", "emb_", "", "")
    with pytest.raises(UserError, match="holds numbers"):
        texts_of(table, "x")
    seen = words(texts_of(table, "text"))
    assert len(seen) == 120
    assert fit_predict("linear", seen[:60], y[:60], seen[60:]).tolist() == y[60:].tolist()


def test_the_command_prints_what_python_returns(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen: dict[str, Any] = {
        "features": "",
        "text": "",
        "sentence_encoder": "all-minilm-l6-v2",
        "repeats": 2,
        "learners": "linear",
        "seed": 0,
    }
    main(
        f"{mine}/mine.csv#target=label",
        encoder=f"{mine}/mine.py:first",
        baseline=f"{mine}/mine.py:end_to_end",
        budgets="10,40",
        **chosen,
    )
    told = {line.split()[0]: line.split()[-2:] for line in capsys.readouterr().out.splitlines()[2:]}
    table = open_subject(resolve_subject("table", f"{mine}/mine.csv"))
    raw = raw_columns(table)
    found = compare(raw[:, :1], raw, targets(table)[0], budgets=[10, 40], repeats=2, learners=["linear"])
    assert [float(value) for value in told["two-stage"]] == pytest.approx(found.two_stage.mean, abs=6e-4)
    assert "your" in told
    with pytest.raises(UserError, match="budgets"):
        main(f"{mine}/mine.csv", encoder="", baseline="", budgets="ten", **chosen)


def test_the_command_tells_mistakes_in_one_line() -> None:
    wrong = subprocess.run(
        [sys.executable, "-m", unsupervised_pretraining.__name__, "wine", "--features", "alcool"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "alcohol" in wrong.stderr
