"""A decoder-only transformer of a few ten thousand parameters, for experiments that train hundreds of them.

Pre-norm blocks with RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467), rotary positions (Su et al. 2021, arXiv
2104.09864) and SwiGLU (Shazeer 2020, arXiv 2002.05202), as in Llama.

Alone a small model waits for operations to start; stacked it waits for memory, since no activation of all models fits a
cache. So the form has few passes over activations: the gain of a norm is multiplied into the weights that follow, the
mean square is a reduction that writes nothing large, queries and keys are turned together by one complex product, and
attention is one kernel (causal_attention).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, silu

from claimbench.blocks.causal_attention import causal_attention

EPSILON = 1e-6  # beside the mean square in a norm


class TinyTransformer(nn.Module):
    """Causal language model: ids [batch, time] to logits [batch, time, vocabulary].

    layers: blocks. width: of the residual stream. hidden: of the MLP (default: 8/3 width for SwiGLU, 4 width for GELU,
    rounded up to a multiple of 8, so both have about 8 width^2 weights). context: the longest sequence. tied: the
    embedding is the output matrix too. Weights come from torch's default generator. Output projections start smaller
    by (2 x layers)^-1/2 (Radford et al. 2019, section 2.3).
    """

    def __init__(
        self,
        *,
        vocabulary: int = 256,
        layers: int = 2,
        width: int = 32,
        heads: int = 4,
        context: int = 64,
        hidden: int | None = None,
        mlp: Literal["swiglu", "gelu"] = "swiglu",
        positions: Literal["rotary", "learned"] = "rotary",
        tied: bool = True,
    ) -> None:
        super().__init__()
        if width % heads or (positions == "rotary" and width // heads % 2):
            raise ValueError(
                f"width {width} must be heads {heads} times a whole number, an even one for rotary"
            )
        if hidden is None:
            hidden = -(-(8 * width // 3 if mlp == "swiglu" else 4 * width) // 8) * 8
        self.context = context
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(context, width)) if positions == "learned" else None
        self.blocks = nn.ModuleList(
            _Block(width, heads, hidden, mlp, context, rotary=positions == "rotary") for _ in range(layers)
        )
        self.gain = nn.Parameter(torch.ones(width))
        self.output = None if tied else nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=width**-0.5 / 2)
            if name.endswith(("attention_out.weight", "mlp_out.weight")):
                with torch.no_grad():
                    parameter.mul_((2 * layers) ** -0.5)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Logits of the id after each position. Raises ValueError if the sequence is longer than the context."""
        time = ids.shape[-1]
        if time > self.context:
            raise ValueError(f"a sequence of {time} is longer than the context of {self.context}")
        x = self.embedding(ids)
        if self.positions is not None:
            x = x + self.positions[:time]
        for block in self.blocks:
            x = block(x)
        words = self.embedding.weight if self.output is None else self.output.weight
        return linear(normalise(x), words * self.gain)

    def parameter_count(self, *, embeddings: bool = True) -> int:
        """Parameters; without `embeddings` those of the blocks and the last norm alone (Kaplan et al.'s N)."""
        inner = [*self.blocks.parameters(), self.gain]
        return sum(parameter.numel() for parameter in (self.parameters() if embeddings else inner))


class _Block(nn.Module):
    """Attention and an MLP, each behind an RMSNorm and added to the residual stream."""

    turns: Tensor | None

    def __init__(self, width: int, heads: int, hidden: int, mlp: str, context: int, *, rotary: bool) -> None:
        super().__init__()
        self.heads, self.gated = heads, mlp == "swiglu"
        self.attention_gain = nn.Parameter(torch.ones(width))
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_gain = nn.Parameter(torch.ones(width))
        self.mlp_in = nn.Linear(width, (2 if self.gated else 1) * hidden, bias=False)
        self.mlp_out = nn.Linear(hidden, width, bias=False)
        self.register_buffer("turns", _turns(context, width // heads) if rotary else None, persistent=False)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        batch, time, width = x.shape
        mixed = linear(normalise(x), self.attention_in.weight * self.attention_gain)
        pairs, value = mixed.view(batch, time, 3, self.heads, -1).split([2, 1], dim=2)
        if self.turns is not None:
            pairs = rotate(pairs, self.turns[:time, None, None])
        query, key = pairs.transpose(1, 3).unbind(2)
        attended = causal_attention(query, key, value.squeeze(2).transpose(1, 2))
        x = x + self.attention_out(attended.transpose(1, 2).reshape(batch, time, width))
        inside = linear(normalise(x), self.mlp_in.weight * self.mlp_gain)
        if self.gated:
            gate, inside = inside.chunk(2, dim=-1)
            inside = silu(gate) * inside
        else:
            inside = gelu(inside)
        return x + self.mlp_out(inside)


def normalise(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """x over its root mean square: RMSNorm before its gain (Zhang & Sennrich 2019, equation 4)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * torch.rsqrt(length * length / x.shape[-1] + EPSILON)


def _turns(context: int, head: int) -> Float[Tensor, "context half 2"]:
    """Cosine and sine of the angle at each position for each pair of a head's coordinates."""
    angles = torch.arange(context)[:, None] * 10000.0 ** (-torch.arange(0, head, 2) / head)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Float[Tensor, "... head"], turns: Float[Tensor, "... half 2"]) -> Float[Tensor, "... head"]:
    """Turn coordinates 2i and 2i + 1 by the angle whose cosine and sine are `turns` (Su et al. 2021, equation 34)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(turns)).flatten(-2)


def token_loss(
    logits: Float[Tensor, "batch time vocabulary"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood in nats per token."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten())
