"""Based as a language model, and its stack around other mixers (Arora et al. 2024, arXiv 2402.18668, Appendix E).

Pre-norm blocks of a mixer and a SwiGLU feed-forward part; no absolute positions. Of the mixers about a fifth are
linear attention, a fifth window attention, the rest gated short convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from claimbench.blocks.mixers import make_mixer
from claimbench.papers.sequence.based.layer import taylor_attention

PERIOD = 5  # of five layers the second is linear attention and the third window attention


class GatedFeedForward(nn.Module):
    """SwiGLU: out(silu(g) ⊙ u) with `inner` hidden units (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, features: int, inner: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, 2 * inner, bias=False)
        self.out = nn.Linear(inner, features, bias=False)

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        gate, up = self.project(x).chunk(2, dim=-1)
        out: Tensor = self.out(functional.silu(gate) * up)
        return out


class StackBlock(nn.Module):
    """x + mixer(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, features: int, mixer: Any, inner: int) -> None:
        super().__init__()
        self.mixer_norm, self.norm = nn.RMSNorm(features), nn.RMSNorm(features)
        self.mixer, self.feed_forward = mixer, GatedFeedForward(features, inner)

    def forward(self, x: Float[Tensor, "batch length features"]) -> Float[Tensor, "batch length features"]:
        x = x + self.mixer(self.mixer_norm(x))
        return x + self.feed_forward(self.norm(x))

    def prefill(self, x: Float[Tensor, "batch length features"]) -> tuple[Tensor, Any]:
        """`forward`, and the mixer's state after the last token."""
        mixed, state = self.mixer.prefill(self.mixer_norm(x))
        x = x + mixed
        return x + self.feed_forward(self.norm(x)), state

    def step(self, x: Float[Tensor, "batch features"], state: Any) -> tuple[Tensor, Any]:
        """One token."""
        mixed, state = self.mixer.step(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.feed_forward(self.norm(x)), state


class LanguageModel(nn.Module):
    """Embedding, blocks around the given mixers, norm, and a head tied to the embedding.

    inner: hidden units of each feed-forward part, 2 · features by default.
    """

    def __init__(self, vocabulary: int, features: int, mixers: Sequence[Any], *, inner: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, features)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(StackBlock(features, mixer, inner or 2 * features) for mixer in mixers)
        self.norm = nn.RMSNorm(features)
        with torch.no_grad():  # what is added to the residual stream starts smaller, as in GPT-2
            for block in self.blocks:
                block.feed_forward.out.weight.mul_((2 * len(mixers)) ** -0.5)  # type: ignore[union-attr, operator]  # see above

    @property
    def _stack(self) -> list[StackBlock]:
        return [block for block in self.blocks if isinstance(block, StackBlock)]

    def _logits(self, x: Tensor) -> Tensor:
        return functional.linear(self.norm(x), self.embedding.weight)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length vocabulary"]:
        """Logits of the token after each position."""
        x = self.embedding(tokens)
        for block in self._stack:
            x = block(x)
        return self._logits(x)

    def init_state(self, batch: int) -> list[Any]:
        """One state a block, before the first token."""
        return [block.mixer.init_state(batch) for block in self._stack]

    def prefill(
        self, tokens: Int[Tensor, "batch length"]
    ) -> tuple[Float[Tensor, "batch vocabulary"], list[Any]]:
        """A prompt at once: logits after its last token, and the states to go on from."""
        x, states = self.embedding(tokens), []
        for block in self._stack:
            x, state = block.prefill(x)
            states.append(state)
        return self._logits(x[:, -1]), states

    def step(
        self, tokens: Int[Tensor, " batch"], states: list[Any]
    ) -> tuple[Float[Tensor, "batch vocabulary"], list[Any]]:
        """One token a sequence."""
        x, following = self.embedding(tokens), []
        for block, state in zip(self._stack, states, strict=True):
            x, state = block.step(x, state)
            following.append(state)
        return self._logits(x), following

    def state_bytes(self, batch: int = 1, length: int = 0) -> int:
        """Bytes that all blocks hold after `length` tokens."""
        return sum(int(block.mixer.state_bytes(batch, length)) for block in self._stack)


def based_mixers(
    layers: int, features: int, heads: int, *, key_width: int = 16, window: int = 64, merged: bool = True
) -> list[Any]:
    """Based's mixers in order: layers 1, 6, 11, … linear attention, 2, 7, 12, … windows, all others convolutions.

    Layers count from 0, as in the official configurations; convolutions have 2 · features channels, as there.
    """

    def mixer(index: int) -> Any:
        if index % PERIOD == 1:
            return taylor_attention(features, heads, key_width=key_width, merged=merged)
        if index % PERIOD == 2:
            return make_mixer("sliding-window", features, heads=heads, window=window)
        return make_mixer("base-conv", features, inner=2 * features)

    return [mixer(index) for index in range(layers)]


def based(
    vocabulary: int,
    *,
    features: int,
    layers: int,
    heads: int,
    key_width: int = 16,
    window: int = 64,
    inner: int = 0,
) -> LanguageModel:
    """A Based model. Official: 1,024 features, 27 layers, 16 heads (360M); 1,792, 36, 16 and window 256 (1.3B)."""
    mixers = based_mixers(layers, features, heads, key_width=key_width, window=window)
    return LanguageModel(vocabulary, features, mixers, inner=inner)
