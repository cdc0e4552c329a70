"""Multi-query associative recall (MQAR): repeat, for each key, the value that it was bound to earlier.

Arora et al. 2023 (Zoology), arXiv 2312.04927, Section 5 and Algorithm 1, with the defaults of the official generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

IGNORED = -100  # torch's cross-entropy passes over these labels
FILLER = 0
POWER = 0.01

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def stream(seed: int, split: Split) -> torch.Generator:
    """The generator of a seed's split: no two seeds or splits share a stream."""
    state = np.random.SeedSequence([seed, SPLITS.index(split)]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


@dataclass(frozen=True)
class Recall:
    """Sequences of `pairs` key-value pairs, then each key once more at a drawn place; its label is its value.

    Tokens: 0 fills; keys are 1 … vocabulary/2 − 1, values vocabulary/2 … vocabulary − 1, distinct within a sequence.
    The gap from the pairs to a key's query is 2g tokens, where g < (length − 2·pairs)/2 is drawn with probability
    ∝ (g + 1)^(power − 1), no two alike. random_non_queries replaces what still is filler by any symbol: the queries
    must then be told from noise. key_weights, value_weights: how often each key and value is drawn; default: equally.
    Raises ValueError for lengths or vocabularies that do not fit.
    """

    vocabulary: int
    length: int
    pairs: int
    power: float = POWER
    random_non_queries: bool = True
    key_weights: Float[Tensor, " keys"] | None = None
    value_weights: Float[Tensor, " values"] | None = None

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.length % 2 or self.length < 4 * self.pairs:
            raise ValueError(
                f"length {self.length} with {self.pairs} pairs: it must be even and at least 4 tokens a pair"
            )
        if self.key_weights is None and self.value_weights is None and self.vocabulary <= self.length:
            raise ValueError(f"vocabulary {self.vocabulary} must exceed the length {self.length}")
        for name, symbols in (("keys", self.keys), ("values", self.values)):
            if len(symbols) < self.pairs:
                raise ValueError(f"{len(symbols)} {name} are too few for {self.pairs} distinct ones")

    @property
    def keys(self) -> range:
        """The symbols that are keys."""
        return range(1, self.vocabulary // 2 if self.key_weights is None else 1 + len(self.key_weights))

    @property
    def values(self) -> range:
        """The symbols that are values."""
        if self.value_weights is None:
            return range(self.vocabulary // 2, self.vocabulary)
        return range(self.keys.stop, self.keys.stop + len(self.value_weights))

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "count length"], Int[Tensor, "count length"]]:
        """`count` sequences, and labels: the value at a key's second place, IGNORED elsewhere."""
        keys = self.keys.start + _distinct(
            self._weights(self.keys, self.key_weights), count, self.pairs, generator
        )
        values = self.values.start + _distinct(
            self._weights(self.values, self.value_weights), count, self.pairs, generator
        )
        context = 2 * self.pairs
        places = (self.length - context) // 2
        nearness = torch.arange(1, places + 1, dtype=torch.float64) ** (self.power - 1)
        queries = context + 2 * _distinct(nearness, count, self.pairs, generator)
        inputs = torch.full((count, self.length), FILLER)
        inputs[:, 0:context:2], inputs[:, 1:context:2] = keys, values
        inputs.scatter_(1, queries, keys)
        labels = torch.full_like(inputs, IGNORED).scatter_(1, queries, values)
        if self.random_non_queries:
            noise = torch.randint(self.values.stop, inputs.shape, generator=generator)
            inputs = torch.where(inputs == FILLER, noise, inputs)
        return inputs, labels

    @staticmethod
    def _weights(symbols: range, weights: Tensor | None) -> Tensor:
        return torch.ones(len(symbols), dtype=torch.float64) if weights is None else weights.double()

    def batches(self, count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Fresh batches without end."""
        while True:
            yield self.draw(count, generator)


def recall_of(
    bindings: Iterable[tuple[str, str]], *, length: int, pairs: int, random_non_queries: bool = True
) -> tuple[Recall, list[str]]:
    """Recall over your own keys and values, each drawn as often as `bindings` hold it; and what the symbols mean.

    Which value a key has is drawn anew for each sequence: a fixed table could be learnt by heart, and nothing would
    have to be recalled. Raises ValueError for fewer than `pairs` distinct keys or values.
    """
    counted = list(bindings)
    keys = Counter(key for key, _ in counted)
    values = Counter(value for _, value in counted)
    names = ["", *keys, *values]
    task = Recall(
        len(names),
        length,
        pairs,
        random_non_queries=random_non_queries,
        key_weights=torch.tensor(list(keys.values()), dtype=torch.float64),
        value_weights=torch.tensor(list(values.values()), dtype=torch.float64),
    )
    return task, names


def _distinct(
    weights: Float[Tensor, " choices"], count: int, size: int, generator: torch.Generator
) -> Int[Tensor, "count size"]:
    """`size` distinct choices a row, drawn one after the other with these weights (Efraimidis and Spirakis 2006).

    Exponential clocks with the weights as rates: the order in which they ring is that of drawing without replacement.
    """
    clocks = torch.empty(count, len(weights), dtype=torch.float64).exponential_(generator=generator)
    return (clocks / weights).topk(size, dim=1, largest=False, sorted=True).indices
