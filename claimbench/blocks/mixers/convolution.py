"""Gated short convolutions: Arora et al. 2023 (Zoology), arXiv 2312.04927, Section 5, and as Based's code has them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Recent(NamedTuple):
    """The last kernel − 1 inputs of the convolution, the oldest first."""

    inputs: Float[Tensor, "batch recent channels"]


def causal_depthwise(
    x: Float[Tensor, "batch length channels"],
    weight: Float[Tensor, "kernel channels"],
    bias: Float[Tensor, " channels"],
) -> Float[Tensor, "batch length channels"]:
    """y_t = bias + Σ_i weight_i ⊙ x_{t − kernel + 1 + i}, with zeros before the first token.

    A sum of shifted products: for kernels of 3 or 4 it is faster on a CPU than conv1d with groups, needs no transpose
    and can be batched over models. Shifts are paddings, of which one side is negative: their gradient is a padding too,
    where a slice's is a zeroed copy of everything.
    """
    *earlier, last = weight.unbind(0)
    y = bias + x * last
    for back, factor in zip(range(1, x.shape[1]), reversed(earlier), strict=False):
        y = y + functional.pad(x, (0, 0, back, -back)) * factor
    return y


class ShortConvolution(nn.Module):
    """A causal depthwise convolution over the last `kernel` tokens."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        bound = kernel**-0.5  # nn.Conv1d's own start: one channel of `kernel` inputs
        self.weight = nn.Parameter(torch.empty(kernel, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch length channels"]:
        """All positions at once."""
        return causal_depthwise(x, self.weight, self.bias)

    def init_state(self, batch: int) -> Recent:
        """As before the first token: zeros."""
        return Recent(self.weight.new_zeros(batch, self.kernel - 1, self.weight.shape[1]))

    def after(self, x: Float[Tensor, "batch length channels"]) -> Recent:
        """The state after these inputs."""
        kept = self.kernel - 1
        return Recent(functional.pad(x, (0, 0, kept, 0))[:, x.shape[1] :].clone())

    def step(
        self, x: Float[Tensor, "batch channels"], state: Recent
    ) -> tuple[Float[Tensor, "batch channels"], Recent]:
        """One token."""
        seen = torch.cat([state.inputs, x[:, None]], dim=1)
        return self.bias + (seen * self.weight).sum(1), Recent(seen[:, 1:])

    def state_bytes(self, batch: int = 1) -> int:
        """kernel − 1 inputs. (Where the current input is kept as well, as in the official code, it is kernel.)"""
        return batch * (self.kernel - 1) * self.weight.shape[1] * self.weight.element_size()


class BaseConv(nn.Module):
    """A short convolution times a linear gate.

    inner = 0: conv(x) ⊙ (Wx + b), as in the synthetic tasks. inner > 0: out(silu(conv(u)) ⊙ g) with u and g projections
    of x to `inner` channels each, as in the language models (inner = 2 · features there).
    """

    def __init__(self, features: int, *, kernel: int = 3, inner: int = 0) -> None:
        super().__init__()
        self.inner = inner
        self.project = nn.Linear(features, 2 * inner or features)
        self.convolution = ShortConvolution(inner or features, kernel)
        self.out = nn.Linear(inner, features) if inner else None

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is convolved, and the gate."""
        if not self.inner:
            return x, self.project(x)
        convolved, gate = self.project(x).chunk(2, dim=-1)
        return convolved, gate

    def _gated(self, convolved: Tensor, gate: Tensor) -> Tensor:
        y: Tensor = convolved * gate if self.out is None else self.out(functional.silu(convolved) * gate)
        return y

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once."""
        convolved, gate = self._parts(x)
        return self._gated(self.convolution(convolved), gate)

    def init_state(self, batch: int) -> Recent:
        return self.convolution.init_state(batch)

    def prefill(
        self, x: Float[Tensor, "batch length features"]
    ) -> tuple[Float[Tensor, "batch length features"], Recent]:
        """`forward`, and the state after the last token."""
        convolved, gate = self._parts(x)
        return self._gated(self.convolution(convolved), gate), self.convolution.after(convolved)

    def step(
        self, x: Float[Tensor, "batch features"], state: Recent
    ) -> tuple[Float[Tensor, "batch features"], Recent]:
        """One token."""
        convolved, gate = self._parts(x)
        y, state = self.convolution.step(convolved, state)
        return self._gated(y, gate), state

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        return self.convolution.state_bytes(batch)
