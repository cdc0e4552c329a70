"""The tasks of S4's claims: a delay line, digits as long sequences, and a majority that was decided long ago.

A `Task` is where sequences come from; `from_arrays` makes one of your own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Split = Literal["train", "validation", "test"]
Draw = Callable[[Split, int, torch.Generator], tuple[Tensor, Tensor]]
BLANK = 2
"""The majority task's filler symbol, beside the bits 0 and 1."""


@dataclass(frozen=True)
class Task:
    """Sequences with one target each.

    draw(split, count, generator) gives inputs [count, length] (symbols) or [count, length, inputs] (reals), and
    targets [count] (labels, for cross-entropy) or [count, outputs] (reals, for squared error). Train batches are drawn
    at random; a fixed validation or test set is given whole, whatever the count.
    """

    draw: Draw
    length: int
    inputs: int
    outputs: int
    tokens: bool = False
    regression: bool = False


def band_limited_noise(
    count: int, length: int, band: float, generator: torch.Generator
) -> Float[Tensor, "count length"]:
    """White Gaussian noise with nothing above `band` (a share of the Nyquist frequency), unit variance, float64.

    Cut from a stretch eight times as long, so that a sequence is no sum of a few exact harmonics of its own length
    that could be continued instead of remembered.
    """
    if not 0 < band <= 1:
        raise ValueError(f"band is a share of the Nyquist frequency in (0, 1], not {band}")
    long = 8 * length
    spectrum = torch.fft.rfft(torch.randn(count, long, dtype=torch.float64, generator=generator))
    spectrum[:, int(band * (long // 2)) + 1 :] = 0
    noise = torch.fft.irfft(spectrum, n=long)[:, :length]
    return noise / noise.square().mean().sqrt()


def digits(side: int, *, test_share: slice, permuted: bool = False) -> Task:
    """scikit-learn's 1,797 digits, enlarged from 8x8 to side x side and read row by row: side² steps of one pixel.

    test_share picks the test images out of a fixed shuffled order; of the others every tenth is for validation.
    permuted applies one fixed random order of the pixels to all images, so that neighbours in time are not neighbours
    in the image.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None]
    labels = torch.from_numpy(data.target).long()
    fixed = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=fixed)
    pixels = torch.nn.functional.interpolate(images[order], size=(side, side), mode="bilinear").flatten(1)
    if permuted:
        pixels = pixels[:, torch.randperm(side * side, generator=fixed)]
    sequences, labels = ((pixels - pixels.mean()) / pixels.std())[..., None], labels[order]
    tested = torch.zeros(len(labels), dtype=torch.bool)
    tested[test_share] = True
    return from_arrays((sequences[~tested], labels[~tested]), (sequences[tested], labels[tested]), outputs=10)


def from_arrays(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, outputs: int | None = None
) -> Task:
    """A task from your own sequences: every tenth training pair becomes validation.

    inputs: floating [count, length, channels], or integer symbols [count, length]. targets: integer labels [count], or
    floating [count, outputs] for regression. Raises ValueError where shapes do not fit.
    """
    inputs, targets = train
    tokens, regression = not inputs.is_floating_point(), targets.is_floating_point()
    if inputs.ndim != (2 if tokens else 3) or test[0].shape[1:] != inputs.shape[1:]:
        raise ValueError(
            f"inputs must be [count, length, channels] reals or [count, length] symbols, alike in train and test; "
            f"given {tuple(inputs.shape)} and {tuple(test[0].shape)}"
        )
    if (
        targets.ndim != (2 if regression else 1)
        or len(targets) != len(inputs)
        or len(test[0]) != len(test[1])
    ):
        raise ValueError(
            f"targets must be [count] labels or [count, outputs] reals, one an input; given {tuple(targets.shape)}"
        )
    if len(inputs) < 10:
        raise ValueError(f"{len(inputs)} training sequences are too few; every tenth is for validation")
    kept = torch.arange(len(inputs)) % 10 > 0
    splits = {
        "train": (inputs[kept], targets[kept]),
        "validation": (inputs[~kept], targets[~kept]),
        "test": test,
    }

    def draw(split: Split, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = splits[split]
        if split != "train":
            return x, y
        chosen = torch.randint(len(x), (count,), generator=generator)
        return x[chosen], y[chosen]

    symbols = int(max(inputs.max(), test[0].max())) + 1 if tokens else inputs.shape[2]
    classes = targets.shape[1] if regression else outputs or int(max(targets.max(), test[1].max())) + 1
    return Task(draw, inputs.shape[1], symbols, classes, tokens, regression)


def majority(
    count: int, length: int, *, counted: int = 16, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, " count"]]:
    """Random bits, then blanks to the end; the label is the bits' majority and has to be remembered until then.

    Ties are broken by turning the last bit over, so labels stay balanced.
    """
    if not 0 < counted <= length:
        raise ValueError(f"cannot count {counted} of {length} tokens")
    tokens = torch.full((count, length), BLANK)
    bits = torch.randint(0, 2, (count, counted), generator=generator)
    tie = 2 * bits.sum(1) == counted
    bits[tie, -1] = 1 - bits[tie, -1]
    tokens[:, :counted] = bits
    return tokens, (2 * bits.sum(1) > counted).long()


def majority_task(length: int, *, counted: int = 16) -> Task:
    """`majority` as a task: fresh sequences for every split, told apart by the generator that is passed."""

    def draw(split: Split, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return majority(count, length, counted=counted, generator=generator)

    return Task(draw, length, BLANK + 1, 2, tokens=True)
