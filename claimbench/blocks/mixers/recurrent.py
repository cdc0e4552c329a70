"""Recurrent networks as mixers, by torch's own kernels. LSTM: Hochreiter and Schmidhuber 1997; GRU: Cho et al. 2014,
arXiv 1406.1078."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LSTM(nn.Module):
    """One LSTM layer of `hidden` units, projected back to `features`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.out = nn.Linear(hidden, features)
        with torch.no_grad():  # remember by default: a forget gate that starts open (Jozefowicz et al. 2015)
            for name in ("bias_ih_l0", "bias_hh_l0"):
                self.lstm.get_parameter(name)[hidden : 2 * hidden] = 0.5

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        out: Tensor = self.out(self.lstm(x)[0])
        return out

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        zero = self.out.weight.new_zeros(1, batch, self.lstm.hidden_size)
        return zero, zero.clone()

    def step(
        self, x: Float[Tensor, "batch features"], state: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch features"], tuple[Tensor, Tensor]]:
        """One token."""
        y, state = self.lstm(x[:, None], state)
        return self.out(y[:, 0]), state

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        return 2 * batch * self.lstm.hidden_size * self.out.weight.element_size()


class GRU(nn.Module):
    """One GRU layer of `hidden` units, projected back to `features`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, hidden, batch_first=True)
        self.out = nn.Linear(hidden, features)

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        out: Tensor = self.out(self.gru(x)[0])
        return out

    def init_state(self, batch: int) -> Float[Tensor, "one batch hidden"]:
        return self.out.weight.new_zeros(1, batch, self.gru.hidden_size)

    def step(
        self, x: Float[Tensor, "batch features"], state: Float[Tensor, "one batch hidden"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "one batch hidden"]]:
        """One token."""
        y, state = self.gru(x[:, None], state)
        return self.out(y[:, 0]), state

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        return batch * self.gru.hidden_size * self.out.weight.element_size()
