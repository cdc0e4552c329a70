"""The instrument: a table of what a classifier's concepts are made of, for a model and images of one's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import nn

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.bayesian_generalization.attributes import (
    ORDERINGS,
    attribute_scores,
    descending,
    description_entropy,
    representativeness,
)
from claimbench.papers.theory.bayesian_generalization.complexity import accuracy_curves, subjective_complexity
from claimbench.papers.theory.bayesian_generalization.network import (
    Features,
    build_network,
    fit_head,
    pooled_features,
    train_network,
)
from claimbench.papers.theory.bayesian_generalization.visual import visual_entropy

THRESHOLD, STAY = 0.9, 3
"""Share of the unmasked accuracy that a description must reach, and for how many further attributes."""
SHOWN = 8  # images of a concept that its visual complexity is the mean of
EPOCHS, BATCH = 20, 64
"""Of the small network, where no encoder is given."""


@dataclass(frozen=True)
class Concept:
    """One class of a classifier."""

    name: str
    complexity: int
    """How many attributes recognise it, in the order asked for."""
    accuracy: float
    """Top-1 on its held-back images, with all attributes."""
    attributes: tuple[int, ...]
    """Its channels by that order, first first, as many as `complexity`."""
    representativeness: tuple[float, ...]
    """R of these channels."""
    entropy: float
    """Of P(.|c), in bits."""
    visual: float
    """Visual complexity of its images, in bits."""


def describe_concepts(
    features: Features | None,
    head: nn.Linear | None,
    pixels: Float32[np.ndarray, "images channels height width"],
    labels: Int[np.ndarray, " images"],
    *,
    names: tuple[str, ...] = (),
    ordering: str = "roa",
    threshold: float = THRESHOLD,
    stay: int = STAY,
    seed: int = 0,
    device: str = "cpu",
) -> list[Concept]:
    """Every concept's description, shortest first: attributes are ordered on every other image of a class, and counted
    on the rest.

        features, head = nn.Sequential(*list(resnet.children())[:-2]), resnet.fc
        for concept in describe_concepts(features, head, images.pixels, images.labels): print(concept)

    features: images in 0..1 to activations [images, channels, ...]; None trains the claims' small network on the
    ordering's images. head: on their spatial average; None fits one on the same images.
    Raises UserError for an unknown ordering, a class of fewer than two images, and a head with too few classes.
    """
    if ordering not in ORDERINGS:
        raise UserError(
            f'ordering = "{ordering}"{nearest(ordering, ORDERINGS)}; one of {", ".join(ORDERINGS)}'
        )
    concepts = int(labels.max()) + 1
    rank = np.zeros(len(labels), dtype=int)
    for label in range(concepts):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            raise UserError(f"class {names[label] if names else label} has {len(own)} images; two are needed")
        rank[own] = np.arange(len(own))
    first = rank % 2 == 0
    if features is None:
        torch.manual_seed(seed)
        network = build_network("small", pixels.shape[1], concepts, width=16, attributes=64)
        train_network(
            network, pixels[first], labels[first], epochs=EPOCHS, batch=BATCH, seed=seed, device=device
        )
        features, head = network.features, network.head
    maximum, average = pooled_features(features, pixels, device=device)
    if head is None:
        weight, bias = fit_head(average[first], labels[first])
    elif head.out_features < concepts:
        raise UserError(f"the head has {head.out_features} classes, the images {concepts}; give None as head")
    else:
        weight = head.weight.detach().double().cpu().numpy()
        bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().double().cpu().numpy()
    if len(weight) > concepts:  # classes that the images do not show are no concepts here
        weight, bias = weight[:concepts], bias[:concepts]
    scores = attribute_scores(maximum[first], labels[first], concepts)
    orders = descending(ORDERINGS[ordering](scores, average[first], labels[first], weight))
    curves = accuracy_curves(average[~first], labels[~first], orders, weight, bias)
    counts = subjective_complexity(curves, threshold=threshold, stay=stay)
    ratio, entropies = representativeness(scores), description_entropy(scores)
    found = []
    for concept in np.argsort(counts, kind="stable").tolist():
        own = orders[concept, : counts[concept]]
        shown = pixels[labels == concept][:SHOWN]
        found.append(
            Concept(
                names[concept] if names else str(concept),
                int(counts[concept]),
                float(curves[concept, -1]),
                tuple(own.tolist()),
                tuple(float(value) for value in ratio[concept, own]),
                float(entropies[concept]),
                float(visual_entropy(shown).mean()),
            )
        )
    return found
