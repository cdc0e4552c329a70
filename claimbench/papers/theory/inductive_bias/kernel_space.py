"""The hypothesis space of a kernel: Gaussian processes that fit the training set (arXiv 2406.15941, section 4).

Given the training set, the values on the test points are normal with mean `M = K_*X K_XX^-1 Y` and covariance
`C = K_** - K_*X K_XX^-1 K_X*`, independent over outputs. Their mean squared error on the test set is a quadratic form
whose spectrum is known, so that the probability of reaching an error needs neither samples nor a fitted tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.spatial.distance import cdist, pdist

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.inductive_bias.quadratic_form import QuadraticForm

Kernel = Callable[[Float[np.ndarray, "a columns"], Float[np.ndarray, "b columns"]], Float[np.ndarray, "a b"]]
NUGGET = 1e-8
"""Variance, relative to the kernel's, of noise that every hypothesis has of its own on each point: it keeps the
matrices invertible, and errors below it cannot be reached."""
MOST_FOR_WIDTH = 1000  # rows from which the median distance is taken


def rbf_kernel(width: float) -> Kernel:
    """exp(-|a - b|^2 / (2 width^2)), the paper's."""
    return lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))


def laplace_kernel(width: float) -> Kernel:
    """exp(-|a - b| / width): continuous functions that are nowhere smooth."""
    return lambda a, b: np.exp(-cdist(a, b) / width)


def relu_network_kernel(width: float) -> Kernel:
    """A random network of infinite width with one hidden layer of rectifiers, weights and biases normal (Cho and Saul,
    2009, arc-cosine kernel of order 1): sqrt(u.u v.v) (sin t + (pi - t) cos t) / pi with u = (a / width, 1).
    """

    def kernel(
        a: Float[np.ndarray, "a columns"], b: Float[np.ndarray, "b columns"]
    ) -> Float[np.ndarray, "a b"]:
        inner = 1 + a @ b.T / width**2
        norms = np.sqrt(np.multiply.outer(1 + (a**2).sum(1) / width**2, 1 + (b**2).sum(1) / width**2))
        cosine = np.clip(inner / norms, -1, 1)
        return norms * (np.sqrt(1 - cosine**2) + (math.pi - np.arccos(cosine)) * cosine) / math.pi

    return kernel


FAMILIES: dict[str, Callable[[float], Kernel]] = {
    "rbf": rbf_kernel,
    "laplace": laplace_kernel,
    "relu-network": relu_network_kernel,
}
"""Model families by name: each makes a kernel of a width."""


def family_kernel(family: str, width: float) -> Kernel:
    """A family's kernel. Raises UserError for an unknown family or a width that is not positive."""
    if family not in FAMILIES:
        raise UserError(f'family = "{family}"{nearest(family, FAMILIES)}')
    if not (width > 0 and math.isfinite(width)):
        raise UserError(f"width = {width:g}; a kernel's width is positive")
    return FAMILIES[family](width)


def median_width(X: Float[np.ndarray, "rows columns"]) -> float:
    """The median distance between two rows, of at most the first 1000. Raises UserError where it is 0."""
    found = float(np.median(pdist(X[:MOST_FOR_WIDTH])))
    if found == 0:
        raise UserError("width: more than half of all pairs of rows are equal; give the width as a number")
    return found


@dataclass(frozen=True)
class KernelSpace:
    """Random functions of a kernel that go through the training set, seen on the test set.

    mean: M. covariance: C, of each output. targets: what the test set says.
    """

    mean: Float[np.ndarray, "tests outputs"]
    covariance: Float[np.ndarray, "tests tests"]
    targets: Float[np.ndarray, "tests outputs"]

    @cached_property
    def errors(self) -> QuadraticForm:
        """The law of a random function's mean squared error, over test points and outputs."""
        values, vectors = eigh(self.covariance)
        tests, outputs = self.mean.shape
        size = tests * outputs
        # Rounding leaves eigenvalues a little below zero; those directions are certain and belong to the floor.
        active = values > max(0.0, float(values[-1])) * 1e-13
        offsets = ((vectors.T @ (self.mean - self.targets)) ** 2).sum(1) / size
        return QuadraticForm(
            values[active] / size,
            np.full(int(active.sum()), float(outputs)),
            offsets[active],
            float(offsets[~active].sum()),
        )

    @property
    def mean_error(self) -> float:
        """mean((M - Y)^2) + trace(C) / tests."""
        return float(((self.mean - self.targets) ** 2).mean() + np.trace(self.covariance) / len(self.mean))

    def nats(self, error: float) -> float:
        """I(error) = -log P(a random function that fits the training set has at most this test error)."""
        return 0.0 - self.errors.log_cdf(error)

    def sample(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "count tests outputs"]:
        """Random functions' values on the test points."""
        values, vectors = eigh(self.covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        return self.mean + root @ rng.standard_normal((count, *self.mean.shape))


def kernel_space(
    X: Float[np.ndarray, "rows columns"],
    Y: Float[np.ndarray, "rows outputs"],
    X_test: Float[np.ndarray, "tests columns"],
    Y_test: Float[np.ndarray, "tests outputs"],
    kernel: Kernel,
    nugget: float = NUGGET,
) -> KernelSpace:
    """Condition the kernel's Gaussian process on the training set; with no rows it is the prior.

        kernel_space(X, Y, X_test, Y_test, rbf_kernel(2.0)).nats(0.05)

    kernel: any positive semi-definite function of two sets of rows, such as scikit-learn's. nugget: relative to the
    kernel's mean variance on the test points. Raises UserError for shapes that do not fit, and where the kernel's
    matrix on the training set is not positive definite.
    """
    for name, inputs, outputs in (("X, Y", X, Y), ("X_test, Y_test", X_test, Y_test)):
        if inputs.ndim != 2 or outputs.ndim != 2 or len(inputs) != len(outputs):
            raise UserError(
                f"{name}: shapes {list(inputs.shape)} and {list(outputs.shape)}; "
                "give [rows, columns] and [rows, outputs]"
            )
    covariance = np.asarray(kernel(X_test, X_test), dtype=np.float64)
    noise = nugget * float(np.trace(covariance)) / len(X_test)
    covariance = covariance + noise * np.eye(len(X_test))
    if not len(X):
        return KernelSpace(np.zeros_like(Y_test, dtype=np.float64), covariance, Y_test)
    across = np.asarray(kernel(X, X_test), dtype=np.float64)
    try:
        factor = cho_factor(kernel(X, X) + noise * np.eye(len(X)), lower=True)
    except np.linalg.LinAlgError:
        raise UserError(
            f"kernel: its matrix on the {len(X)} training rows is not positive definite; raise nugget = {nugget:g}"
        ) from None
    mean = across.T @ cho_solve(factor, np.asarray(Y, dtype=np.float64))
    covariance = covariance - across.T @ cho_solve(factor, across)
    return KernelSpace(mean, (covariance + covariance.T) / 2, Y_test)
