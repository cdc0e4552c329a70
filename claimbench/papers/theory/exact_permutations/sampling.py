"""Ensembles drawn from the limiting Gaussian law, and ensemble sizes counted on networks, drawn or trained.

The law is that of Lee et al., 2019, arXiv 1902.06720; thresholding the average is Giapitzakis et al., 2025,
arXiv 2502.16763. Sampling the law needs no training: the average of N networks is N(mu, Sigma /
N).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from claimbench.papers.theory.exact_permutations.ensemble import nets_for_one_input
from claimbench.papers.theory.exact_permutations.kernels import (
    RELU,
    Kernels,
    Layers,
    limiting_covariance,
    limiting_mean,
)
from claimbench.papers.theory.exact_permutations.problem import binary_inputs, inputs_with

JITTER = 1e-10  # added to the diagonal, relative to it: the covariance of all inputs is nearly singular


def covariance_root(covariance: Float[Tensor, "inputs inputs"]) -> Float[Tensor, "inputs inputs"]:
    """A lower-triangular square root. Rows of no variance (training inputs) are zero."""
    diagonal = covariance.diagonal()
    active = diagonal > 1e-12 * diagonal.max()
    where = active.nonzero().squeeze(1)
    inner = covariance[where][:, where]
    inner.diagonal().mul_(1 + JITTER).add_(JITTER * float(diagonal.max()))
    root = torch.zeros_like(covariance)
    root[where[:, None], where] = torch.linalg.cholesky(inner)
    return root


def sample_nets(
    root: Float[Tensor, "inputs inputs"],
    mean: Float[Tensor, "inputs outputs"],
    nets: int,
    generator: torch.Generator,
) -> Float[Tensor, "nets inputs outputs"]:
    """Outputs of `nets` independent trained networks of infinite width, from their limiting Gaussian law."""
    inputs, outputs = mean.shape
    noise = torch.randn(nets, inputs, outputs, dtype=root.dtype, generator=generator)
    return mean + torch.einsum("ij,njo->nio", root, noise)


def sample_nets_for_all_inputs(
    k: int,
    draws: int,
    generator: torch.Generator,
    kernels: Kernels = RELU,
    layers: Layers = "both",
) -> Float[Tensor, " draws"]:
    """How many networks each of `draws` random ensembles needs to have all 2^k - 1 inputs right at once.

    The average of N networks is mu + Z / sqrt(N) with Z ~ N(0, Sigma) over all inputs jointly and outputs
    independent, so for each draw of Z success is monotone in N and the smallest N is `max (wrong-way part of
    Z / |mu|)^2`, rounded up. Its (1 - d)-quantile over draws is the N at which an ensemble succeeds with
    probability 1 - d: every N is judged by its own marginal law, and no search and no stopping rule comes in.
    Memory: (2^k)^2 float64.
    """
    inputs = binary_inputs(k)
    mean = limiting_mean(inputs, torch.eye(k, dtype=torch.float64), kernels, layers)
    training = inputs.sum(1) == 1
    if bool((torch.where(inputs > 0, mean, -mean)[~training] < 1e-12).any()):
        raise ValueError(
            f"k = {k}: the mean does not separate the bits strictly, so that no number of networks suffices"
        )
    # Training inputs are right for every N: their variance is 0 and their means are 1 and 0.
    root = covariance_root(limiting_covariance(inputs[~training], kernels, layers))
    towards_wrong = -1 / mean[~training]
    needed = []
    batch = max(1, 2_000_000 // (len(root) * k))
    for size in [batch] * (draws // batch) + [draws % batch] * (draws % batch > 0):
        noise = torch.randn(len(root), size * k, dtype=torch.float64, generator=generator)
        wrong = (root @ noise).view(len(root), size, k) * towards_wrong[:, None]
        needed.append(wrong.amax((0, 2)).clamp(min=0).square().ceil().clamp(min=1))
    return torch.cat(needed)


def quantile(needed: Float[Tensor, " draws"], failure: float) -> float:
    """The smallest drawn size with which a share of at least 1 - failure of the draws succeeds."""
    ordered = needed.sort().values
    return float(ordered[max(0, math.ceil((1 - failure) * len(ordered) - 1e-9) - 1)])


def match_share(
    average: Float[Tensor, "*ensembles inputs outputs"], bits: Bool[Tensor, "inputs outputs"]
) -> float:
    """Share of (ensemble, input) pairs with every bit right when the average is thresholded at 0."""
    return float(((average > 0) == bits).all(-1).double().mean())


def nets_from_pool(
    outputs: Float[Tensor, "pool inputs outputs"],
    bits: Bool[Tensor, "inputs outputs"],
    failure: float,
    generator: torch.Generator,
    repeats: int = 4,
) -> float:
    """The ensemble size at which a share 1 - failure of inputs is right, from a pool of independently trained
    networks.

    For each size on a geometric grid the shuffled pool is cut into disjoint ensembles, `repeats` times. The
    share by size is made monotone (isotonic regression) and crossed by interpolation in log N: there is no
    first crossing that would stop early. Returns infinity if no size up to half the pool reaches the share.
    """
    pool = len(outputs)
    sizes = np.unique(np.round(np.geomspace(1, pool // 2, 60)).astype(int))
    shares = []
    for size in sizes.tolist():
        whole = pool // size * size
        found = [
            match_share(outputs[order[:whole]].view(-1, size, *outputs.shape[1:]).mean(1), bits)
            for order in (torch.randperm(pool, generator=generator) for _ in range(repeats))
        ]
        shares.append(float(np.mean(found)))
    smooth = IsotonicRegression().fit_transform(np.log(sizes), shares, sample_weight=1 / sizes)
    above = np.flatnonzero(smooth >= 1 - failure)
    if len(above) == 0:
        return math.inf
    last = int(above[0])
    if last == 0:
        return 1.0
    low, high = smooth[last - 1], smooth[last]
    step = (1 - failure - low) / (high - low)
    return float(np.exp(np.log(sizes[last - 1]) + step * np.log(sizes[last] / sizes[last - 1])))


def first_crossing(
    outputs: Float[Tensor, "nets inputs outputs"],
    bits: Bool[Tensor, "inputs outputs"],
    failure: float,
    times: Float[Tensor, " inputs"] | None = None,
) -> int:
    """Networks added one by one until more than a share 1 - failure of the test set is right: the official
    code's rule.

    times: how often each input stands in the test set; once unless given. It stops at the first lucky size,
    so that it is lower on average than the size at which a fresh ensemble reaches the share. Returns 0 if the
    share is never crossed.
    """
    average = outputs.cumsum(0) / torch.arange(1, len(outputs) + 1, dtype=outputs.dtype)[:, None, None]
    right = ((average > 0) == bits).all(-1).double()
    share = right.mean(-1) if times is None else right @ times.double() / times.sum()
    crossed = (share > 1 - failure).nonzero()
    return int(crossed[0, 0]) + 1 if len(crossed) else 0


def sample_first_crossings(
    k: int,
    repeats: int,
    generator: torch.Generator,
    failure: float = 0.1,
    ones: int = 2,
    test_inputs: int = 1000,
    kernels: Kernels = RELU,
    layers: Layers = "last",
) -> Float[Tensor, " repeats"]:
    """The official code's count, drawn from the limiting law: `test_inputs` random inputs with replacement,
    first crossing.

    Raises RuntimeError if eight times the exact number of networks does not cross.
    """
    distinct = inputs_with(ones, k)
    mean = limiting_mean(distinct, torch.eye(k, dtype=torch.float64), kernels, layers)
    root = covariance_root(limiting_covariance(distinct, kernels, layers))
    limit = 8 * nets_for_one_input(k, failure, ones, kernels, layers)
    counts = []
    for _ in range(repeats):
        chosen = torch.randint(len(distinct), (test_inputs,), generator=generator)
        count = first_crossing(
            sample_nets(root, mean, limit, generator),
            distinct > 0,
            failure,
            chosen.bincount(minlength=len(distinct)),
        )
        if count == 0:
            raise RuntimeError(f"k = {k}: {limit} networks did not reach {1 - failure:.1%} exact match")
        counts.append(count)
    return torch.tensor(counts, dtype=torch.float64)
