"""How many networks must be averaged, from the limiting law: exact counts and sufficient sizes.

Giapitzakis et al., 2025, arXiv 2502.16763 (their ensemble complexity). An ensemble of N infinitely wide networks has
average N(mu, Sigma / N); bit i is predicted 1 if the average is positive, else 0. Everything is for
permutations, whose outputs at an input with n ones are n of mean mu_1 and k - n of mean mu_0, independent, of
equal variance s^2 (`kernels.levels`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp, ndtr
from scipy.stats import binom

from claimbench.papers.theory.exact_permutations.kernels import RELU, Kernels, Layers, levels


def success(k: int, ones: int, nets: float, kernels: Kernels = RELU, layers: Layers = "both") -> float:
    """Probability that the average of `nets` networks has all k bits of one input right: Phi(.)^n Phi(.)^(k -
    n).
    """
    one, zero = _ratios(k, ones, kernels, layers)
    root = math.sqrt(nets)
    return math.exp(ones * log_ndtr(root * one) + (k - ones) * log_ndtr(root * zero))


def nets_for_one_input(
    k: int, failure: float = 0.1, ones: int = 2, kernels: Kernels = RELU, layers: Layers = "both"
) -> int:
    """The fewest networks whose average has one input of `ones` ones right with probability 1 - failure,
    exactly.

    Raises ValueError if no number suffices: a mean that is not strictly on its side of 0.
    """
    one, zero = _ratios(k, ones, kernels, layers)
    if one <= 0 or (zero <= 0 and ones < k):
        raise ValueError(
            f"k = {k}, n = {ones}: the mean does not separate the bits (mu_1/s = {one}, -mu_0/s = {zero})"
        )

    def excess(log_nets: float) -> float:
        root = math.exp(log_nets / 2)
        return float(ones * log_ndtr(root * one) + (k - ones) * log_ndtr(root * zero)) - math.log1p(-failure)

    if excess(0.0) >= 0:
        return 1
    high = 1.0
    while excess(high) < 0:
        high *= 2
    return math.ceil(math.exp(brentq(excess, 0.0, high, xtol=1e-12)))


def vote_success(k: int, ones: int, nets: int, kernels: Kernels = RELU, layers: Layers = "both") -> float:
    """Probability that the majority of `nets` (odd) networks, each thresholded first, has all k bits of one
    input right.
    """
    one, zero = (float(ndtr(ratio)) for ratio in _ratios(k, ones, kernels, layers))
    return float(binom.sf(nets // 2, nets, one) ** ones * binom.sf(nets // 2, nets, zero) ** (k - ones))


def voters_for_one_input(
    k: int, failure: float = 0.1, ones: int = 2, kernels: Kernels = RELU, layers: Layers = "both"
) -> int:
    """The fewest networks, an odd number, whose majority vote has one input right with probability 1 -
    failure.
    """

    def enough(half: int) -> bool:
        return vote_success(k, ones, 2 * half + 1, kernels, layers) >= 1 - failure

    nets_for_one_input(k, failure, ones, kernels, layers)  # raises where no number suffices
    # Odd numbers 2 half + 1, in which success is monotone (Condorcet): `low` is too few, `high` is tried.
    low, high = -1, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return 2 * high + 1


def sufficient_for_one_input(
    k: int, failure: float = 0.1, ones: int = 2, kernels: Kernels = RELU, layers: Layers = "both"
) -> float:
    """N >= 2 s^2 ln(k/d) / m^2, m = min(|mu_0|, mu_1): the paper's sufficient size for one input."""
    worst = min(_ratios(k, ones, kernels, layers)) if ones < k else _ratios(k, ones, kernels, layers)[0]
    return 2 * math.log(k / failure) / worst**2


def sufficient_for_all_inputs(
    k: int, failure: float = 0.1, kernels: Kernels = RELU, layers: Layers = "both"
) -> float:
    """N >= 2 max_x(s^2/m^2) (k ln 2 + ln(k/d)): the paper's sufficient size for all 2^k - 1 inputs, by a
    union bound.
    """
    one, zero, _ = _all_ratios(k, kernels, layers)
    worst = np.minimum(one[1:], np.append(zero[1:-1], np.inf)).min()  # n = 1 is the training set: no variance
    return 2 * (k * math.log(2) + math.log(k / failure)) / float(worst) ** 2


def classwise_union_bound(
    k: int, failure: float = 0.1, kernels: Kernels = RELU, layers: Layers = "both"
) -> int:
    """The fewest networks for which the failure probabilities of all 2^k - 1 inputs sum to `failure`.

    Also sufficient, and tighter than the paper's size: each input is counted with its own margin and its
    exact Gaussian tail, sum_n (k over n) [1 - Phi(.)^n Phi(.)^(k - n)], instead of all with the worst margin.
    """
    one, zero, n = _all_ratios(k, kernels, layers)
    one, zero, n = one[1:], np.append(zero[1:-1], np.inf), n[1:]
    log_count = gammaln(k + 1) - gammaln(n + 1) - gammaln(k - n + 1)

    def excess(log_nets: float) -> float:
        root = math.exp(log_nets / 2)
        right = n * log_ndtr(root * one) + np.where(n < k, (k - n) * log_ndtr(root * zero), 0.0)
        with np.errstate(divide="ignore"):  # a failure probability that underflows contributes nothing
            return math.log(failure) - float(logsumexp(log_count + np.log(-np.expm1(right))))

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return math.ceil(math.exp(brentq(excess, 0.0, high, xtol=1e-12)))


def _ratios(k: int, ones: int, kernels: Kernels, layers: Layers) -> tuple[float, float]:
    """(mu_1 / s, -mu_0 / s) at inputs with `ones` ones."""
    law = levels(k, [ones], kernels, layers)
    deviation = math.sqrt(float(law.variance))
    return float(law.one) / deviation, -float(law.zero) / deviation


def _all_ratios(k: int, kernels: Kernels, layers: Layers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mu_1 / s, -mu_0 / s, n) for n = 1..k. At n = 1, a training input, the variance is 0 and the ratios
    mean nothing.
    """
    n = torch.arange(1, k + 1, dtype=torch.float64)
    law = levels(k, n, kernels, layers)
    deviation = law.variance.sqrt()
    deviation[0] = 1.0
    return (law.one / deviation).numpy(), (-law.zero / deviation).numpy(), n.numpy()
