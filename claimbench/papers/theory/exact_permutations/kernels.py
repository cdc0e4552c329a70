"""The two kernels of an infinitely wide two-layer network without biases, and the law of the trained network.

Network: `f(x) = W2 phi(W1 x / sqrt(k)) / sqrt(h)`, W1 (h x k), W2 (outputs x h), all entries N(0, 1) at the
start. The theory is Jacot et al., 2018, arXiv 1806.07572 (NTK) and Lee et al., 2019, arXiv 1902.06720 (law
after training); the closed forms for basis vectors and binary inputs follow Giapitzakis et al., 2025, arXiv
2502.16763.

For unit inputs at cosine c, in units of 1/k:
    NNGP (covariance at the start)  K(c) = k E[phi(u) phi(v)],           (u, v) ~ N(0, [[1, c], [c, 1]] / k)
    NTK (both layers trained)       T(c) = K(c) + c E[phi'(u) phi'(v)]
    last layer trained alone        T(c) = K(c)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError, nearest

Layers = Literal["both", "last"]
"""Which layers are trained: both gives the NTK, last the NNGP kernel in its place."""

Kernel = Callable[[Tensor], Tensor]
Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.nn.functional.relu,
    "leaky-relu": torch.nn.functional.leaky_relu,
    "elu": torch.nn.functional.elu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sin": torch.sin,
    "identity": lambda u: u,
}


@dataclass(frozen=True)
class Kernels:
    """K(c) and T(c) of one activation, each a function of a float64 tensor of cosines, in units of 1/k."""

    nngp: Kernel
    ntk: Kernel

    def trained(self, layers: Layers) -> Kernel:
        """The kernel that gradient descent follows."""
        return self.ntk if layers == "both" else self.nngp


def relu_nngp(cosine: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """K(c) = [sqrt(1 - c^2) + c (pi - arccos c)] / (2 pi): the arc-cosine kernel of degree 1 (Cho and Saul,
    2009).
    """
    cosine = cosine.clamp(-1, 1)
    return ((1 - cosine**2).sqrt() + cosine * (torch.pi - cosine.arccos())) / (2 * torch.pi)


def relu_ntk(cosine: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """T(c) = K(c) + c (pi - arccos c) / (2 pi)."""
    cosine = cosine.clamp(-1, 1)
    return relu_nngp(cosine) + cosine * (torch.pi - cosine.arccos()) / (2 * torch.pi)


RELU = Kernels(relu_nngp, relu_ntk)


def activation_kernels(activation: str | Activation, k: int) -> Kernels:
    """The kernels of any activation at input dimension k: a name in `ACTIVATIONS`, or an elementwise function
    of a tensor.

    ReLU has its closed form. Others are integrated in polar coordinates, u = r cos(theta), v = r cos(theta -
    arccos c), by Gauss-Legendre rules whose panels end where u or v is 0: near float64 precision for
    activations that are smooth apart from 0. Only ReLU-like ones make a kernel that does not depend on k,
    since inputs have norm 1/sqrt(k).
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise UserError(f'activation = "{activation}" is not known{nearest(activation, ACTIVATIONS)}')
        activation = ACTIVATIONS[activation]
    if activation is ACTIVATIONS["relu"] or activation is torch.relu:
        return RELU
    function = activation

    def slope(u: Tensor) -> Tensor:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            return torch.autograd.grad(function(u).sum(), u)[0]

    def nngp(cosine: Tensor) -> Tensor:
        return k * _expectation(function, cosine, k)

    def ntk(cosine: Tensor) -> Tensor:
        return nngp(cosine) + cosine * _expectation(slope, cosine, k)

    return Kernels(nngp, ntk)


def _expectation(
    function: Activation, cosine: Tensor, k: int, nodes: int = 48, radius: float = 9.0
) -> Tensor:
    """E[function(u) function(v)] for (u, v) ~ N(0, [[1, c], [c, 1]] / k), for every cosine (the density ends
    at exp(-40)).
    """
    points, where = cosine.double().clamp(-1, 1).round(decimals=14).unique(return_inverse=True)
    roots, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    roots, weights = (roots + 1) / 2, weights / 2
    r = radius * roots
    r_weights = radius * weights * r * torch.exp(-(r**2) / 2)
    values = []
    for angle in points.arccos().split(64):
        length = torch.stack([angle, torch.pi - angle], -1).repeat(1, 2)
        start = length.cumsum(-1) - length - torch.pi / 2
        theta = (start[:, :, None] + length[:, :, None] * roots).flatten(1)
        theta_weights = (length[:, :, None] * weights).flatten(1) / (2 * torch.pi)
        u = r * theta.cos()[:, :, None] / math.sqrt(k)
        v = r * (theta - angle[:, None]).cos()[:, :, None] / math.sqrt(k)
        values.append(torch.einsum("ctr,ct,r->c", function(u) * function(v), theta_weights, r_weights))
    return torch.cat(values)[where].reshape(cosine.shape)


def cosines(left: Float[Tensor, "left k"], right: Float[Tensor, "right k"]) -> Float[Tensor, "left right"]:
    """Cosines of raw inputs. For 0/1 inputs the sums are integers, so that equal inputs have cosine exactly
    1.
    """
    left, right = left.double(), right.double()
    squares = left.square().sum(-1)[:, None] * right.square().sum(-1)
    return (left @ right.T / squares.sqrt()).clamp(-1, 1)


def gram(kernel: Kernel, k: int) -> tuple[float, float]:
    """(a, b) of the Gram matrix on the k basis vectors, a I + b 1 1': a = kernel(1) - kernel(0), b =
    kernel(0).
    """
    diagonal, off = kernel(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
    if abs(off) < 1e-13 * abs(diagonal):
        off = 0.0  # odd activations: the quadrature leaves rounding, whose sign would become the mean's
    return diagonal - off, off


def weights(
    inputs: Float[Tensor, "inputs k"], kernels: Kernels = RELU, layers: Layers = "both"
) -> Float[Tensor, "inputs k"]:
    """w = T(x, X) T(X, X)^-1, by Sherman-Morrison: (1/a) (t - b sum(t) / (a + k b))."""
    k = inputs.shape[1]
    kernel = kernels.trained(layers)
    a, b = gram(kernel, k)
    rows = kernel(cosines(inputs, torch.eye(k, dtype=torch.float64)))
    # Deviations from b first: the two terms of the textbook form nearly cancel on 0-bits.
    excess = rows - b
    return (excess + b * (a - excess.sum(-1, keepdim=True)) / (a + k * b)) / a


def limiting_mean(
    inputs: Float[Tensor, "inputs k"],
    targets: Float[Tensor, "k outputs"],
    kernels: Kernels = RELU,
    layers: Layers = "both",
) -> Float[Tensor, "inputs outputs"]:
    """mu(x) = T(x, X) T(X, X)^-1 Y of the network trained to convergence, for inputs scaled to unit norm,
    float64.
    """
    return weights(inputs, kernels, layers) @ targets.double()


def limiting_covariance(
    inputs: Float[Tensor, "inputs k"], kernels: Kernels = RELU, layers: Layers = "both"
) -> Float[Tensor, "inputs inputs"]:
    """Covariance over inputs of each output of one trained network (outputs are independent), float64:

    `[K(x, x~) + w K(X, X) w~' - w K(X, x~) - K(x, X) w~'] / k` (Lee et al., 2019, the law of the linearised
    network at infinite time).
    """
    k = inputs.shape[1]
    w = weights(inputs, kernels, layers)
    a, b = gram(kernels.nngp, k)
    cross = w @ kernels.nngp(cosines(torch.eye(k, dtype=torch.float64), inputs))
    total = w.sum(-1)
    trained = a * w @ w.T + b * torch.outer(total, total)
    return (kernels.nngp(cosines(inputs, inputs)) + trained - cross - cross.T) / k


@dataclass(frozen=True)
class Levels:
    """The law of one output at an input with n ones: it depends on x through n alone (one entry for each n)."""

    one: Float[Tensor, " counts"]  # mean of an output that should be 1
    zero: Float[Tensor, " counts"]  # mean of an output that should be 0
    variance: Float[Tensor, " counts"]


def levels(
    k: int, ones: Float[Tensor, " counts"] | list[int], kernels: Kernels = RELU, layers: Layers = "both"
) -> Levels:
    """Means and variance of the trained network at inputs with the given numbers of ones, in closed form,
    float64.

    mu_0 = (b/a) (a - n (T(1/sqrt n) - b)) / (a + k b), which is exactly 0 at n = 1; mu_1 = mu_0 + (T(1/sqrt
    n) - b) / a. For the ReLU's NTK these are formulas in g = sqrt(1 - 1/n) + (2/sqrt n)(pi - arccos(1/sqrt
    n)).
    """
    n = torch.as_tensor(ones, dtype=torch.float64)
    if n.numel() == 0 or n.min() < 1 or n.max() > k:
        raise UserError(f"numbers of ones must lie in 1..{k}; got {n.tolist()}")
    kernel = kernels.trained(layers)
    a, b = gram(kernel, k)
    cosine = 1 / n.sqrt()
    excess = kernel(cosine) - b
    zero = b / a * (a - n * excess) / (a + k * b)
    one = zero + excess / a
    start_a, start_b = gram(kernels.nngp, k)
    along = start_a * (n * one**2 + (k - n) * zero**2) + start_b * (n * one + (k - n) * zero) ** 2
    cross = n * one * kernels.nngp(cosine) + (k - n) * zero * start_b
    return Levels(one, zero, ((start_a + start_b + along - 2 * cross) / k).clamp(min=0))
