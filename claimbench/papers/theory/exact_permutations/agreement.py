"""How far trained networks of finite width are from the limiting law, in mean and variance.

Each network's own start is used as a control variate. With f_0 the network before training and w the law's
weights, `l(x) = f_0(x) - w f_0(X)` is what the linearised network adds to the mean. At every width its mean
is exactly 0 and its covariance exactly the law's, since the covariance of f_0 does not depend on the width.
So f - l has the mean of f, and f^2 - l^2 plus the law's variance has its second moment, but with far less
noise: what is left comes from the finite width itself. The networks stay independent, and no estimate is
biased by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.papers.theory.exact_permutations.kernels import (
    RELU,
    Kernels,
    Layers,
    limiting_covariance,
    limiting_mean,
    weights,
)
from claimbench.papers.theory.exact_permutations.network import Outputs

SLACK = 0.05  # of the law's mean, in `excess`


@dataclass(frozen=True)
class Agreement:
    """Distances between networks and a law. A group is one number of ones n >= 2 and one target value."""

    mean_error: float  # root mean square over groups of |mean of the group - the law's|, in output units
    variance_error: float  # root mean square over n and outputs of |variance / the law's - 1|
    excess: float  # largest over groups of (|mean error| - 5 % of |the law's mean|) / standard error
    raw_mean_error: float  # as mean_error, without the control variate


def agreement(
    outputs: Outputs,
    inputs: Float[Tensor, "inputs k"],
    targets: Float[Tensor, "k outputs"],
    kernels: Kernels = RELU,
    layers: Layers = "both",
) -> Agreement:
    """Compare networks with the law of these kernels at all inputs that were not trained on.

    Outputs at inputs with equally many ones and equal target values are averaged: for a permutation they have
    the same law. For other linear maps the groups are those of the target's value A x.
    """
    fresh = inputs.sum(1) > 1
    inputs = inputs[fresh]
    mean = limiting_mean(inputs, targets, kernels, layers)
    variance = limiting_covariance(inputs, kernels, layers).diagonal()
    w = weights(inputs, kernels, layers)
    end, start = outputs.end[:, fresh].double(), outputs.start[:, fresh].double()
    control = start - torch.einsum("ij,njo->nio", w, outputs.start_on_basis.double())

    values = inputs @ targets.double()
    keys = torch.stack([inputs.sum(1, keepdim=True).expand_as(values), values], -1).flatten(0, 1)
    _, group = keys.round(decimals=9).unique(dim=0, return_inverse=True)
    share = torch.nn.functional.one_hot(group).double()
    share = share / share.sum(0)  # (inputs * outputs, groups): averages over each group

    steady = (end - control).flatten(1) @ share
    expected = mean.flatten() @ share
    error = steady.mean(0) - expected
    standard_error = steady.std(0) / math.sqrt(len(end))
    raw = (end.flatten(1) @ share).mean(0) - expected

    bias = (end - control).mean(0) - mean
    moments = ((end - mean).square() - control.square()).mean(0) - bias.square()
    counts = torch.nn.functional.one_hot(inputs.sum(1).long()).double()
    counts = counts[:, counts.sum(0) > 0]
    relative = (moments.T @ counts) / (variance @ counts)
    return Agreement(
        mean_error=float(error.square().mean().sqrt()),
        variance_error=float(relative.square().mean().sqrt()),
        excess=float(((error.abs() - SLACK * expected.abs()) / standard_error).max()),
        raw_mean_error=float(raw.square().mean().sqrt()),
    )
