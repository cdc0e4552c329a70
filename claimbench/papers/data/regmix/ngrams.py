"""Proxy models in a closed form: interpolated byte n-gram models of any mixture, thousands of mixtures at once.

The counts that a run of T tokens on mixture w expects are T sum_k w_k r_k, where r_k are domain k's n-gram rates. They
are linear in w, so that the losses of all mixtures are matrix products over the distinct n-grams of the target.
Smoothing is MacKay & Peto's (1995), a Dirichlet prior of mass b around the next shorter model:

    P_j(x | h) = (c(hx) + b P_{j-1}(x | h')) / (c(h) + b),    P_0 = 1/256,    h' = h without its first byte
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

from claimbench.errors import UserError

LONGEST = 8  # bytes of an n-gram that fit into 64 bits
CELLS = 2_000_000  # probabilities held at once: mixtures times n-grams


def ngrams(text: bytes, order: int) -> UInt64[np.ndarray, " positions"]:
    """The n-gram that ends at each byte from the order-th, packed into 64 bits with the last byte lowest."""
    stream = np.frombuffer(text, dtype=np.uint8).astype(np.uint64)
    packed = np.zeros(max(len(stream) - order + 1, 0), dtype=np.uint64)
    for place in range(order):
        packed = (packed << np.uint64(8)) | stream[place : place + len(packed)]
    return packed


def _rates(
    wanted: UInt64[np.ndarray, " events"],
    known: UInt64[np.ndarray, " known"],
    counts: Int[np.ndarray, " known"],
    total: int,
) -> Float[np.ndarray, " events"]:
    """The share of `total` that each wanted code has among the sorted known ones; 0 where it is not known."""
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, counts[place], 0) / total


@dataclass(frozen=True)
class _Level:
    """What order j needs of the target: its distinct j-grams and contexts, and each domain's rates of both."""

    grams: Float[np.ndarray, "domains events"]
    contexts: Float[np.ndarray, "domains contexts"]
    context: Int[np.ndarray, " events"]  # which context an event has
    shorter: Int[np.ndarray, " events"]  # which event of order j - 1 it ends in


class NgramProxies:
    """Loss on one target text of the n-gram model of every mixture, in nats per byte."""

    def __init__(
        self, domains: Sequence[bytes], target: bytes, *, order: int, pseudocount: float = 4.0
    ) -> None:
        """Count once. order: bytes of the longest n-gram, 1 to 8. pseudocount: b, the mass of the shorter model.

        Raises UserError for an order outside, an empty domain, or texts shorter than an n-gram.
        """
        if not 1 <= order <= LONGEST:
            raise UserError(f"order: {order}; an n-gram has 1 to {LONGEST} bytes")
        if short := [place for place, text in enumerate([*domains, target]) if len(text) < order]:
            raise UserError(f"domains: text {short[0]} has fewer than {order} bytes; give more of it")
        self.order, self.pseudocount = order, float(pseudocount)
        events, weight = np.unique(ngrams(target, order), return_counts=True)
        self._weight = weight / weight.sum()
        levels: list[_Level] = []
        for length in range(order, 0, -1):
            parents, shorter = np.unique(
                events & np.uint64((1 << (8 * (length - 1))) - 1), return_inverse=True
            )
            histories, context = np.unique(events >> np.uint64(8), return_inverse=True)
            grams, contexts = [], []
            for text in domains:
                known, counts = np.unique(ngrams(text, length), return_counts=True)
                starts = np.flatnonzero(np.diff(known >> np.uint64(8), prepend=np.uint64(2**64 - 1)))
                total = int(counts.sum())
                grams.append(_rates(events, known, counts, total))
                contexts.append(
                    _rates(histories, known[starts] >> np.uint64(8), np.add.reduceat(counts, starts), total)
                )
            levels.append(_Level(np.stack(grams), np.stack(contexts), context, shorter))
            events = parents
        self._levels = levels[::-1]

    def probabilities(
        self, mixtures: Float[np.ndarray, "n domains"], tokens: float
    ) -> Float[np.ndarray, "n events"]:
        """P(last byte | the bytes before it) of the target's distinct n-grams, in the order of their codes."""
        below = np.full((len(mixtures), 1), 1 / 256)
        for level in self._levels:
            counted = tokens * (mixtures @ level.grams)
            seen = tokens * (mixtures @ level.contexts)
            below = (counted + self.pseudocount * below[:, level.shorter]) / (seen + self.pseudocount)[
                :, level.context
            ]
        return below

    def losses(self, mixtures: Float[np.ndarray, "n domains"], tokens: float) -> Float[np.ndarray, " n"]:
        """Nats per byte of the target under each mixture's model of `tokens` bytes."""
        mixtures = np.asarray(mixtures, dtype=float)
        step = max(1, CELLS // len(self._weight))
        parts = [
            np.log(self.probabilities(mixtures[start : start + step], tokens)) @ self._weight
            for start in range(0, len(mixtures), step)
        ]
        return -np.concatenate(parts)
