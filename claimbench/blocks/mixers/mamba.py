"""Mamba's mixer: a selective state-space model between gates (Gu and Dao 2023, arXiv 2312.00752, Section 3.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from claimbench.blocks.mixers.convolution import Recent, ShortConvolution
from claimbench.blocks.mixers.selective_scan import selective_scan

STEP_RANGE = (1e-3, 1e-1)
"""Step sizes start log-uniform in here (Section 3.6)."""


class Selective(NamedTuple):
    """The convolution's last inputs and the state-space model's state."""

    recent: Recent
    hidden: Float[Tensor, "batch state channels"]


class Mamba(nn.Module):
    """Convolution, selective scan and gate on `expand` · features channels, each with a state of `state` numbers.

    kernel: of the convolution. rank: of the step size's projection, features/16 rounded up by default. The scan and its
    state are float32 at least.
    """

    def __init__(
        self, features: int, *, state: int = 16, expand: int = 2, kernel: int = 4, rank: int = 0
    ) -> None:
        super().__init__()
        channels, self.state = expand * features, state
        self.rank = rank or math.ceil(features / 16)
        self.project = nn.Linear(features, 2 * channels, bias=False)
        self.convolution = ShortConvolution(channels, kernel)
        self.select = nn.Linear(channels, self.rank + 2 * state, bias=False)
        self.widen = nn.Linear(self.rank, channels)
        self.log_decay = nn.Parameter(torch.arange(1.0, state + 1).log()[:, None].repeat(1, channels))
        self.skip = nn.Parameter(torch.ones(channels))
        self.out = nn.Linear(channels, features, bias=False)
        low, high = (math.log(bound) for bound in STEP_RANGE)
        with torch.no_grad():
            self.widen.weight.uniform_(-(self.rank**-0.5), self.rank**-0.5)
            step = (low + (high - low) * torch.rand(channels)).exp()
            self.widen.bias.copy_(step + (-torch.expm1(-step)).log())  # softplus of it is the step

    def _coefficients(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """u, Δ, A, B, C of the scan."""
        wide = torch.promote_types(u.dtype, torch.float32)
        step, b, c = self.select(u).split([self.rank, self.state, self.state], dim=-1)
        delta = functional.softplus(self.widen(step).to(wide))
        return u.to(wide), delta, -self.log_decay.to(wide).exp(), b.to(wide), c.to(wide)

    def _gated(self, y: Tensor, u: Tensor, gate: Tensor) -> Tensor:
        out: Tensor = self.out((y.to(u.dtype) + self.skip * u) * functional.silu(gate))
        return out

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        """All positions at once."""
        return self.prefill(x)[0]

    def prefill(
        self, x: Float[Tensor, "batch length features"]
    ) -> tuple[Float[Tensor, "batch length features"], Selective]:
        """`forward`, and the state after the last token."""
        convolved, gate = self.project(x).chunk(2, dim=-1)
        u = functional.silu(self.convolution(convolved))
        y, hidden = selective_scan(*self._coefficients(u))
        return self._gated(y, u, gate), Selective(self.convolution.after(convolved), hidden[:, -1])

    def init_state(self, batch: int) -> Selective:
        """Zeros."""
        wide = torch.promote_types(self.skip.dtype, torch.float32)
        hidden = torch.zeros(batch, *self.log_decay.shape, dtype=wide, device=self.skip.device)
        return Selective(self.convolution.init_state(batch), hidden)

    def step(
        self, x: Float[Tensor, "batch features"], state: Selective
    ) -> tuple[Float[Tensor, "batch features"], Selective]:
        """One token."""
        convolved, gate = self.project(x).chunk(2, dim=-1)
        u, recent = self.convolution.step(convolved, state.recent)
        u = functional.silu(u)
        wide, delta, a, b, c = self._coefficients(u)
        hidden = (delta[:, None] * a).exp() * state.hidden + (delta * wide)[:, None] * b[..., None]
        y = (c[:, None] @ hidden)[:, 0]
        return self._gated(y, u, gate), Selective(recent, hidden)

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """channels · (state + kernel − 1) numbers a sequence."""
        size = torch.promote_types(self.skip.dtype, torch.float32).itemsize
        return self.convolution.state_bytes(batch) + batch * self.log_decay.numel() * size
