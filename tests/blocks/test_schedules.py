from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from claimbench.blocks.schedules import warm_cosine


@given(
    steps=st.integers(1, 500),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
    share=st.floats(0, 1, exclude_max=True),
)
def test_it_rises_to_one_and_falls_to_its_floor(
    steps: int, warmup: float, floor: float, share: float
) -> None:
    rates = [warm_cosine(step, steps, warmup=warmup, floor=floor) for step in range(steps)]
    peak = max(1, round(warmup * steps)) - 1
    assert rates[peak] == 1 == max(rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(rate > 0 for rate in rates[: peak + 1])
    assert min(rates[peak:]) >= floor - 1e-12
    if steps > peak + 1:
        assert warm_cosine(steps, steps, warmup=warmup, floor=floor) == pytest.approx(floor, abs=1e-12)


def test_after_the_warm_up_it_is_torchs_cosine() -> None:
    """CosineAnnealingLR from the same peak to the same floor, over the steps that are left."""
    steps, rising, floor = 50, 10, 0.05
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - rising, eta_min=floor)
    for step in range(rising, steps):
        ours = warm_cosine(step, steps, warmup=0.2, floor=floor)
        assert ours == pytest.approx(torchs.get_last_lr()[0], rel=1e-12)
        optimiser.step()
        torchs.step()


def test_shares_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="warmup 10"):
        warm_cosine(0, 100, warmup=10)
    with pytest.raises(ValueError, match="floor -1"):
        warm_cosine(0, 100, floor=-1)
