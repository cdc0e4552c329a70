"""Attributes of concepts: channels of a frozen network, and how representative each is of each concept.

Shi, Xu, Hopcroft, He, Tenenbaum, Zhu, Wu, Han and Zhu, "On the Complexity of Bayesian Generalization", 2023, arXiv
2211.11033. A channel a of the last feature map is an attribute, a class c a concept. S[c, a] >= 0 is the attribute's
mean over images of the concept of its largest activation in the image. With P(a|c) = S[c,a] / sum_a S[c,a] and
P(c|a) = S[c,a] / sum_c S[c,a], the representativeness of an attribute is

    R(a, c) = P(a|c) / sum_{c' != c} P(c'|a) = P(a|c) / (1 - P(c|a)),

Tenenbaum and Griffiths' (2001) likelihood against the average alternative, with one attribute as datum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from claimbench.errors import UserError

EPSILON = 1e-12

Scores = Float[np.ndarray, "concepts attributes"]
Orders = Int[np.ndarray, "concepts attributes"]


def attribute_scores(
    maximum: Float[np.ndarray, "images attributes"],
    labels: Int[np.ndarray, " images"],
    concepts: int,
    *,
    images: int = 50,
) -> Scores:
    """S: each concept's mean activation of each attribute, over its first `images` images.

    maximum: activations after a spatial maximum; negative ones count as 0, since scores are shares of something.
    Raises UserError for a concept without images.
    """
    rows = []
    for concept in range(concepts):
        own = maximum[labels == concept][:images]
        if not len(own):
            raise UserError(f"concept {concept} has no image to score its attributes on; give it one")
        rows.append(np.maximum(own, 0.0).mean(axis=0, dtype=np.float64))
    return np.stack(rows)


def attribute_given_concept(scores: Scores) -> Scores:
    """P(a|c): rows sum to 1, or are 0 for a concept that activates nothing."""
    return scores / np.maximum(scores.sum(axis=1, keepdims=True), EPSILON)


def concept_given_attribute(scores: Scores) -> Scores:
    """P(c|a): columns sum to 1, or are 0 for a channel that is dead."""
    return scores / np.maximum(scores.sum(axis=0, keepdims=True), EPSILON)


def representativeness(scores: Scores) -> Scores:
    """R(a, c) >= 0, at most P(a|c) / 1e-12 (an attribute that no other concept has). 0 for dead channels."""
    return attribute_given_concept(scores) / np.maximum(1.0 - concept_given_attribute(scores), EPSILON)


def description_entropy(scores: Scores) -> Float[np.ndarray, " concepts"]:
    """Shannon entropy of P(.|c) in bits: the other description length in the released code."""
    shares = attribute_given_concept(scores)
    return -(shares * np.log2(np.maximum(shares, EPSILON))).sum(axis=1)


def descending(values: Scores) -> Orders:
    """Attributes of each concept, largest value first; equal ones in the order of the channels."""
    return np.argsort(-values, axis=1, kind="stable")


def analysis_of_variance(
    average: Float[np.ndarray, "images attributes"], labels: Int[np.ndarray, " images"], concepts: int
) -> Scores:
    """Two-group F of each attribute, this concept against the rest; 0 where the attribute is lower on the concept.

    Equal to scikit-learn's `f_classif` on the binary label, for all concepts at once.
    """
    member = (labels[:, None] == np.arange(concepts)).astype(np.float64)
    inside, total = member.sum(axis=0)[:, None], len(labels)
    values = average.astype(np.float64)
    sums = member.T @ values
    high = sums / inside
    low = (values.sum(axis=0) - sums) / (total - inside)
    grand = values.mean(axis=0)
    between = inside * (high - grand) ** 2 + (total - inside) * (low - grand) ** 2
    within = ((values - grand) ** 2).sum(axis=0) - between
    ratio = between * (total - 2) / np.maximum(within, EPSILON)
    return np.where(high > low, ratio, 0.0)


def mutual_information(
    average: Float[np.ndarray, "images attributes"],
    labels: Int[np.ndarray, " images"],
    concepts: int,
    *,
    bins: int = 8,
) -> Scores:
    """Mutual information in bits of each attribute, in `bins` equally filled bins, and membership of each concept."""
    edges = np.quantile(average, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    codes = (average[None] > edges[:, None]).sum(axis=0)
    member = (labels[:, None] == np.arange(concepts)).astype(np.float64)
    cells = (codes[None] == np.arange(bins)[:, None, None]).astype(np.float64)
    joint = np.einsum("ic,bia->bca", member, cells) / len(labels)
    joint = np.stack([joint, cells.mean(axis=1)[:, None] - joint])
    independent = joint.sum(axis=0, keepdims=True) * joint.sum(axis=1, keepdims=True)
    logs = np.log2(np.maximum(joint, EPSILON) / np.maximum(independent, EPSILON))
    return np.where(joint > 0, joint * logs, 0.0).sum(axis=(0, 1))


def weight_times_activation(
    average: Float[np.ndarray, "images attributes"],
    labels: Int[np.ndarray, " images"],
    weight: Scores,
) -> Scores:
    """What each attribute adds to its concept's logit on average, less what it adds to the mean logit.

    The logits' mean over concepts is taken off because only differences of logits decide. weight: the head's.
    """
    member = (labels[:, None] == np.arange(len(weight))).astype(np.float64)
    mean = member.T @ average / np.maximum(member.sum(axis=0)[:, None], 1.0)
    return (weight - weight.mean(axis=0)) * mean


ORDERINGS: dict[str, Callable[..., Scores]] = {
    "roa": lambda scores, average, labels, weight: representativeness(scores),
    "likelihood": lambda scores, average, labels, weight: attribute_given_concept(scores),
    "posterior": lambda scores, average, labels, weight: concept_given_attribute(scores),
    "roa-average-pool": lambda scores, average, labels, weight: representativeness(
        attribute_scores(average, labels, len(weight))
    ),
    "weight-activation": lambda scores, average, labels, weight: weight_times_activation(
        average, labels, weight
    ),
    "head-weight": lambda scores, average, labels, weight: weight - weight.mean(axis=0),
    "anova": lambda scores, average, labels, weight: analysis_of_variance(average, labels, len(weight)),
    "mutual-information": lambda scores, average, labels, weight: mutual_information(
        average, labels, len(weight)
    ),
}
"""What attributes may be ordered by: f(scores, average-pooled activations, labels, head weight), concepts x attributes.

`likelihood` is P(a|c), `posterior` P(c|a); the last four see the head or compare concepts image by image."""
