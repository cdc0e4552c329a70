"""Byte language models around different mixers, and their loss where a sequence of bytes comes back.

An "AR hit" is a token that completes an n-gram which already stands in the context (Arora et al. 2023, arXiv
2312.04927, Section 3, with pairs of BPE tokens); here the tokens are bytes and n is a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from claimbench.blocks.byte_lm import BOUNDARY, VOCABULARY, windows
from claimbench.blocks.mixers import make_mixer
from claimbench.blocks.training import fit
from claimbench.papers.sequence.based.model import LanguageModel, based_mixers


def language_mixers(
    arm: str, *, features: int, layers: int, heads: int, key_width: int, window: int, state: int, context: int
) -> list[Any]:
    """Each arm's mixers: Based's pattern; Mamba in every layer; full attention with rotary positions in every layer."""
    if arm == "based":
        return based_mixers(layers, features, heads, key_width=key_width, window=window)
    makers: dict[str, Callable[[], Any]] = {
        "mamba": lambda: make_mixer("mamba", features, state=state),
        "attention": lambda: make_mixer("sliding-window", features, heads=heads, window=context),
    }
    return [makers[arm]() for _ in range(layers)]


def bytes_of(text: str) -> Int[Tensor, " bytes"]:
    """A text's bytes as symbols."""
    return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy())


def train(
    model: LanguageModel,
    text: Int[Tensor, " bytes"],
    *,
    steps: int,
    batch: int,
    context: int,
    learning_rate: float,
    seed: int,
    device: str,
) -> float:
    """Train in place on random windows; the loss of the last tenth in nats a byte. FloatingPointError: it diverged."""
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            starts = torch.randint(0, len(text) - context - 1, (batch,), generator=generator)
            drawn = windows(text, starts, context + 1).to(device)
            yield drawn[:, :-1], drawn[:, 1:]

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return fit(model, batches(), steps=steps, learning_rate=learning_rate, weight_decay=0.1, loss=loss)


def repeats(sequences: Int[Tensor, "batch length"], gram: int) -> Bool[Tensor, "batch length"]:
    """Which tokens complete an n-gram of `gram` tokens that stands earlier in the same sequence."""
    symbols = sequences.cpu().numpy().astype(np.int64)
    grams = np.lib.stride_tricks.sliding_window_view(symbols, gram, axis=1)
    codes = np.zeros(grams.shape[:2], dtype=np.int64)
    for place in range(gram):
        codes = codes * (BOUNDARY + 1) + grams[..., place]
    codes += np.arange(len(codes))[:, None] * (VOCABULARY**gram)
    first = np.zeros(codes.size, dtype=bool)
    first[np.unique(codes, return_index=True)[1]] = True
    hits = np.zeros(symbols.shape, dtype=bool)
    hits[:, gram - 1 :] = ~first.reshape(codes.shape)
    return torch.from_numpy(hits).to(sequences.device)


class Losses(NamedTuple):
    """Nats a byte: over all bytes, over AR hits, over the others; and the share of hits predicted right."""

    all: float
    hits: float
    others: float
    accuracy: float


@torch.no_grad()
def losses(
    model: LanguageModel, sequences: Int[Tensor, "batch length"], gram: int, *, at_once: int = 8
) -> Losses:
    """Losses on fresh sequences; the first byte of each is not scored."""
    model.eval()
    nats: list[Float[Tensor, "batch predicted"]] = []
    right: list[Tensor] = []
    for part in sequences.split(at_once):
        logits = model(part[:, :-1]).float()
        nats.append(nn.functional.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none"))
        right.append(logits.argmax(-1) == part[:, 1:])
    every, correct = torch.cat(nats), torch.cat(right)
    hit = repeats(sequences, gram)[:, 1:]
    if not bool(hit.any()) or bool(hit.all()):
        return Losses(float(every.mean()), math.nan, math.nan, math.nan)
    return Losses(
        float(every.mean()),
        float(every[hit].mean()),
        float(every[~hit].mean()),
        float(correct[hit].double().mean()),
    )
