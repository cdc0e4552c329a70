"""Hidden Markov models as language models: sampling, the forward filter, and the next token's law.

Luo, Wang and Huang, "Investigating the Impact of Model Complexity in Large Language Models", 2024, arXiv 2410.00699,
treat an autoregressive language model as one: what it computes from a prefix is a posterior over hidden states, and the
law of the next token is a linear map of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from claimbench.errors import UserError


@dataclass(frozen=True)
class HiddenMarkov:
    """Start law, transitions A and emissions E, float64; every row sums to 1."""

    start: Float[Tensor, " states"]
    transition: Float[Tensor, "states states"]
    emission: Float[Tensor, "states vocabulary"]

    def __post_init__(self) -> None:
        states = len(self.start)
        if self.transition.shape != (states, states) or self.emission.shape[0] != states:
            raise UserError(
                f"start, transition and emission of shapes {tuple(self.start.shape)}, {tuple(self.transition.shape)}, "
                f"{tuple(self.emission.shape)} do not fit: (H,), (H, H) and (H, V)"
            )
        for name in ("start", "transition", "emission"):
            law = getattr(self, name)
            if bool((law < 0).any()) or not torch.allclose(
                law.sum(-1), torch.ones((), dtype=law.dtype).to(law)
            ):
                raise UserError(f"{name}: rows are laws, not negative and of sum 1")

    @property
    def states(self) -> int:
        return len(self.start)


def random_model(
    states: int,
    *,
    vocabulary: int | None = None,
    transition: float = 0.3,
    emission: float = 0.2,
    seed: int | list[int],
    device: str = "cpu",
) -> HiddenMarkov:
    """Rows drawn from symmetric Dirichlet laws of these concentrations, start uniform; default: two tokens a state."""
    rng = np.random.default_rng(seed)
    rows = []
    for size, concentration in (
        (states, transition),
        (2 * states if vocabulary is None else vocabulary, emission),
    ):
        gamma = (
            rng.standard_gamma(concentration, (states, size)) + np.finfo(float).tiny
        )  # never a row of zeros
        rows.append(torch.tensor(gamma / gamma.sum(axis=1, keepdims=True), device=device))
    start = torch.full((states,), 1 / states, dtype=torch.float64, device=device)
    return HiddenMarkov(start, *rows)


def sample_prefixes(
    model: HiddenMarkov, count: int, length: int, generator: torch.Generator
) -> Int[Tensor, "count length"]:
    """Independent sequences of tokens. generator: on the model's device."""
    moves, words = _steps(model.transition), _steps(model.emission)
    first = torch.zeros(count, dtype=torch.int64, device=model.start.device)
    state = _drawn(_steps(model.start[None]), first, model.states, generator)
    tokens = []
    for step in range(length):
        if step:
            state = _drawn(moves, state, model.states, generator)
        tokens.append(_drawn(words, state, model.emission.shape[1], generator))
    return torch.stack(tokens, dim=1)


def _steps(law: Float[Tensor, "rows outcomes"]) -> Float[Tensor, " cells"]:
    """Row r's cumulative sums plus r, one row after the other: one ascending list for all rows, so that a draw is one
    search and no row is copied.
    """
    sums = law.cumsum(1)
    return (sums / sums[:, -1:] + torch.arange(len(law), device=law.device)[:, None]).flatten()


def _drawn(
    steps: Float[Tensor, " cells"], row: Int[Tensor, " count"], outcomes: int, generator: torch.Generator
) -> Int[Tensor, " count"]:
    """One outcome from each row's law."""
    uniform = torch.rand(len(row), dtype=torch.float64, device=row.device, generator=generator)
    place = torch.searchsorted(steps, row + uniform, right=True) - row * outcomes
    return place.clamp_(0, outcomes - 1)  # row + uniform may round up to the next row


def forward_filter(
    model: HiddenMarkov, tokens: Int[Tensor, "count length"]
) -> tuple[Float[Tensor, "count states"], Float[Tensor, " count"]]:
    """b_t(h) = P(h_t = h | x_1..t) after the last token, and log P(x_1..t) in nats.

    b_t(h) is proportional to E(h, x_t) sum_h' b_{t-1}(h') A(h', h).
    Raises UserError for a sequence that the model holds for impossible.
    """
    likelihood = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    belief = model.start.expand(len(tokens), -1)
    for step in range(tokens.shape[1]):
        if step:
            belief = belief @ model.transition
        joint = belief * model.emission.T[tokens[:, step]]
        evidence = joint.sum(1)
        if bool((evidence <= 0).any()):
            raise UserError(f"tokens: a sequence has probability 0 at position {step}")
        likelihood += evidence.log()
        belief = joint / evidence[:, None]
    return belief, likelihood


def next_token_law(
    model: HiddenMarkov, belief: Float[Tensor, "count states"]
) -> Float[Tensor, "count vocabulary"]:
    """q = E' A' b: the law of the next token."""
    return belief @ model.transition @ model.emission


def filter_features(
    model: HiddenMarkov, count: int, length: int, generator: torch.Generator
) -> Float[Tensor, "count states"]:
    """Filters of `count` fresh prefixes. They sum to 1, so that their centred rank is at most states - 1."""
    return forward_filter(model, sample_prefixes(model, count, length, generator))[0]
