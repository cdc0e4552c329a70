"""Axes: from data to coordinates, linear or logarithmic, and the ticks that a reader expects.

Tick steps are 1, 2, 2.5 and 5 times a power of ten, the usual "nice numbers" (Heckbert, Graphics Gems, 1990).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOG_SPAN = 50.0  # a metric whose largest value is this many times its smallest stands on a log axis
LOG_SWEEP_SPAN = 8.0  # the same for a sweep variable whose values are spaced like a geometric series
LOG_LIMIT = 700.0  # natural logarithms beyond this are no floating-point numbers
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """A monotone map from data between `low` and `high` to coordinates between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        slack = 1e-9 * (abs(value) if self.log else self.high - self.low)
        return self.low - slack <= value <= self.high + slack


def spanning(
    values: Iterable[float], start: float, end: float, *, log: bool = False, room: float = 0.06
) -> Axis:
    """The axis that holds every finite value (every positive one if logarithmic), with some room at both ends."""
    usable = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(usable), max(usable)) if usable else (1.0, 2.0)
    if log:
        bottom, top = math.log(low), math.log(high)
        gap = (top - bottom) * room if top - bottom > 1e-9 else math.log(1.5)
        return Axis(
            math.exp(max(bottom - gap, -LOG_LIMIT)), math.exp(min(top + gap, LOG_LIMIT)), start, end, True
        )
    gap = (high - low) * room
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        gap = 0.1 * abs(low) or 1.0
    return Axis(low - gap, high + gap, start, end)


def spans_decades(values: Iterable[float]) -> bool:
    """True if the finite values are positive and reach over `LOG_SPAN`."""
    usable = [v for v in values if math.isfinite(v)]
    return bool(usable) and min(usable) > 0 and max(usable) >= LOG_SPAN * min(usable)


def is_geometric(values: Sequence[float]) -> bool:
    """True if a sweep's values are positive, reach far, and are spaced more evenly on a log axis."""
    usable = sorted(set(values))
    if len(usable) < 2 or usable[0] <= 0 or usable[-1] < LOG_SWEEP_SPAN * usable[0]:
        return False
    return _unevenness([math.log(v) for v in usable]) <= _unevenness(usable)


def _unevenness(values: Sequence[float]) -> float:
    """Largest gap between neighbours, as a share of the whole."""
    return max(b - a for a, b in itertools.pairwise(values)) / (values[-1] - values[0])


def ticks(axis: Axis, count: int = 5) -> list[float]:
    """About `count` round values on the axis, rising."""
    if axis.log and axis.high >= 10.0 * axis.low:
        return _log_ticks(axis, count)
    step = _step((axis.high - axis.low) / max(count, 1))
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    return [index * step for index in range(first, last + 1) if index or not axis.log]


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(n for n in (1.0, 2.0, 2.5, 5.0, 10.0) if n * power >= rough * (1 - 1e-9))


def _log_ticks(axis: Axis, count: int) -> list[float]:
    lowest, highest = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    decades = highest - lowest
    if decades <= 3:
        within = [n * 10.0**p for p in range(lowest, highest + 1) for n in (1.0, 2.0, 5.0)]
        if sum(map(axis.holds, within)) <= count + 2:
            return [v for v in within if axis.holds(v)]
    every = max(1, math.ceil(decades / count))
    return [v for p in range(lowest, highest + 1, every) if axis.holds(v := 10.0**p)]


def tick_label(value: float, step: float | None = None) -> str:
    """A tick in words: plain where that is short, a power of ten elsewhere. step: the distance to the next, if even."""
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        if step is None:
            return _signed(f"{value:.6g}")
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        decimals += round(step * 10**decimals, 6) % 1 != 0  # a step of 0.25 takes two
        return _signed(f"{value:.{decimals}f}")
    digits, power = f"{value:.3e}".split("e")
    head = digits.rstrip("0").rstrip(".")
    exponent = str(int(power)).translate(SUPERSCRIPTS)
    return _signed(f"10{exponent}" if head == "1" else f"{head}·10{exponent}")


def _signed(text: str) -> str:
    return text.replace("-", "−")


def labelled(axis: Axis, count: int = 5) -> list[tuple[float, str]]:
    """Ticks with their words."""
    found = ticks(axis, count)
    even = not (axis.log and axis.high >= 10.0 * axis.low) and len(found) > 1
    step = found[1] - found[0] if even else None
    return [(value, tick_label(value, step)) for value in found]
