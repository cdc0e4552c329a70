"""How far an estimate from N sampled hypotheses is from its limit, for large N: the constant before 1/sqrt(N).

Boopathy et al. (2024, arXiv 2406.15941) bound the error by a multiple of 1/sqrt(N) where test error follows the
chi-square family. For the moments' fit the constant follows from the covariance of k-statistics (Kendall and Stuart,
The Advanced Theory of Statistics, 1, chapter 12) and the fit's slopes.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from claimbench.papers.theory.inductive_bias.quadratic_form import QuadraticForm
from claimbench.papers.theory.inductive_bias.tails import chi_squared_of_cumulants

STEP = 1e-4  # of the central differences, in standard deviations of the k-statistics at N = 1


def k_statistic_covariance(form: QuadraticForm, samples: int) -> Float[np.ndarray, "3 3"]:
    """The exact covariance of the first three k-statistics of `samples` draws."""
    k = [0.0, *(form.cumulant(order) for order in range(1, 7))]
    n, m = samples, samples - 1
    second = k[4] / n + 2 * k[2] ** 2 / m
    mixed = k[5] / n + 6 * k[2] * k[3] / m
    third = k[6] / n + 9 * k[2] * k[4] / m + 9 * k[3] ** 2 / m + 6 * n * k[2] ** 3 / (m * (n - 2))
    return np.array([[k[2] / n, k[3] / n, k[4] / n], [k[3] / n, second, mixed], [k[4] / n, mixed, third]])


def fitted_nats(form: QuadraticForm, error: float) -> float:
    """What the moments' fit says of infinitely many hypotheses: -log P(error <= `error`)."""
    return -chi_squared_of_cumulants(*(form.cumulant(order) for order in (1, 2, 3))).log_cdf(error)


def standard_error(form: QuadraticForm, error: float, samples: int) -> float:
    """Standard deviation, in nats, of the moments' estimate from `samples` hypotheses, to first order in 1/sqrt(N)."""
    centre = np.array([form.cumulant(order) for order in (1, 2, 3)])
    steps = STEP * np.sqrt(np.diag(k_statistic_covariance(form, 1000)) * 1000)
    slopes = []
    for place, step in enumerate(steps):
        moved = np.zeros(3)
        moved[place] = step
        above, below = (chi_squared_of_cumulants(*(centre + sign * moved)).log_cdf(error) for sign in (1, -1))
        slopes.append((above - below) / (2 * step))
    gradient = np.array(slopes)
    return math.sqrt(float(gradient @ k_statistic_covariance(form, samples) @ gradient))
