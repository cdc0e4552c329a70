"""Subjective complexity: how many of a concept's attributes a frozen head needs to recognise it (arXiv 2211.11033).

The feature map's channels are masked before average pooling and the head. Pooling is linear over channels, so that the
logits with the first K channels of an order are the head's bias and a cumulative sum: all K at once.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError
from claimbench.papers.theory.bayesian_generalization.attributes import Orders, Scores

AT_ONCE = 8_000_000  # numbers in the largest temporary array
EXHAUSTIVE = 16  # 2^16 subsets of attributes
OTHERS = 400  # images of other concepts: a share is then known to 0.025 at worst

Activations = Float[np.ndarray, "images attributes"]
Vector = Float[np.ndarray, " attributes"]


def masked_logits(
    average: Activations,
    order: Int[np.ndarray, " attributes"],
    weight: Scores,
    bias: Float[np.ndarray, " concepts"],
    fill: Vector | None = None,
) -> Float[np.ndarray, "images kept concepts"]:
    """Logits with the first 0, 1, ..., all attributes of an order kept, the others set to `fill` (default: zero).

    kept = attributes + 1: the first is the bias alone, the last the unmasked head.
    """
    base = bias.astype(np.float64)
    kept = average.astype(np.float64)
    if fill is not None:
        base = base + weight @ fill
        kept = kept - fill
    parts = kept[:, order, None] * weight.T[order]
    logits = np.empty((len(average), len(order) + 1, len(weight)))
    logits[:, 0] = base
    np.cumsum(parts, axis=1, out=logits[:, 1:])
    logits[:, 1:] += base
    return logits


def accuracy_curves(
    average: Activations,
    labels: Int[np.ndarray, " images"],
    orders: Orders,
    weight: Scores,
    bias: Float[np.ndarray, " concepts"],
    fill: Vector | None = None,
) -> Float[np.ndarray, "concepts kept"]:
    """Top-1 accuracy on each concept's images with its first K attributes, K = 0 .. attributes.

    Raises UserError for a concept without images.
    """
    curves = []
    for concept in range(len(weight)):
        own = average[labels == concept]
        if not len(own):
            raise UserError(f"concept {concept} has no image to be recognised in; give it one")
        curves.append(_share_called(own, concept, orders[concept], weight, bias, fill))
    return np.stack(curves)


def balanced_curves(
    average: Activations,
    labels: Int[np.ndarray, " images"],
    orders: Orders,
    weight: Scores,
    bias: Float[np.ndarray, " concepts"],
) -> Float[np.ndarray, "concepts kept"]:
    """Mean of two shares under each concept's mask: its own images called by its name, and others not called so.

    At most 400 others are looked at, evenly spread. `accuracy_curves` looks at a concept's own images alone, where a
    mask that calls everything by its name is perfect.
    """
    own = accuracy_curves(average, labels, orders, weight, bias)
    wrong = []
    for concept in range(len(weight)):
        others = np.flatnonzero(labels != concept)
        others = others[:: -(-len(others) // OTHERS)]
        wrong.append(_share_called(average[others], concept, orders[concept], weight, bias, None))
    return (own + 1 - np.stack(wrong)) / 2


def _share_called(
    images: Activations,
    concept: int,
    order: Int[np.ndarray, " attributes"],
    weight: Scores,
    bias: Float[np.ndarray, " concepts"],
    fill: Vector | None,
) -> Float[np.ndarray, " kept"]:
    """Share of images classified as the concept with the first 0, 1, ..., all attributes of an order."""
    concepts, attributes = weight.shape
    part = max(1, AT_ONCE // (concepts * (attributes + 1)))
    called = np.zeros(attributes + 1)
    for first in range(0, len(images), part):
        logits = masked_logits(images[first : first + part], order, weight, bias, fill)
        called += (logits.argmax(axis=2) == concept).sum(axis=0)
    return called / len(images)


def subjective_complexity(
    curves: Float[np.ndarray, "concepts kept"], *, threshold: float = 0.9, stay: int = 3
) -> Int[np.ndarray, " concepts"]:
    """K(c): the least K >= 1 at which accuracy is at least `threshold` of the unmasked one and stays so for the next
    `stay` attributes; all attributes if there is none.

    stay: accuracy is not monotone in K, and the first crossing may be luck (0: take it).
    Raises UserError if threshold lies outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold = {threshold}: a share of the unmasked accuracy, above 0 and at most 1")
    attributes = curves.shape[1] - 1
    above = curves >= threshold * curves[:, -1:]
    padded = np.concatenate([above, np.ones((len(curves), stay), dtype=bool)], axis=1)
    stays = np.lib.stride_tricks.sliding_window_view(padded, stay + 1, axis=1).all(axis=2)
    lasting = np.asarray(stays)[:, 1 : attributes + 1].copy()
    lasting[:, -1] = True
    return lasting.argmax(axis=1) + 1


def greedy_orders(
    average: Activations,
    labels: Int[np.ndarray, " images"],
    weight: Scores,
    bias: Float[np.ndarray, " concepts"],
) -> Orders:
    """Forward selection: each step adds the attribute with the best accuracy on the concept's images, ties broken by
    the concept's mean log probability.

    What an ordering that sees labels and head can do; costs attributes^2 evaluations.
    """
    concepts, attributes = weight.shape
    orders = np.zeros((concepts, attributes), dtype=np.int64)
    for concept in range(concepts):
        own = average[labels == concept].astype(np.float64)
        logits = np.broadcast_to(bias.astype(np.float64), (len(own), concepts)).copy()
        left = np.arange(attributes)
        for step in range(attributes):
            trial = logits[:, None] + own[:, left, None] * weight.T[left]
            right = (trial.argmax(axis=2) == concept).mean(axis=0)
            peak = trial.max(axis=2, keepdims=True)
            normaliser = np.log(np.exp(trial - peak).sum(axis=2)) + peak[..., 0]
            likely = (trial[..., concept] - normaliser).mean(axis=0)
            best = np.lexsort((likely, right))[-1]
            logits = trial[:, best]
            orders[concept, step] = left[best]
            left = np.delete(left, best)
    return orders


def smallest_description(
    average: Activations,
    concept: int,
    weight: Scores,
    bias: Float[np.ndarray, " concepts"],
    *,
    threshold: float = 0.9,
) -> int:
    """The least size of any set of attributes that recognises a concept's images, by trying all sets of up to 16.

    average: images of the concept alone. Raises UserError above 16 attributes.
    """
    attributes = weight.shape[1]
    if attributes > EXHAUSTIVE:
        raise UserError(f"{attributes} attributes: all sets are tried for at most {EXHAUSTIVE}")

    def accuracy(kept: tuple[int, ...]) -> float:
        chosen = list(kept)
        logits = average[:, chosen].astype(np.float64) @ weight[:, chosen].T + bias
        return float((logits.argmax(axis=1) == concept).mean())

    wanted = threshold * accuracy(tuple(range(attributes)))
    for size in range(1, attributes):
        if any(accuracy(kept) >= wanted for kept in combinations(range(attributes), size)):
            return size
    return attributes
