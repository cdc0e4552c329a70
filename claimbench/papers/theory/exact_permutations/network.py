"""Two-layer networks of finite width, many trained at once by gradient descent on the k basis vectors.

The networks of Giapitzakis et al., 2025, arXiv 2502.16763, in three parametrisations:

    "ntk"         f(x) = W2 phi(W1 x / sqrt(k)) / sqrt(h), no bias, N(0, 1) entries, both layers trained:
                  follows the NTK
    "last-layer"  the same network, W2 alone trained: follows the NNGP kernel
    "standard"    f(x) = W2 phi(W1 x + b1) + b2, weights N(0, 1/fan-in), biases 0 at the start, everything
                  trained with one learning rate: what `nn.Linear` layers and plain SGD do, and what the
                  paper's code does. The last layer's gradient is larger by a factor of about h/k, so that a
                  wide one follows the last-layer kernel, not the NTK

Every network of a batch has weights of its own; one batched matrix product trains them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.exact_permutations.kernels import (
    ACTIVATIONS,
    Activation,
    Layers,
    activation_kernels,
    gram,
)

Parametrisation = Literal["ntk", "last-layer", "standard"]
OptimiserFactory = Callable[[list[Tensor]], torch.optim.Optimizer]

BATCH = 20_000_000  # weights trained at once: 80 MB in float32, some six times that in all


def follows(parametrisation: Parametrisation) -> Layers:
    """The limiting law of a parametrisation: `both` for the NTK, `last` for the last layer's kernel."""
    return "both" if parametrisation == "ntk" else "last"


@dataclass
class Networks:
    """A batch of networks of one shape. W1 is stored input-major, so that row i holds the pre-activations of
    e_i.
    """

    first: Float[Tensor, "nets k width"]
    second: Float[Tensor, "nets width outputs"]
    first_bias: Float[Tensor, "nets 1 width"] | None
    second_bias: Float[Tensor, "nets 1 outputs"] | None
    parametrisation: Parametrisation
    activation: Activation

    @property
    def trained(self) -> list[Tensor]:
        """The tensors that gradient descent changes."""
        if self.parametrisation == "last-layer":
            return [self.second]
        return [t for t in (self.first, self.second, self.first_bias, self.second_bias) if t is not None]

    def __call__(self, inputs: Float[Tensor, "inputs k"]) -> Float[Tensor, "nets inputs outputs"]:
        """Outputs at inputs as they are given: scale test inputs to unit norm first (`unit`)."""
        return self._head(torch.einsum("ik,nkh->nih", inputs.to(self.first), self.first))

    def on_basis(self) -> Float[Tensor, "nets k outputs"]:
        """Outputs at the training inputs e_1..e_k, whose first product is the weight itself."""
        return self._head(self.first)

    def _head(self, product: Tensor) -> Tensor:
        _, k, width = self.first.shape
        if self.parametrisation == "standard":
            assert self.first_bias is not None
            assert self.second_bias is not None
            return torch.baddbmm(self.second_bias, self.activation(product + self.first_bias), self.second)
        return torch.bmm(self.activation(product / math.sqrt(k)), self.second) / math.sqrt(width)


def unit(inputs: Float[Tensor, "inputs k"]) -> Float[Tensor, "inputs k"]:
    """Inputs scaled to norm 1."""
    return torch.nn.functional.normalize(inputs, dim=-1)


def initial_networks(
    nets: int,
    k: int,
    width: int,
    generator: torch.Generator,
    *,
    outputs: int | None = None,
    parametrisation: Parametrisation = "ntk",
    activation: str | Activation = "relu",
    dtype: torch.dtype = torch.float32,
) -> Networks:
    """A batch of untrained networks on the generator's device. `outputs` is k unless given."""
    if parametrisation not in get_args(Parametrisation):
        raise UserError(
            f'parametrisation = "{parametrisation}"{nearest(parametrisation, get_args(Parametrisation))}'
        )
    if isinstance(activation, str):
        activation_kernels(activation, k)  # raises on an unknown name
        activation = ACTIVATIONS[activation]
    outputs = k if outputs is None else outputs
    standard = parametrisation == "standard"

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device, dtype=dtype)

    first, second = normal(nets, k, width), normal(nets, width, outputs)
    if standard:
        first, second = first / math.sqrt(k), second / math.sqrt(width)
    return Networks(
        first,
        second,
        torch.zeros_like(first[:, :1]) if standard else None,
        torch.zeros_like(second[:, :1]) if standard else None,
        parametrisation,
        activation,
    )


def learning_rate(
    k: int, width: int, parametrisation: Parametrisation = "ntk", activation: str | Activation = "relu"
) -> float:
    """1 / lambda_max of the training kernel at infinite width, for the loss 1/2 (sum of squares).

    "standard": h times the last layer's lambda_max, plus 2 k, which bounds the first layer's and the biases'
    share for |phi'| <= 1.
    """
    a, b = gram(activation_kernels(activation, k).trained(follows(parametrisation)), k)
    largest = (a + max(k * b, 0.0)) / k
    return 1 / (width * largest + 2 * k) if parametrisation == "standard" else 1 / largest


@dataclass(frozen=True)
class Training:
    """How a batch was trained: full-batch steps taken, and the largest |f(e_i) - y_i| over nets, inputs and
    outputs.
    """

    steps: int
    residual: float


def train(
    networks: Networks,
    targets: Float[Tensor, "k outputs"],
    *,
    rate: float | None = None,
    tolerance: float = 1e-4,
    max_steps: int = 5000,
    optimiser: OptimiserFactory | None = None,
) -> Training:
    """Gradient descent on 1/2 sum |f(e_i) - y_i|^2 of every network, in place, until the train residual is <
    tolerance.

    rate: defaults to `learning_rate`. optimiser: `lambda weights: torch.optim.Adam(weights, 1e-3)`; any
    optimiser that treats weights elementwise, since networks are stacked. targets: any linear map, row i the
    image of e_i. Raises RuntimeError if the residual is not reached within max_steps or is not finite.
    """
    _, k, width = networks.first.shape
    wanted = targets.to(networks.second)
    if wanted.shape != (k, networks.second.shape[-1]):
        raise UserError(
            f"targets have shape {tuple(wanted.shape)}; these networks want {(k, networks.second.shape[-1])}"
        )
    if rate is None:
        rate = learning_rate(k, width, networks.parametrisation, networks.activation)
    weights = [weight.requires_grad_() for weight in networks.trained]
    chosen = None if optimiser is None else optimiser(weights)
    try:
        for step in range(max_steps + 1):
            with torch.enable_grad():
                error = networks.on_basis() - wanted
                loss = error.square().sum() / 2
            residual = float(error.detach().abs().max())
            if residual < tolerance:
                return Training(step, residual)
            if not math.isfinite(residual):
                raise RuntimeError(f"training diverged at step {step}; lower the learning rate")
            gradients = torch.autograd.grad(loss, weights)
            if chosen is None:  # torch.optim.SGD does the same, but its first use costs seconds of imports
                with torch.no_grad():
                    torch._foreach_add_(weights, gradients, alpha=-rate)
                continue
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            chosen.step()
    finally:
        for weight in weights:
            weight.requires_grad_(False).grad = None
    raise RuntimeError(f"train residual {residual:.1e} after {max_steps} steps; {tolerance:.0e} was wanted")


@dataclass(frozen=True)
class Outputs:
    """What many networks say before and after training, on the CPU. Inputs are scaled to unit norm."""

    end: Float[Tensor, "nets inputs outputs"]
    start: Float[Tensor, "nets inputs outputs"]
    start_on_basis: Float[Tensor, "nets k outputs"]


def train_many(
    nets: int,
    inputs: Float[Tensor, "inputs k"],
    targets: Float[Tensor, "k outputs"],
    width: int,
    seed: int,
    *,
    parametrisation: Parametrisation = "ntk",
    activation: str | Activation = "relu",
    device: str = "cpu",
    rate: float | None = None,
    tolerance: float = 1e-4,
    max_steps: int = 5000,
    optimiser: OptimiserFactory | None = None,
) -> Outputs:
    """Train `nets` independent networks, in batches that fit in memory, and evaluate them before and after
    (float32).

    The other arguments are those of `initial_networks` and `train`.
    """
    k, outputs = targets.shape
    memory = BATCH if device == "cpu" else 10 * BATCH
    scaled = unit(inputs.float()).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    size = max(1, min(nets, memory // ((k + outputs) * width)))
    found = []
    for first in range(0, nets, size):
        networks = initial_networks(
            min(size, nets - first),
            k,
            width,
            generator,
            outputs=outputs,
            parametrisation=parametrisation,
            activation=activation,
        )
        start, start_on_basis = _evaluate(networks, scaled, memory), networks.on_basis().cpu()
        train(networks, targets, rate=rate, tolerance=tolerance, max_steps=max_steps, optimiser=optimiser)
        found.append((_evaluate(networks, scaled, memory), start, start_on_basis))
    return Outputs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def _evaluate(networks: Networks, inputs: Tensor, memory: int) -> Tensor:
    """Outputs on the CPU, so many inputs at a time that their hidden activations fit in memory."""
    nets, _, width = networks.first.shape
    return torch.cat([networks(part).cpu() for part in inputs.split(max(1, memory // (nets * width)))], dim=1)


def empirical_ntk(
    networks: Networks, inputs: Float[Tensor, "inputs k"]
) -> Float[Tensor, "nets inputs inputs"]:
    """Each network's tangent kernel, sum over trained weights of df_1(x) df_1(x~) for its first output, by
    `torch.func`.
    """
    names = [n for n in ("first", "second", "first_bias", "second_bias") if getattr(networks, n) is not None]
    trained = [n for n in names if any(getattr(networks, n) is weight for weight in networks.trained)]

    def outputs(chosen: dict[str, Tensor], fixed: dict[str, Tensor]) -> Tensor:
        tensors = {name: (chosen | fixed)[name][None] for name in names}
        single = Networks(
            tensors["first"],
            tensors["second"],
            tensors.get("first_bias"),
            tensors.get("second_bias"),
            networks.parametrisation,
            networks.activation,
        )
        return single(inputs)[0, :, 0]

    chosen = {name: getattr(networks, name).detach() for name in trained}
    fixed = {name: getattr(networks, name).detach() for name in names if name not in trained}
    jacobian = torch.func.vmap(torch.func.jacrev(outputs))(chosen, fixed)
    rows = torch.cat([part.flatten(2) for part in jacobian.values()], dim=2)
    return rows @ rows.mT
