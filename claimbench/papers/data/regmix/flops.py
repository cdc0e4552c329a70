"""How many floating-point operations a choice of mixture takes, with and without the language-model head.

A matrix of N parameters costs 2N operations a token forward and 4N backward. What "a model of 1M parameters" means
decides the result: RegMix counts the blocks alone, and its head of vocabulary x width is ten times as large.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """A Llama-style model: attention of four width x width matrices, and a gated MLP of three width x hidden."""

    layers: int
    width: int
    hidden: int
    vocabulary: int
    context: int

    @property
    def body(self) -> int:
        """Parameters of the blocks' matrices: all that "non-embedding parameters" counts but the norms."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.hidden)

    @property
    def head(self) -> int:
        """Parameters of the head. The embedding is as large, but looking a token up costs nothing."""
        return self.vocabulary * self.width

    @property
    def scores(self) -> float:
        """Multiplications a token of causal attention's two products of activations, QK^T and AV, on average."""
        return self.layers * 2 * self.width * (self.context + 1) / 2

    def training(self, tokens: float, *, head: bool, scores: bool = False) -> float:
        """FLOPs of training on `tokens`: 6 for each multiplication of the forward pass."""
        return 6.0 * tokens * (self.body + head * self.head + scores * self.scores)


def doremi(body: float, head: float, tokens: float) -> tuple[float, float]:
    """FLOPs of DoReMi (Xie et al. 2023, arXiv 2305.10429) without and with the head.

    A reference model is trained (6N a token), then a proxy (6N), while the reference scores its batches (2N).
    body, head: parameters of both models. tokens: of each of the two trainings.
    """
    return 14 * body * tokens, 14 * (body + head) * tokens
