"""Heads on frozen features: minimum-norm least squares, and three that are tuned on the same data by cross-validation.

All are spectral filters of the design's singular value decomposition Phi = U S V': B = V f(S) S^-1 U' Y. A batch of
designs is fitted at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError, nearest

CHOICES = 13
FOLDS = 5

Design = Float[Tensor, "draws samples features"]
Targets = Float[Tensor, "draws samples outputs"]
Heads = Float[Tensor, "draws features outputs"]
Filter = Callable[[Float[Tensor, "draws rank"], float], Float[Tensor, "draws rank"]]


def minimum_norm(design: Design, targets: Targets) -> Heads:
    """B = Phi^+ Y: least squares, of least norm where there are many. The cut-off is the machine's precision: a larger
    one would be a hidden regulariser that lowers the peak at p = n.
    """
    return torch.linalg.pinv(design) @ targets


def _ridge(values: Tensor, choice: float) -> Tensor:
    """Penalty 1e-4 to 1e2 times the mean squared singular value."""
    penalty = 10 ** (6 * choice - 4) * (values**2).mean(-1, keepdim=True)
    return values**2 / (values**2 + penalty)


def _early_stopping(values: Tensor, choice: float) -> Tensor:
    """1 to 1e6 steps of gradient descent from zero, at a rate of one over the largest squared singular value."""
    steps = round(10 ** (6 * choice))
    return 1 - (1 - (values / values.amax(-1, keepdim=True)) ** 2) ** steps


def _components(values: Tensor, choice: float) -> Tensor:
    """From one principal component to all of them, in equal ratios."""
    rank = values.shape[-1]
    kept = max(1, round(rank**choice))
    return (torch.arange(rank, device=values.device) < kept).to(values).expand_as(values)


FILTERS: dict[str, Filter] = {"ridge": _ridge, "early-stopping": _early_stopping, "components": _components}
"""f(singular values, choice in 0..1); a choice of 0 stands for the least penalty, steps or components."""


def _decomposed(design: Design, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values, right vectors and U'Y; values that are rounding are 0 and not used."""
    left, values, right = torch.linalg.svd(design, full_matrices=False)
    floor = values.amax(-1, keepdim=True) * max(design.shape[-2:]) * torch.finfo(values.dtype).eps
    return torch.where(values > floor, values, 0.0), right, left.mT @ targets


def _head(
    parts: tuple[Tensor, Tensor, Tensor], shrink: Filter, choice: Float[Tensor, " draws"] | float
) -> Heads:
    values, right, projected = parts
    inverse = torch.where(values > 0, 1 / values.clamp_min(1e-300), 0.0)
    if isinstance(choice, float):
        factor = shrink(values, choice)
    else:
        factor = torch.cat(
            [shrink(values[i : i + 1], float(value)) for i, value in enumerate(choice.tolist())]
        )
    return right.mT @ ((factor * inverse)[..., None] * projected)


def tuned_head(
    design: Design, targets: Targets, family: str, *, choices: int = CHOICES, folds: int = FOLDS
) -> tuple[Heads, Float[Tensor, " draws"]]:
    """The head of a family with the choice that `folds`-fold cross-validation likes best, and that choice in 0..1.

    Rows are taken to be in random order: fold f holds rows f, f + folds, ... Raises UserError for an unknown family and
    fewer rows than folds.
    """
    if family not in FILTERS:
        raise UserError(f'no family of heads "{family}"{nearest(family, FILTERS)}')
    samples = design.shape[1]
    if samples < folds:
        raise UserError(f"{samples} examples cannot be shared among {folds} folds")
    shrink = FILTERS[family]
    grid = [index / (choices - 1) for index in range(choices)]
    losses = torch.zeros(len(design), choices, dtype=design.dtype, device=design.device)
    fold = torch.arange(samples, device=design.device) % folds
    for index in range(folds):
        kept = fold != index
        parts = _decomposed(design[:, kept], targets[:, kept])
        for place, choice in enumerate(grid):
            missed = design[:, ~kept] @ _head(parts, shrink, choice) - targets[:, ~kept]
            losses[:, place] += (missed**2).sum((1, 2))
    chosen = torch.tensor(grid, dtype=design.dtype, device=design.device)[losses.argmin(1)]
    return _head(_decomposed(design, targets), shrink, chosen), chosen


def fit_heads(name: str, design: Design, targets: Targets) -> Heads:
    """Heads by name: `least-squares`, `ridge`, `early-stopping`, `components`, or `null` (all zero)."""
    if name == "least-squares":
        return minimum_norm(design, targets)
    if name == "null":
        return design.new_zeros(len(design), design.shape[2], targets.shape[2])
    return tuned_head(design, targets, name)[0]


HEADS = ("least-squares", *FILTERS, "null")
