"""Probabilities of a quadratic form in normal variables, exactly and far into its lower tail.

A random hypothesis' mean squared error is `floor + sum_j weight_j (z_j + shift_j)^2`. Its distribution function is a
contour integral through a saddle point (Rice, "Distribution of quadratic forms in normal random variables: evaluation
by numerical integration", 1980; the parabola is Helstrom's, 1983), or approximately a closed form (Lugannani and Rice,
1980; for quadratic forms Kuonen, 1999). Probabilities are logarithms, so that exp(-1000) is as easy as 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Complex, Float, Shaped
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, logsumexp

STEP = 0.125  # of the contour, in standard deviations at the saddle: the trapezium rule errs by exp(-2 pi / STEP)
BLOCK = 256  # contour points evaluated at once
NEGLIGIBLE = 1e-16  # of the largest integrand: where the contour ends
CERTAIN = 40.0  # nats: exp(-40) is below the rounding of 1
DRAWS_AT_ONCE = 4_000_000
NEAR_MEAN = 1e-3  # |w| below which Lugannani-Rice's 1/w - 1/u is taken by its limit


@dataclass(frozen=True)
class QuadraticForm:
    """The law of `floor + sum_j weights_j chi'^2(degrees_j, offsets_j / weights_j)`, the chi-squares independent.

    weights: positive. degrees: positive, not necessarily whole. offsets: what the shifts add to the mean, at least 0,
    in the unit of the error. floor: the part that is certain.

        QuadraticForm.of_scaled_chi_squared(0.01, degrees=50, shift=20).log_cdf(0.2)     # nats, negative
    """

    weights: Float[np.ndarray, " terms"]
    degrees: Float[np.ndarray, " terms"]
    offsets: Float[np.ndarray, " terms"]
    floor: float = 0.0

    @classmethod
    def of_scaled_chi_squared(cls, scale: float, degrees: float, shift: float = 0.0) -> Self:
        """scale * chi'^2(degrees, shift), with `shift` the usual non-centrality."""
        return cls(np.array([scale]), np.array([degrees]), np.array([scale * shift]))

    def cumulant(self, order: int) -> float:
        """The cumulant of that order (1: mean, 2: variance, 3: third central moment)."""
        power = 2.0 ** (order - 1)
        terms = self.degrees * self.weights**order * math.factorial(order - 1)
        terms = terms + math.factorial(order) * self.offsets * self.weights ** (order - 1)
        return float(power * terms.sum()) + (self.floor if order == 1 else 0.0)

    def log_moments(self, s: Shaped[np.ndarray, " points"]) -> Complex[np.ndarray, " points"]:
        """K(s) = log E exp(s error): analytic off the real axis beyond 1 / (2 max weight)."""
        shrunk = 1 - 2 * np.multiply.outer(s, self.weights)
        return self.floor * s - 0.5 * np.log(shrunk) @ self.degrees + s * ((1 / shrunk) @ self.offsets)

    def _log_moments_at(self, s: float) -> float:
        return float(self.log_moments(np.array([s]))[0].real)

    def _slopes(self, s: float) -> tuple[float, float, float]:
        """The first three derivatives of K at a real s."""
        shrunk = 1 / (1 - 2 * s * self.weights)
        scaled = self.weights * shrunk
        moved = self.offsets * shrunk**2
        return (
            self.floor + float((self.degrees * scaled + moved).sum()),
            float((2 * self.degrees * scaled**2 + 4 * moved * scaled).sum()),
            float((8 * self.degrees * scaled**3 + 24 * moved * scaled**2).sum()),
        )

    def log_cdf(self, error: float) -> float:
        """log P(form <= error) by the contour integral: relative accuracy 1e-10 of the probability itself.

        The integrand is exp(K(s) - s error) / -s on Re s < 0. Its saddle exists for every error above the floor, so
        that no case near the mean needs care.
        """
        if error <= self.floor:
            return -math.inf
        mean, spread = self.cumulant(1), math.sqrt(self.cumulant(2))
        if error > mean:
            s = self.saddle_of(error)
            if (
                s * error - self._log_moments_at(s) > CERTAIN
            ):  # Chernoff: the rest has less than exp(-CERTAIN)
                return 0.0

        def tilt_equation(log_size: float) -> float:
            s = -math.exp(log_size)
            return (self._slopes(s)[0] - error - 1 / s) * spread

        low = high = -math.log(spread)
        while tilt_equation(low) < 0:
            low -= 2
        while tilt_equation(high) > 0:
            high += 2
        saddle = -math.exp(float(brentq(tilt_equation, low, high, xtol=1e-13, rtol=8.9e-16, maxiter=500)))
        _, second, third = self._slopes(saddle)
        # The parabola is that of steepest descent for K alone: the pole's own part would bend it into the cut where the
        # error is above the mean.
        width, bend = 1 / math.sqrt(second + (1 / saddle) ** 2), third / (6 * second)
        peak = self._log_moments_at(saddle) - saddle * error - math.log(-saddle)
        total, start = 0.0, 0
        while True:
            t = STEP * width * np.arange(start, start + BLOCK)
            path = saddle + 1j * t + bend * t**2
            heights = self.log_moments(path) - path * error - np.log(-path) - peak
            values = np.exp(heights) * (1 - 2j * bend * t)
            total += 2 * float(values.real.sum()) - (float(values[0].real) if start == 0 else 0.0)
            if np.abs(values[-8:]).max() < NEGLIGIBLE * max(total, NEGLIGIBLE):
                break
            start += BLOCK
        return min(0.0, float(peak) + math.log(total * STEP * width / (2 * math.pi)))

    def saddle_of(self, error: float) -> float:
        """The tilt s with K'(s) = error: negative below the mean. error: above the floor."""
        top = 1 / (2 * float(self.weights.max()))

        def gap(s: float) -> float:
            return self._slopes(s)[0] - error

        low, high = -top, 0.0
        while gap(low) > 0:
            low *= 4
        while gap(high) < 0:
            high = (high + top) / 2
        return float(brentq(gap, low, high, xtol=1e-300, rtol=8.9e-16, maxiter=500))

    def log_cdf_saddle(self, error: float) -> float:
        """The same by Lugannani and Rice's closed form: some percent of the probability, whatever its size."""
        if error <= self.floor:
            return -math.inf
        s = self.saddle_of(error)
        _, second, third = self._slopes(s)
        exponent = s * error - self._log_moments_at(s)
        w = math.copysign(math.sqrt(max(0.0, 2 * exponent)), s)
        if abs(w) < NEAR_MEAN:
            return math.log(0.5 + third / (6 * math.sqrt(2 * math.pi) * second**1.5))
        correction = 1 / w - 1 / (s * math.sqrt(second))
        if w > 0:
            density = math.exp(-(w**2) / 2) / math.sqrt(2 * math.pi)
            return min(0.0, math.log(math.exp(float(log_ndtr(w))) + density * correction))
        mills = math.sqrt(math.pi / 2) * float(erfcx(-w / math.sqrt(2)))
        return -(w**2) / 2 - 0.5 * math.log(2 * math.pi) + math.log(mills + correction)

    def error_at(self, nats: float) -> float:
        """The error that a random hypothesis reaches with probability exp(-nats)."""
        excess = self.cumulant(1) - self.floor

        def gap(log_excess: float) -> float:
            return self.log_cdf(self.floor + excess * math.exp(log_excess)) + nats

        low, high = -1.0, 0.0
        while gap(low) > 0:
            low *= 2
        while gap(high) < 0:
            high += 1
        return self.floor + excess * math.exp(float(brentq(gap, low, high, xtol=1e-12)))

    def sample(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, " count"]:
        """Errors of `count` independent random hypotheses."""
        shifts = self.offsets / self.weights
        block = max(1, DRAWS_AT_ONCE // len(self.weights))
        parts = [
            rng.noncentral_chisquare(self.degrees, shifts, (min(block, count - start), len(self.weights)))
            @ self.weights
            for start in range(0, count, block)
        ]
        return self.floor + np.concatenate(parts)

    def log_cdf_sampled(self, error: float, count: int, rng: np.random.Generator) -> float:
        """The same by importance sampling from the exponentially tilted law, which is again a quadratic form.

        It needs the spectrum, as the exact value does: hypotheses alone are not enough. Returns -inf if none of
        `count` draws is below.
        """
        if error <= self.floor:
            return -math.inf
        s = min(0.0, self.saddle_of(error))
        shrunk = 1 - 2 * s * self.weights
        tilted = QuadraticForm(
            self.weights / shrunk, self.degrees, self.offsets / shrunk**2, self.floor
        ).sample(count, rng)
        inside = tilted[tilted <= error]
        if not len(inside):
            return -math.inf
        return self._log_moments_at(s) + float(logsumexp(-s * inside)) - math.log(count)
