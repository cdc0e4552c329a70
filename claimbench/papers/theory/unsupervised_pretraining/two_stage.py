"""The instrument: frozen features against learning from the labels alone, on a table and an encoder of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from claimbench.errors import UserError
from claimbench.papers.theory.unsupervised_pretraining.classifiers import LEARNERS, fit_predict

Encoder = Callable[[Float[np.ndarray, "rows columns"]], Float[np.ndarray, "rows features"]]
BUDGETS = (20, 50, 100, 200)
TEST_SHARE, MOST_TESTS = 0.3, 1000
SMALLEST_RISK = 1e-3
"""Below which risks are taken as equal: a ratio of two tiny ones says nothing."""


@dataclass(frozen=True)
class Curve:
    """Test risks of one learner at each number of labels, one row a repeat."""

    name: str
    budgets: tuple[int, ...]
    risks: Float[np.ndarray, "repeats budgets"]

    @property
    def mean(self) -> Float[np.ndarray, " budgets"]:
        return self.risks.mean(0)


@dataclass(frozen=True)
class Comparison:
    """Two stages against each learner from labels alone, by error rate or squared error over the target's variance."""

    two_stage: Curve
    supervised: tuple[Curve, ...]

    @property
    def advantage(self) -> Float[np.ndarray, " budgets"]:
        """Risk of the best supervised learner over that of two stages, at each number of labels.

        Which learner is best is seen on the test rows, in its favour.
        """
        best = np.min([curve.mean for curve in self.supervised], axis=0)
        return (best + SMALLEST_RISK) / (self.two_stage.mean + SMALLEST_RISK)


def fit_factors(
    X: Float[np.ndarray, "m d"],
) -> Encoder:
    """Pretrain on unlabelled rows: probabilistic principal components with the number of factors and the noise by the
    Bayesian information criterion (Tipping and Bishop, 1999; Minka, 2000). Returns the posterior mean of the factors.

        encode = fit_factors(unlabelled); encode(X)

    Columns are standardised first; those that do not vary are left out. Raises UserError if fewer than two vary.
    """
    centre, spread = X.mean(0), X.std(0)
    used = spread > 1e-12
    if used.sum() < 2:
        raise UserError("X: fewer than two columns vary, so that there is nothing to pretrain on")

    def standardised(rows: Float[np.ndarray, "rows d"]) -> Float[np.ndarray, "rows used"]:
        return (rows[:, used] - centre[used]) / spread[used]

    m, d = len(X), int(used.sum())
    scaled = standardised(X)
    values, vectors = np.linalg.eigh(scaled.T @ scaled / m)
    values, vectors = np.maximum(values[::-1], 1e-9), vectors[:, ::-1]
    r = np.arange(1, d)
    noise = (values.sum() - np.cumsum(values)[:-1]) / (d - r)
    likelihood = -m / 2 * (np.cumsum(np.log(values))[:-1] + (d - r) * np.log(noise))
    criterion = likelihood - (d * r - r * (r - 1) / 2 + 1) / 2 * math.log(m)
    chosen = int(np.argmax(criterion)) + 1
    variance = noise[chosen - 1]
    # E(z | x) = (W'W + variance)^-1 W'x with W = V sqrt(values - variance): each factor by itself.
    gains = np.sqrt(np.maximum(values[:chosen] - variance, 0)) / values[:chosen]
    directions = vectors[:, :chosen] * gains
    return lambda rows: standardised(rows) @ directions


def compare(
    features: Float[np.ndarray, "rows features"],
    X: Float[np.ndarray, "rows columns"],
    y: Shaped[np.ndarray, " rows"],
    *,
    task: str = "classification",
    budgets: Sequence[int] = BUDGETS,
    repeats: int = 5,
    learners: Sequence[str] = LEARNERS,
    own: Callable[..., Any] | None = None,
    seed: int = 0,
) -> Comparison:
    """A tuned linear predictor on frozen features against tuned learners on the raw columns, at each number of labels.

        found = compare(encoder(X), X, y, budgets=[20, 100]); print(found.advantage)

    Each repeat draws other labelled and test rows; the same for all learners. own: an end-to-end baseline of yours,
    from (X, y, X_test) to predictions. Features must not have been made with labels. Raises UserError for shapes that
    do not fit, and where the largest budget leaves too few test rows.
    """
    y = np.asarray(y)
    if len(features) != len(X) or len(y) != len(X) or features.ndim != 2 or X.ndim != 2:
        raise UserError(
            f"features, X, y: shapes {list(features.shape)}, {list(X.shape)} and {list(y.shape)}; "
            "give one row for each target"
        )
    tests = min(MOST_TESTS, int(TEST_SHARE * len(X)))
    if max(budgets) + tests > len(X) or min(budgets) < 4:
        raise UserError(
            f"budgets = {list(budgets)}: of {len(X)} rows {tests} are for testing; choose 4 to {len(X) - tests}"
        )
    names = ["two-stage", *learners, *(["your baseline"] if own is not None else [])]
    risks = np.zeros((len(names), repeats, len(budgets)))
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(len(X))
        held, pool = order[:tests], order[tests:]
        for place, budget in enumerate(budgets):
            chosen = pool[:budget]
            for row, name in enumerate(names):
                if name == "your baseline" and own is not None:
                    predicted = np.asarray(own(X[chosen], y[chosen], X[held]))
                    if predicted.shape != y[held].shape:
                        raise UserError(
                            f"baseline: predicts shape {list(predicted.shape)}; {list(y[held].shape)} is needed"
                        )
                else:
                    inputs = features if name == "two-stage" else X
                    predicted = fit_predict(
                        "linear" if name == "two-stage" else name,
                        *_standardised(inputs[chosen], inputs[held], y[chosen]),
                        task=task,
                        seed=seed + repeat,
                    )
                risks[row, repeat, place] = risk_of(predicted, y[held], task, float(np.var(y)))
    curves = [Curve(name, tuple(budgets), risks[row]) for row, name in enumerate(names)]
    return Comparison(curves[0], tuple(curves[1:]))


def _standardised(
    inputs: Float[np.ndarray, "n columns"],
    tests: Float[np.ndarray, "tests columns"],
    y: Shaped[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "n columns"], Shaped[np.ndarray, " n"], Float[np.ndarray, "tests columns"]]:
    """By the labelled rows' means and spreads; columns that do not vary among them are only centred."""
    centre, spread = inputs.mean(0), inputs.std(0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    return (inputs - centre) / spread, y, (tests - centre) / spread


def risk_of(
    predicted: Shaped[np.ndarray, " tests"], y: Shaped[np.ndarray, " tests"], task: str, variance: float
) -> float:
    """Share of errors, or mean squared error over the target's variance."""
    if task == "classification":
        return float((predicted != y).mean())
    return float(((predicted - y) ** 2).mean()) / variance
