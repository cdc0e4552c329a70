"""Laws fitted to the errors of sampled hypotheses, and what each says of errors too small to be sampled.

The scaled non-central chi-square is Boopathy et al.'s (2024, arXiv 2406.15941); the rest are what it must be compared
with. Every fit is a function from errors to a function from a target error to the log probability of reaching it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import log_ndtr
from scipy.stats import genpareto, kstat, ncx2

from claimbench.errors import UserError
from claimbench.papers.theory.inductive_bias.quadratic_form import QuadraticForm

LogProbability = Callable[[float], float]
TAIL_SHARE = 0.05  # of the errors, the smallest: what the generalised Pareto law is fitted to
LEAST_SHIFT = 1e-6  # non-centrality at which the likelihood is that of a central chi-square to all digits
FEWEST = 10  # errors from which three cumulants are taken


def chi_squared_of_cumulants(mean: float, variance: float, third: float) -> QuadraticForm:
    """The scaled non-central chi-square with these three cumulants, or the nearest one there is.

    With a = mean, b = variance / 2, c = third / 8 the scale solves a scale^2 - 2 b scale + c = 0. No real root: the
    skew is too large for any, which is so for every centred form whose spectrum is not flat (Cauchy and Schwarz); the
    central chi-square (a gamma law) with this mean and variance is then the member with the largest skew. A root that
    would need negative degrees is replaced by the scale of nearly none.
    """
    half, eighth = variance / 2, third / 8
    discriminant = half**2 - mean * eighth
    if discriminant <= 0:
        return QuadraticForm.of_scaled_chi_squared(half / mean, mean**2 / half)
    scale = max((half - math.sqrt(discriminant)) / mean, half / (2 * mean) * (1 + 1e-9))
    shift = half / scale**2 - mean / scale
    return QuadraticForm.of_scaled_chi_squared(scale, mean / scale - shift, shift)


def fit_chi_squared(errors: Float[np.ndarray, " hypotheses"]) -> QuadraticForm:
    """By moments: the scaled non-central chi-square with the errors' mean, variance and third cumulant (k-statistics).

        fit_chi_squared(errors).log_cdf(0.05)

    Raises UserError for fewer than 10 errors, for errors that are not positive and finite, and for equal ones.
    """
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 1 or len(values) < FEWEST:
        raise UserError(f"errors: shape {list(values.shape)}; give a list of at least {FEWEST}")
    if not np.isfinite(values).all() or (values <= 0).any() or np.ptp(values) == 0:
        raise UserError("errors: must be positive, finite and not all the same")
    return chi_squared_of_cumulants(*(float(kstat(values, order)) for order in (1, 2, 3)))


def by_moments(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    return fit_chi_squared(errors).log_cdf


def by_likelihood(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    """The same law by maximum likelihood, started at the moments' fit and searched over logarithms."""
    start = fit_chi_squared(errors)
    scale, degrees = float(start.weights[0]), float(start.degrees[0])
    shift = float(start.offsets[0]) / scale

    def loss(logs: Float[np.ndarray, " three"]) -> float:
        scale, degrees, shift = np.exp(logs)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value = -float(ncx2.logpdf(errors / scale, degrees, shift).mean()) + math.log(scale)
        return value if math.isfinite(value) else 1e300

    found = minimize(
        loss,
        np.log([scale, degrees, max(shift, LEAST_SHIFT)]),
        method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-8, "maxiter": 400},
    )
    return QuadraticForm.of_scaled_chi_squared(*map(float, np.exp(found.x))).log_cdf


def by_library(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    """As the official code has it: SciPy's `ncx2.fit(errors, floc=0)`, its `logcdf`, and where that underflows
    Sankaran's power transform z with log P = -z^2 / 2.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        degrees, shift, _, scale = (float(value) for value in ncx2.fit(errors, floc=0))

    def log_probability(error: float) -> float:
        with np.errstate(all="ignore"):
            found = float(ncx2.logcdf(error, degrees, shift, scale=scale))
            return found if math.isfinite(found) else -(sankaran(error / scale, degrees, shift) ** 2) / 2

    return log_probability


def sankaran(value: float, degrees: float, shift: float) -> float:
    """The standard normal deviate of a value of chi'^2(degrees, shift), by Sankaran's power transform (1963)."""
    first, second, third = degrees + shift, degrees + 2 * shift, degrees + 3 * shift
    power = 1 - 2 * first * third / (3 * second**2)
    ratio = second / first**2
    m = (power - 1) * (1 - 3 * power)
    centre = 1 + power * ratio * (power - 1 - 0.5 * (2 - power) * m * ratio)
    return ((value / first) ** power - centre) / (power * math.sqrt(2 * ratio) * (1 + 0.5 * m * ratio))


def by_counting(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    """The share of the errors at or below; where there is none, half a hypothesis."""

    def log_probability(error: float) -> float:
        return math.log(max(float((errors <= error).sum()), 0.5) / len(errors))

    return log_probability


def by_normal(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    mean, spread = float(np.mean(errors)), float(np.std(errors, ddof=1))
    return lambda error: float(log_ndtr((error - mean) / spread))


def by_log_normal(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    logs = np.log(errors)
    mean, spread = float(np.mean(logs)), float(np.std(logs, ddof=1))
    return lambda error: float(log_ndtr((math.log(error) - mean) / spread)) if error > 0 else -math.inf


def by_gamma(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    """By mean and variance: a central scaled chi-square."""
    mean, half = float(np.mean(errors)), float(np.var(errors, ddof=1)) / 2
    return QuadraticForm.of_scaled_chi_squared(half / mean, mean**2 / half).log_cdf


def by_pareto_tail(errors: Float[np.ndarray, " hypotheses"]) -> LogProbability:
    """The generalised Pareto law of the smallest 5 % (peaks below a threshold), by maximum likelihood.

    Its end may lie above the target error, which then has probability 0.
    """
    threshold = float(np.quantile(errors, TAIL_SHARE))
    shape, _, scale = genpareto.fit(threshold - errors[errors < threshold], floc=0)

    def log_probability(error: float) -> float:
        if error >= threshold:
            return by_counting(errors)(error)
        return math.log(TAIL_SHARE) + float(genpareto.logsf(threshold - error, shape, scale=scale))

    return log_probability


FITS: dict[str, Callable[[Float[np.ndarray, " hypotheses"]], LogProbability]] = {
    "chi-squared-moments": by_moments,
    "chi-squared-likelihood": by_likelihood,
    "chi-squared-library": by_library,
    "counting": by_counting,
    "normal": by_normal,
    "log-normal": by_log_normal,
    "gamma": by_gamma,
    "pareto-tail": by_pareto_tail,
}
"""Every law by its name."""
