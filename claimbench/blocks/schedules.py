"""Learning-rate schedules, as factors on the peak rate: pure functions of the step."""

from __future__ import annotations

import math


def warm_cosine(step: int, steps: int, *, warmup: float = 0.1, floor: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to `floor` (Loshchilov & Hutter 2016, arXiv 1608.03983, equation 5).

    With w = max(1, round(warmup x steps)), step k = 0, 1, ... gets (k + 1) / w for k < w, so the first step learns and
    step w - 1 has the whole rate, and floor + (1 - floor) (1 + cos(pi (k - w) / (steps - w))) / 2 from there on.
    warmup: the share of the steps that rise. floor: the factor at the end, where k = steps.
    Raises ValueError if a share lies outside [0, 1].
    """
    if not 0 <= warmup <= 1 or not 0 <= floor <= 1:
        raise ValueError(f"warmup {warmup} and floor {floor} are shares: between 0 and 1")
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
