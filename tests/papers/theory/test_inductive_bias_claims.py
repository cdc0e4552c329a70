"""The claims of inductive-bias: every arm at smoke, what is derived, learners, users' data and the instrument."""

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
from claimbench.papers.theory import inductive_bias
from claimbench.papers.theory.inductive_bias import (
    Problem,
    bits_from_errors,
    claims,
    demand_of,
    required_bits,
)
from claimbench.papers.theory.inductive_bias.__main__ import main, open_problem
from claimbench.papers.theory.inductive_bias.learners import SETTINGS, predict, tuned_predictions
from claimbench.papers.theory.inductive_bias.problems import (
    draw_shapes,
    image_arrays,
    one_hot,
    sine_problem,
    split_problem,
    table_arrays,
)
from claimbench.subjects import open_subject, resolve_subject
from claimbench.testing import Given, check_derived, check_registry, declared, made_up, measured, smoke_trials
from claimbench.trial import registry

PAPER = load_paper(Path(inductive_bias.__file__).parent / "paper.toml")
FOUND = registry(claims.__name__)


@pytest.fixture(scope="module")
def digits() -> Any:
    return open_subject(resolve_subject("images", "digits"))


def test_every_claim_is_measured_and_derived() -> None:
    check_registry(PAPER, FOUND)
    for claim in PAPER.claim:
        if declared(claim, derived=True):
            numbers = check_derived(claim, FOUND, made_up(claim, lambda point: float(point.get("n", 1)) + 1))
            assert all(math.isfinite(value) for value in numbers.values())


@pytest.mark.parametrize("claim", PAPER.claim, ids=lambda claim: claim.id)
def test_every_arm_measures_every_metric(claim: Any, digits: Any) -> None:
    subject = Given(images=digits) if "images" in claim.subjects else Given()
    points = claim.points("smoke")
    for point in points[:1] + points[1:][-1:]:
        trials = smoke_trials(claim, point, subject=subject, rows=20, tests=10, hypotheses=200, draws=20_000)
        for metrics in measured(claim, FOUND, trials).values():
            assert set(metrics) == declared(claim)
            assert all(math.isfinite(value) for value in metrics.values())


def test_the_tail_is_judged_by_the_exact_law() -> None:
    claim = PAPER.find_claim("tail-estimate")
    point = {"task": "sines-5", "nats": 20}
    trials = smoke_trials(claim, point, rows=40, tests=40, hypotheses=2000)
    results = FOUND.measures["tail-estimate"](trials)
    found = {trial.arm: result["relative_error"] for trial, result in zip(trials, results, strict=True)}
    assert found["saddle-point"] < 0.01
    assert found["importance-sampling"] < 0.05
    assert found["normal"] > 0.3
    assert found["counting"] == pytest.approx(1 - math.log(4000) / 20)
    # The spectrum is uneven: three moments ask for more skew than the family has.
    assert found["chi-squared-moments"] == pytest.approx(found["gamma"])


def test_more_rows_need_fewer_bits_unless_their_targets_are_permuted() -> None:
    claim = PAPER.find_claim("more-data-less-bias")
    bits = {}
    for n in (0, 60, 240):
        for trial in smoke_trials(claim, {"n": n}, most_rows=240):
            bits[trial.arm, n] = FOUND.measures[claim.measured_by](trial)["bits"]
    assert bits["exact", 0] > bits["exact", 60] > bits["exact", 240]
    assert bits["exact", 0] == pytest.approx(bits["permuted-targets", 0])
    assert bits["permuted-targets", 240] > bits["permuted-targets", 0]


def test_copies_are_seen_as_three_coordinates() -> None:
    claim = PAPER.find_claim("dimension-needs-bias")
    bits = {}
    for d in (3, 12):
        for trial in smoke_trials(claim, {"d": d}):
            bits[trial.arm, d] = FOUND.measures[claim.measured_by](trial)["bits"]
    assert bits["redundant-copies", 12] == pytest.approx(bits["redundant-copies", 3], rel=1e-6)
    assert bits["exact", 12] > bits["exact", 3] + 20


def test_tuning_never_sees_the_test_set(digits: Any) -> None:
    claim = PAPER.find_claim("nets-encode-bias")
    found = []
    for tests in (40, 41):  # other test rows: the split's training rows are the same
        trial = smoke_trials(claim, subject=Given(images=digits), tuning=True, tests=tests)[4]
        found.append(FOUND.measures[claim.measured_by](trial)["error"])
    assert found[0] == found[1]


# ---- data and learners ----


def test_shapes_are_told_apart_by_what_they_are() -> None:
    pixels, labels = draw_shapes(400, 16, np.random.default_rng(0))
    assert pixels.shape == (400, 16, 16)
    assert 0 <= pixels.min() < pixels.max() <= 1
    ink = np.array([pixels[labels == label].mean() for label in range(5)])
    assert ink.argmax() in (0, 2)  # disc or square: a ring and a cross have holes, a triangle is smaller
    assert np.ptp(ink) > 0.05
    problem = split_problem(pixels.reshape(400, -1), one_hot(labels, 5), 300, 100, np.random.default_rng(1))
    right = predict("conv-net", 1, problem, shape=(1, 16, 16), epochs=12).argmax(1)
    assert (right == problem.Y_test.argmax(1)).mean() > 0.4  # twice what guessing gets


@pytest.mark.parametrize("learner", sorted(SETTINGS))
def test_learners_beat_the_mean_target_and_are_repeatable(learner: str, digits: Any) -> None:
    problem = split_problem(*image_arrays(digits), 120, 60, np.random.default_rng(0))
    constant = float(((problem.Y.mean(0) - problem.Y_test) ** 2).mean())
    first, again = (
        predict(learner, 0, problem, shape=(1, 8, 8), epochs=10)
        if learner != "k-nearest"
        else predict(learner, 1, problem)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert float(((first - problem.Y_test) ** 2).mean()) < 0.7 * constant


def test_the_ridge_leaves_one_out_as_refitting_does() -> None:
    from claimbench.papers.theory.inductive_bias import median_width, rbf_kernel
    from claimbench.papers.theory.inductive_bias.learners import PENALTIES

    problem = sine_problem(2, 25, 30, np.random.default_rng(3))
    kernel = rbf_kernel(0.5 * median_width(problem.X))
    centre = problem.Y.mean(0)

    def fitted(rows: np.ndarray, at: np.ndarray, penalty: float) -> np.ndarray:
        matrix = kernel(problem.X[rows], problem.X[rows]) + penalty * 25 * np.eye(len(rows))
        return centre + kernel(at, problem.X[rows]) @ np.linalg.solve(matrix, problem.Y[rows] - centre)

    everything = np.arange(25)
    losses = [
        np.mean(
            [(fitted(np.delete(everything, i), problem.X[[i]], p)[0] - problem.Y[i]) ** 2 for i in everything]
        )
        for p in PENALTIES
    ]
    expected = fitted(everything, problem.X_test, PENALTIES[int(np.argmin(losses))])
    np.testing.assert_allclose(predict("kernel-ridge", 1, problem), expected, atol=1e-5)


def test_tables_become_numbers() -> None:
    table = open_subject(
        resolve_subject(
            "table",
            (
                {
                    "a": [1.0, 2.0, None] * 10,
                    "b": ["x", "y", "x"] * 10,
                    "c": list(range(30)),
                    "y": [0, 1, 1] * 10,
                },
                "y",
            ),
            version="mixed",
        )
    )
    X, Y = table_arrays(table)
    assert X.shape == (30, 4)
    np.testing.assert_allclose(X[:, 0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(X[2, 0], 0, atol=1e-12)
    np.testing.assert_array_equal(Y.sum(1), 1)
    with pytest.raises(UserError, match="no target"):
        table_arrays(open_subject(resolve_subject("table", "wine#target=")))
    with pytest.raises(UserError, match="at least 10"):
        split_problem(X[:5], Y[:5], 3, 2, np.random.default_rng(0))


# ---- the instrument ----


def test_bits_are_nats_over_log_2_and_errors_are_priced_back() -> None:
    problem = sine_problem(4, 30, 20, np.random.default_rng(0))
    demand = demand_of(problem)
    error = demand.error_at(50.0)
    assert demand.bits(error) == pytest.approx(50.0)
    assert demand.space.nats(error) == pytest.approx(50 * math.log(2))
    assert required_bits(problem.X, problem.Y, problem.X_test, problem.Y_test, error) == pytest.approx(50.0)
    with pytest.raises(UserError, match="positive"):
        required_bits(problem.X, problem.Y, problem.X_test, problem.Y_test, 0.0)


def test_bits_from_any_samplers_errors() -> None:
    problem = sine_problem(5, 30, 20, np.random.default_rng(0))
    law = demand_of(problem).space.errors
    errors = law.sample(4000, np.random.default_rng(1))
    near = bits_from_errors(errors, law.error_at(3 * math.log(2)))
    assert near.bits == pytest.approx(3, abs=0.3)
    assert near.counted == pytest.approx(3, abs=0.2)
    assert not near.extrapolated
    far = bits_from_errors(errors, law.error_at(30 * math.log(2)))
    assert far.extrapolated
    assert far.counted == math.inf


MODEL = """
import numpy as np

def constant(X, Y, X_test):
    return np.tile(Y.mean(0), (len(X_test), 1))

def wrong(X, Y, X_test):
    return Y[:3]
"""


def test_the_command_prices_what_python_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    chosen = {
        "families": "rbf,relu-network",
        "width": 0.0,
        "nugget": 1e-8,
        "errors": "0.02",
        "rows": 80,
        "tests": 40,
    }
    main("digits", **chosen, model=f"{tmp_path}/mine.py:constant", learners=False, seed=0)
    told = {
        line.rsplit(None, 3)[0].strip(): line.split()[-3:]
        for line in capsys.readouterr().out.splitlines()[3:]
    }
    problem, shape = open_problem("digits", 80, 40, 0)
    assert shape == (1, 8, 8)
    demand = demand_of(problem, "relu-network")
    assert float(told["error 0.02"][2]) == pytest.approx(demand.bits(0.02), abs=0.06)
    assert told["your model"] == told["mean target"]
    with pytest.raises(UserError, match="your model: predicts shape"):
        main("digits", **chosen, model=f"{tmp_path}/mine.py:wrong", learners=False, seed=0)


def test_the_command_tells_mistakes_in_one_line() -> None:
    command = [sys.executable, "-m", inductive_bias.__name__]
    wrong = subprocess.run(
        [*command, "wine", "--families", "rbv", "--no-learners"], capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "rbf" in wrong.stderr


def test_tuned_predictions_take_the_best_of_the_held_back_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 1))
    Y = np.sign(X) + 0.8 * rng.standard_normal((200, 1))  # noise: one neighbour is worst
    problem = Problem(X[:150], Y[:150], X[150:], Y[150:])
    np.testing.assert_array_equal(tuned_predictions("k-nearest", problem), predict("k-nearest", 3, problem))
