"""The theorem's bound on the excess risk, and what first-order theory says of the same quantities.

Ge et al. (2023, arXiv 2303.01566): with probability 1 - delta the excess risk of two stages is at most
`2 R_n + c1 L sqrt(log(1/delta)/n) + c2 kappa L sqrt((log N(Phi) + log(1/delta)) / m)`.
"""

from __future__ import annotations

import math


def theorem_bound(
    d: int, r: int, m: int, n: int, *, loss: float, delta: float = 0.05, kappa: float = 1.0
) -> float:
    """The bound for the factor model with c1 = c2 = 1, R_n = L sqrt(r/n) and log N(Phi) = d r log m.

    loss: L, at which the squared loss is truncated. kappa = 1 is the least there can be: the distance of joint laws is
    at least that of the marginal ones; constants of 1 are the least that any version of the theorem has. So a risk
    below this number is below the theorem's.
    """
    confidence = math.log(1 / delta)
    labels = 2 * loss * math.sqrt(r / n) + loss * math.sqrt(confidence / n)
    return labels + kappa * loss * math.sqrt((d * r * math.log(m) + confidence) / m)


def expected_least_squares_risk(variance: float, columns: int, n: int) -> float:
    """Mean excess risk of least squares on normal inputs, exactly: variance * k / (n - k - 1), for n > k + 1."""
    return variance * columns / (n - columns - 1)


def expected_overlap(strength: float, d: int, m: int) -> float:
    """Share of a factor's direction that the sample eigenvectors keep, for d and m large at fixed d/m (Paul, 2007).

    (1 - g/s^4) / (1 + g/s^2) with g = d/m and s the singular value, and 0 at and below the threshold s^2 = sqrt(g).
    """
    g, square = d / m, strength**2
    return max(0.0, 1 - g / square**2) / (1 + g / square)
