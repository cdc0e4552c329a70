"""How much of its past a frozen state holds: the best linear readout of u(t − τ) from the state at t.

The memory experiment behind HiPPO (Gu et al. 2020, arXiv 2008.07669; Gu, Goel, Ré 2021, arXiv 2111.00396, Section 4.4
compares initialisations by training). A and B stay as initialised; only C is learned, by ridge regression, so the
result is exact and owes nothing to an optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.papers.sequence.s4.dense import discretise
from claimbench.papers.sequence.s4.hippo import INITIALISATIONS, random_dense, real_form
from claimbench.papers.sequence.s4.layer import fft_size

RIDGES = tuple(10.0**e for e in range(-12, 1, 2))
"""Ridge penalties tried, as shares of the largest squared singular value of the states."""


class Recall(NamedTuple):
    """Normalised squared error (0: perfect, 1: as bad as always answering zero) and what validation data chose."""

    test: float
    validation: float
    step: float
    ridge: float


def system(name: str, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """A and B in float64 of an initialisation with a real state of size n, by the name of the claim's arm."""
    if name == "random-dense":
        return random_dense(n, generator)
    return real_form(INITIALISATIONS[name](n, generator))


def states_of(
    a: Float[Tensor, "n n"], b: Float[Tensor, " n"], step: float, length: int
) -> Float[Tensor, "n length"]:
    """Ā^l B̄ for l < length: how the state depends on the input l steps ago."""
    power, first = discretise(a[None], b[None], torch.tensor([step], dtype=a.dtype))
    states = first[0][:, None]
    while states.shape[1] < length:
        states = torch.cat([states, power[0] @ states], dim=1)
        power = power @ power
    return states[:, :length]


def delay_recall(
    a: Float[Tensor, "n n"],
    b: Float[Tensor, " n"],
    train: Float[Tensor, "train length"],
    validation: Float[Tensor, "validation length"],
    test: Float[Tensor, "test length"],
    *,
    delay: int,
    steps: Sequence[float],
    stride: int = 10,
) -> Recall:
    """Read u(t − delay) out of the state at every `stride`-th t ≥ delay; the state starts at zero with the sequence.

    Step size and ridge are chosen on the validation sequences alone. Raises FloatingPointError if no step size gives
    a finite state.
    """
    length = train.shape[1]
    if not 0 <= delay < length:
        raise ValueError(f"a delay of {delay} does not lie within sequences of {length}")
    times = torch.arange(delay, length, stride)
    wanted = {
        name: u[:, times - delay].flatten() for name, u in (("train", train), ("validation", validation))
    }
    best: tuple[float, float, float, Tensor, Tensor] | None = None
    for step in steps:
        impulse = states_of(a, b, step, length)
        if not bool(impulse.isfinite().all()):
            continue
        states = _states(impulse, train, times)
        scale = states.square().mean(0).sqrt().clamp_min(torch.finfo(a.dtype).tiny)
        left, singular, right = torch.linalg.svd(states / scale, full_matrices=False)
        ridges = singular[0] ** 2 * torch.tensor(RIDGES, dtype=a.dtype)
        shrunk = singular / (singular.square() + ridges[:, None]) * (left.T @ wanted["train"])
        readouts = (right.T @ shrunk.T) / scale[:, None]  # [n, ridges]
        errors = _nmse(_states(impulse, validation, times) @ readouts, wanted["validation"])
        chosen = int(errors.argmin())
        if best is None or float(errors[chosen]) < best[0]:
            best = (float(errors[chosen]), step, RIDGES[chosen], impulse, readouts[:, chosen : chosen + 1])
    if best is None:
        raise FloatingPointError("the state diverged at every step size")
    error, step, ridge, impulse, readout = best
    tested = _nmse(_states(impulse, test, times) @ readout, test[:, times - delay].flatten())
    return Recall(float(tested[0]), error, step, ridge)


def _states(impulse: Float[Tensor, "n length"], u: Float[Tensor, "count length"], times: Tensor) -> Tensor:
    """The state at these times in every sequence, [count · times, n], by FFT."""
    size = fft_size(2 * u.shape[1])
    spectrum = torch.fft.rfft(impulse, n=size) * torch.fft.rfft(u, n=size)[:, None]
    return torch.fft.irfft(spectrum, n=size)[..., times].transpose(1, 2).flatten(0, 1)


def _nmse(
    predicted: Float[Tensor, "count tried"], wanted: Float[Tensor, " count"]
) -> Float[Tensor, " tried"]:
    return (predicted - wanted[:, None]).square().mean(0) / wanted.square().mean()
