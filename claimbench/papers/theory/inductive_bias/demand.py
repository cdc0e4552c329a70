"""The instrument: bits that a task demands of a model family, and bits that models encode, for data of one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError
from claimbench.papers.theory.inductive_bias.kernel_space import (
    NUGGET,
    KernelSpace,
    family_kernel,
    kernel_space,
    median_width,
)
from claimbench.papers.theory.inductive_bias.problems import Problem
from claimbench.papers.theory.inductive_bias.tails import fit_chi_squared

NATS_A_BIT = math.log(2)


@dataclass(frozen=True)
class Demand:
    """What a task demands of one family of functions."""

    family: str
    width: float
    space: KernelSpace

    @property
    def mean_error(self) -> float:
        """Mean squared test error of a random function that fits the training set."""
        return self.space.mean_error

    def bits(self, error: float) -> float:
        """Bits needed to reach this mean squared test error; infinite below the family's floor."""
        return self.space.nats(error) / NATS_A_BIT

    def error_at(self, bits: float) -> float:
        """The test error that so many bits buy."""
        return self.space.errors.error_at(bits * NATS_A_BIT)


@dataclass(frozen=True)
class Estimate:
    """Required bias from sampled hypotheses."""

    bits: float
    counted: float
    """From the share of hypotheses that reach the error; infinite where none does."""
    hypotheses: int

    @property
    def extrapolated(self) -> bool:
        """Whether fewer than ten hypotheses reach the error, so that the bits rest on the fitted law alone."""
        return self.counted > math.log2(self.hypotheses / 10)


def demand_of(
    problem: Problem, family: str = "rbf", width: float | None = None, nugget: float = NUGGET
) -> Demand:
    """What a problem demands of a family: `rbf`, `laplace` or `relu-network`.

    width: of the kernel; None takes the median distance between training rows.
    """
    used = median_width(problem.X) if width is None else width
    kernel = family_kernel(family, used)
    space = kernel_space(problem.X, problem.Y, problem.X_test, problem.Y_test, kernel, nugget)
    return Demand(family, used, space)


def required_bits(
    X: Float[np.ndarray, "rows columns"],
    Y: Float[np.ndarray, "rows outputs"],
    X_test: Float[np.ndarray, "tests columns"],
    Y_test: Float[np.ndarray, "tests outputs"],
    error: float,
    *,
    family: str = "rbf",
    width: float | None = None,
) -> float:
    """-log2 of the probability that a random function of the family, given that it fits the training set, has a mean
    squared test error of at most `error`.

        required_bits(X, np.eye(10)[y], X_test, np.eye(10)[y_test], error=0.05)

    X: scale its columns first. Y: one-hot for classes. Raises UserError for shapes that do not fit, an error that is
    not positive, an unknown family or a width that is not positive.
    """
    if not error > 0:
        raise UserError(f"error = {error:g}; a mean squared error to be reached is positive")
    return demand_of(Problem(X, Y, X_test, Y_test), family, width).bits(error)


def bits_from_errors(errors: Float[np.ndarray, " hypotheses"], error: float) -> Estimate:
    """The same from test errors of hypotheses sampled in any way (trained networks, say), by the paper's fitted law.

        bits_from_errors([test_error(train(seed)) for seed in range(200)], error=0.05)

    Bits beyond log2 of the number of hypotheses rest on the law alone: the claims say how far it is off. Raises
    UserError for fewer than ten errors, or for errors that are not positive, not finite or all the same.
    """
    values = np.asarray(errors, dtype=np.float64)
    law = fit_chi_squared(values)
    share = float((values <= error).mean())
    return Estimate(
        bits=0.0 - law.log_cdf(error) / NATS_A_BIT,
        counted=-math.log2(share) if share > 0 else math.inf,
        hypotheses=len(values),
    )


def errors_of(
    predictions: Mapping[str, Float[np.ndarray, "tests outputs"]], problem: Problem
) -> dict[str, float]:
    """Mean squared test error of each, by name. Raises UserError for predictions of another shape."""
    found = {}
    for name, values in predictions.items():
        values = np.asarray(values, dtype=np.float64)
        if values.shape != problem.Y_test.shape:
            raise UserError(
                f"{name}: predicts shape {list(values.shape)}; {list(problem.Y_test.shape)} is needed"
            )
        found[name] = float(((values - problem.Y_test) ** 2).mean())
    return found
