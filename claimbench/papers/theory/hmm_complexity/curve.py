"""The instrument: the risk of a head on p dimensions of one's own frozen features, with theory beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.hmm_complexity.heads import HEADS, Design, Heads, Targets, fit_heads
from claimbench.papers.theory.hmm_complexity.problem import Task
from claimbench.papers.theory.hmm_complexity.theory import spectral_risk

PROJECTIONS = ("random", "leading")
RATIOS = (0.07, 0.25, 0.5, 0.8, 1.0, 1.2, 2.0, 3.0)
DRAWS = 20
CHUNK = 40_000_000  # numbers in a batch of test features

Head = str | Callable[[Design, Targets], Heads]


@dataclass(frozen=True)
class Risk:
    """One size of the head."""

    features: int
    risk: float
    """Median over draws: distance to the truth, or with own targets the held-out squared error."""
    predicted: float
    """`spectral_risk` for the features' spectrum; NaN with own targets."""
    null: float
    """The same of a head that always answers with the mean."""


def projection(
    centred: Float[Tensor, "rows features"], size: int, how: str, draws: int, generator: torch.Generator
) -> Float[Tensor, "draws rows size"]:
    """`size` dimensions of the features: Gaussian random combinations, anew in each draw, or the leading principal
    components; scaled so that variances average to 1.

    Raises UserError for an unknown way and more dimensions than the features have.
    """
    if how not in PROJECTIONS:
        raise UserError(
            f'projection = "{how}"{nearest(how, PROJECTIONS)}; there are {", ".join(PROJECTIONS)}'
        )
    if not 1 <= size <= min(centred.shape):
        raise UserError(
            f"{size} dimensions of features of rank {min(centred.shape)} at most; give wider features or fewer samples"
        )
    if how == "leading":
        vectors = torch.linalg.svd(centred, full_matrices=False)[2][:size]
        made = (centred @ vectors.T)[None].expand(draws, -1, -1)
    else:
        mixing = torch.randn(
            draws, centred.shape[1], size, dtype=centred.dtype, device=centred.device, generator=generator
        )
        made = centred @ mixing
    return made / made.var(1, keepdim=True).mean(2, keepdim=True).sqrt()


def risk_curve(
    features: Float[np.ndarray, "rows features"],
    *,
    samples: int,
    sizes: Sequence[int] | None = None,
    head: Head = "least-squares",
    how: str = "random",
    targets: Float[np.ndarray, "rows outputs"] | None = None,
    task: Task | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Risk]:
    """Risk of a head fitted on `samples` random rows, for each number of dimensions, judged on the other rows.

        risk_curve(features, samples=150)                       # a synthetic linear task, |B| = 1, noise 0.25
        risk_curve(features, samples=150, targets=y, head="ridge")   # your own task

    features: frozen features, one independent example a row. sizes: default RATIOS times samples, as far as the width
    goes. head: a name (`HEADS`) or f(design, targets) -> heads, batched over draws. how: `random` or `leading`.
    targets: your own; without them the truth is linear in the dimensions at hand (`task`), so that every size is
    well-specified. Raises UserError where rows do not suffice, are not finite, or a head is unknown.
    """
    raw = torch.as_tensor(np.asarray(features, dtype=np.float64))
    if raw.ndim != 2 or not bool(raw.isfinite().all()):
        raise UserError("features: a finite matrix is needed, one example a row")
    rows, width = raw.shape
    if not 5 <= samples < rows:
        raise UserError(f"samples = {samples} of {rows} rows: at least 5, and some rows left to judge on")
    if isinstance(head, str) and head not in HEADS:
        raise UserError(f'head = "{head}"{nearest(head, HEADS)}; there are {", ".join(HEADS)}')
    own = None
    if targets is not None:
        own = torch.as_tensor(np.asarray(targets, dtype=np.float64)).reshape(len(targets), -1)
        if len(own) != rows or not bool(own.isfinite().all()):
            raise UserError(f"targets: {len(own)} rows for {rows} of features, or not all finite")
    wanted = [max(1, round(ratio * samples)) for ratio in RATIOS] if sizes is None else list(sizes)
    if sizes is None:
        wanted = [size for size in wanted if size <= min(width, rows - 1)]
    given = task or Task()
    found = []
    for size in wanted:
        part = max(1, CHUNK // (rows * size))
        risks, nulls, predictions = [], [], []
        for first in range(0, draws, part):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + size * 1009 + first)
            count = min(part, draws - first)
            made = projection(raw - raw.mean(0), size, how, count, generator)
            order = torch.argsort(torch.rand(count, rows, generator=generator), dim=1)
            made = torch.take_along_dim(made, order[..., None], 1)
            train, test = made[:, :samples], made[:, samples:]
            if own is None:
                truth = given.truth(count, size, generator, "cpu")
                answers, clean = train @ truth + given.errors(count, samples, generator, "cpu"), test @ truth
                predictions.append(spectral_risk(spectrum_of(test[0]), samples, given.signal, given.noise))
            else:
                drawn = own[order]
                centre = drawn[:, :samples].mean(1, keepdim=True)
                answers, clean = drawn[:, :samples] - centre, drawn[:, samples:] - centre
            fitted = fit_heads(head, train, answers) if isinstance(head, str) else head(train, answers)
            risks.append(((test @ fitted - clean) ** 2).sum(2).mean(1))
            nulls.append((clean**2).sum(2).mean(1))
        found.append(
            Risk(
                size,
                float(torch.cat(risks).median()),
                float(np.median(predictions)) if predictions else math.nan,
                float(torch.cat(nulls).median()),
            )
        )
    return found


def spectrum_of(examples: Float[Tensor, "count features"]) -> Float[np.ndarray, " features"]:
    """Eigenvalues of the covariance. Of fewer examples than some five a feature they are spread too far."""
    values = torch.linalg.eigvalsh(torch.cov(examples.T).reshape(examples.shape[1], examples.shape[1]))
    return values.clamp_min(0).numpy()
