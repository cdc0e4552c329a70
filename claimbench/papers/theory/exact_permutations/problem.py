"""The task: permute k bits, having seen only the k one-hot vectors.

Giapitzakis, Back de Luca and Fountoulakis, "Exact Learning of Permutations for Nonzero Binary Inputs with
Logarithmic Training Size and Quadratic Ensemble Complexity", 2025, arXiv 2502.16763.

The training set is always X = I (the k basis vectors) with targets Y, whose row i is the image of e_i. For a
permutation Y = P'; any other linear map x -> A x is Y = A'. Inputs are handed over as raw 0/1 vectors and
normalised where used, so that their angles come from integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from claimbench.errors import UserError

ENUMERABLE = 16  # 2^16 - 1 inputs of 16 bits are 8 MiB in float64; every further bit doubles it


def binary_inputs(k: int) -> Float[Tensor, "inputs k"]:
    """All 2^k - 1 nonzero inputs, float64, in counting order. Raises UserError above k = 16."""
    if not 1 <= k <= ENUMERABLE:
        raise UserError(
            f"k = {k}: all nonzero inputs are enumerated for 1 <= k <= {ENUMERABLE} only; choose k in it"
        )
    numbers = torch.arange(1, 2**k)
    return ((numbers[:, None] >> torch.arange(k)) & 1).to(torch.float64)


def inputs_with(ones: int, k: int) -> Float[Tensor, "inputs k"]:
    """All inputs of k bits with exactly `ones` ones (k over `ones` of them), float64."""
    where = torch.tensor(list(itertools.combinations(range(k), ones)))
    return torch.zeros(len(where), k, dtype=torch.float64).scatter_(1, where, 1.0)


def representatives(k: int) -> Float[Tensor, "k k"]:
    """One input for each number of ones n = 1..k: its first n bits. Enough for whatever depends on x through
    n alone.
    """
    return torch.ones(k, k, dtype=torch.float64).tril()


def permutation_targets(permutation: int | str | Sequence[int], k: int) -> Float[Tensor, "k k"]:
    """Targets Y whose row i is P e_i = e_permutation[i], float64.

    permutation: a seed (an int), or the permutation itself as a list or as text ("2,0,1").
    Raises UserError if it is no permutation of 0..k-1.
    """
    if isinstance(permutation, str):
        parts = permutation.replace(" ", "").split(",")
        if not all(part.isdigit() for part in parts):
            raise UserError(
                f'permutation = "{permutation}": write a seed, or the images of the bits such as "2,0,1"'
            )
        permutation = int(parts[0]) if len(parts) == 1 else [int(part) for part in parts]
    if isinstance(permutation, int):
        images = torch.randperm(k, generator=torch.Generator().manual_seed(permutation))
    else:
        images = torch.tensor(list(permutation))
        if sorted(images.tolist()) != list(range(k)):
            raise UserError(
                f"permutation = {list(permutation)} is none of 0..{k - 1}; "
                "give each number once, or run at its own k"
            )
    return torch.eye(k, dtype=torch.float64)[images]


def target_bits(
    inputs: Float[Tensor, "inputs k"], targets: Float[Tensor, "k outputs"]
) -> Bool[Tensor, "inputs outputs"]:
    """Which outputs should be 1: those whose linear image is positive."""
    return inputs @ targets.to(inputs) > 0
