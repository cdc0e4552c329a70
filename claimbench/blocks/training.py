"""Training one model: AdamW with warm-up and a cosine, and a slower group for the dynamics of state-space layers.

The group is S4's (Gu, Goel, Ré 2021, arXiv 2111.00396, Appendix D): Λ, p, B and Δ get a learning rate of at most 1e-3
and no weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from claimbench.blocks.schedules import warm_cosine

DYNAMICS_RATE = 1e-3

Batches = Iterator[tuple[Tensor, Tensor]]


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    dynamics_rate: float = DYNAMICS_RATE,
) -> list[dict[str, Any]]:
    """Optimiser groups: parameters that a module lists in `dynamics()` apart, the rest with weight decay."""
    apart = {
        id(p): p
        for m in model.modules()
        if callable(listed := getattr(m, "dynamics", None))
        for p in listed()
    }
    rest = [p for p in model.parameters() if id(p) not in apart]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": learning_rate, "weight_decay": weight_decay}]
    if apart:
        rate = min(learning_rate, dynamics_rate)
        groups.append({"params": list(apart.values()), "lr": rate, "weight_decay": 0.0})
    return groups


def fit(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    clip: float = 1.0,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
) -> float:
    """Train in place for `steps` batches (inputs, targets); the mean loss of the last tenth.

    Linear warm-up over the first `warmup` share, cosine decay to zero, gradient norms clipped. Raises
    FloatingPointError where the loss is not finite: the arm diverged.
    """
    optimiser = torch.optim.AdamW(
        parameter_groups(model, learning_rate=learning_rate, weight_decay=weight_decay)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: warm_cosine(step, steps, warmup=warmup)
    )
    model.train()
    last: list[Tensor] = []
    for step in range(steps):
        inputs, targets = next(batches)
        value = loss(model(inputs), targets)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        schedule.step()
        if step >= steps - max(steps // 10, 1):
            last.append(value.detach())
    mean = float(torch.stack(last).mean())
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"the loss became {mean} within {steps} steps at learning rate {learning_rate}"
        )
    return mean
