"""Whole models from mixers: pre-norm residual blocks, an encoder, a head, and the same model token by token.

Blocks take any mixer (`claimbench.blocks.mixers`), so that arms differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Block(nn.Module):
    """x + mixer(norm(x)), then, if hidden > 0, x + feed-forward(norm(x)) with that many hidden units."""

    def __init__(self, features: int, mixer: Any, *, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(features), mixer  # any module with the four methods of a mixer
        self.feed_forward = (
            nn.Sequential(
                nn.LayerNorm(features),
                nn.Linear(features, hidden),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, features),
            )
            if hidden
            else None
        )

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        x = x + self.mixer(self.norm(x))
        return self._feed(x)

    def _feed(self, x: Tensor) -> Tensor:
        return x if self.feed_forward is None else x + self.feed_forward(x)

    def step(
        self, x: Float[Tensor, "batch features"], state: Any
    ) -> tuple[Float[Tensor, "batch features"], Any]:
        """One token; `forward` at that position."""
        mixed, state = self.mixer.step(self.norm(x), state)
        x = x + mixed
        return self._feed(x), state


class SequenceModel(nn.Module):
    """Encoder, blocks, norm, head. inputs: a number of channels (real sequences) or, with tokens=True, of symbols.

    readout "last" or "mean" gives one output a sequence [batch, outputs]; "all" gives one a position. positions adds
    fixed sinusoids (no parameters), which attention needs and recurrences do not.
    """

    def __init__(
        self,
        features: int,
        blocks: Sequence[Block],
        *,
        inputs: int,
        outputs: int,
        tokens: bool = False,
        positions: bool = False,
        readout: Literal["last", "mean", "all"] = "last",
    ) -> None:
        super().__init__()
        self.encoder: nn.Module = nn.Embedding(inputs, features) if tokens else nn.Linear(inputs, features)
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, outputs)
        self.features, self.positions, self.readout = features, positions, readout

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, length] symbols or [batch, length, inputs] reals."""
        hidden = self.encoder(x)
        if self.positions:
            hidden = hidden + sinusoids(torch.arange(x.shape[1], device=x.device), self.features)
        for block in self.blocks:
            hidden = block(hidden)
        if self.readout == "last":
            hidden = hidden[:, -1]
        hidden = self.norm(hidden)
        out: Tensor = self.head(hidden.mean(1) if self.readout == "mean" else hidden)
        return out

    @property
    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def init_state(self, batch: int) -> list[Any]:
        """One state a block, before the first token."""
        return [block.mixer.init_state(batch) for block in self._blocks]

    def step(self, x: Tensor, state: list[Any], position: int = 0) -> tuple[Tensor, list[Any]]:
        """One token a sequence: x [batch] symbols or [batch, inputs] reals; position counts from 0."""
        hidden = self.encoder(x)
        if self.positions:
            hidden = hidden + sinusoids(torch.tensor([position], device=x.device), self.features)[0]
        following = []
        for block, held in zip(self._blocks, state, strict=True):
            hidden, held = block.step(hidden, held)
            following.append(held)
        return self.head(self.norm(hidden)), following

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """Bytes that all blocks hold after `length` tokens."""
        return sum(int(block.mixer.state_bytes(batch, length)) for block in self._blocks)


def sinusoids(positions: Tensor, features: int) -> Float[Tensor, "length features"]:
    """Fixed sine and cosine position codes (Vaswani et al. 2017, arXiv 1706.03762, Section 3.5)."""
    half = (features + 1) // 2
    scale = 10_000.0 ** (-torch.arange(half, device=positions.device) / half)
    angle = positions[:, None] * scale
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :features].to(torch.get_default_dtype())


def count_parameters(model: nn.Module) -> int:
    """Real numbers that are trained."""
    return sum(int(p.numel()) for p in model.parameters() if p.requires_grad)


def match_parameters(build: Callable[[int], nn.Module], target: int) -> int:
    """The width whose model has the number of parameters nearest `target`; build(width) must grow with width."""
    with torch.random.fork_rng(devices=[]):
        high = 1
        while count_parameters(build(high)) < target:
            high *= 2
        low = high // 2 + 1
        while low < high:
            middle = (low + high) // 2
            if count_parameters(build(middle)) < target:
                low = middle + 1
            else:
                high = middle
        return min((max(high - 1, 1), high), key=lambda width: abs(count_parameters(build(width)) - target))
