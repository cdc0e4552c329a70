"""What trials share: images of a seed, a network trained on them or the user's encoder, and pooled activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import nn

from claimbench.errors import UserError
from claimbench.papers.theory.bayesian_generalization.network import (
    Features,
    build_network,
    fit_head,
    pooled_features,
    train_network,
)
from claimbench.papers.theory.bayesian_generalization.scenes import (
    concept_space,
    render_concepts,
    render_family,
)
from claimbench.papers.theory.bayesian_generalization.visual import visual_entropy
from claimbench.spec import SubjectRef
from claimbench.subjects import open_subject
from claimbench.trial import Trial

ENTROPY_IMAGES = 30  # a seed's mean entropy is known to a tenth of a bit from these


@dataclass(frozen=True)
class Labelled:
    """Images and classes, numbered from 0."""

    pixels: Float32[np.ndarray, "images channels height width"]
    labels: Int[np.ndarray, " images"]

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def of(self, chosen: np.ndarray) -> Labelled:
        """The images of some classes, renumbered in the order of `chosen`."""
        places = np.flatnonzero(np.isin(self.labels, chosen))
        number = np.full(self.classes, -1)
        number[chosen] = np.arange(len(chosen))
        return Labelled(self.pixels[places], number[self.labels[places]])


def split_classes(images: Labelled, shares: tuple[float, ...], seed: int) -> list[Labelled]:
    """Disjoint parts with these shares of every class' images, drawn by the seed.

    Raises UserError where a class has fewer images than there are parts.
    """
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for label in range(images.classes):
        own = rng.permutation(np.flatnonzero(images.labels == label))
        if len(own) < len(shares):
            raise UserError(f"images: class {label} has {len(own)} images, {len(shares)} or more are needed")
        ends = np.round(np.cumsum(shares) / sum(shares) * len(own)).astype(int)
        for part, places in zip(parts, np.split(own, ends[:-1]), strict=True):
            part.append(places)
    return [Labelled(images.pixels[i], images.labels[i]) for i in (np.concatenate(part) for part in parts)]


def opened_encoder(ref: SubjectRef, device: str) -> tuple[Features, nn.Linear | None]:
    """A user's encoder: a function without arguments that returns (features, head).

    features: images in 0..1 [images, channels, height, width] to activations [images, channels, ...]. head: the
    nn.Linear on their spatial average, classes in the order of the images' classes, or None: one is fitted.
    Raises UserError where it returns something else.
    """
    found = open_subject(ref, device=device)()
    pair = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    features, head = pair
    if not callable(features) or not (head is None or isinstance(head, nn.Linear)):
        raise UserError(
            f"{ref.label}: returned {found!r:.80}; (features, head) with an nn.Linear or None as head"
        )
    if isinstance(features, nn.Module):
        features.to(device).eval()
    return features, head


def drawn(
    data: str,
    images: SubjectRef | None,
    shape: Mapping[str, int],
    seed: int,
) -> tuple[Labelled, Labelled, Labelled]:
    """Training, validation and test images of a seed: of the subject (`images`), of random concepts (`concepts`), or of
    a rendered family. Every seed renders its own; a subject's images are split anew.
    """
    if data == "images":
        if images is None:
            raise UserError('data = "images" needs the subject images')
        found = open_subject(images)
        train, validation, test = split_classes(Labelled(found.pixels, found.labels), (0.5, 0.1, 0.4), seed)
        return train, validation, test
    counts = (shape["train_images"], shape["test_images"], shape["test_images"])
    side = shape["side"]
    parts = []
    for stream, count in enumerate(counts):
        if data == "concepts":
            space = concept_space()
            chosen = np.random.default_rng([seed, 9]).permutation(len(space))[: shape["combinations"]]
            made = render_concepts([space[i] for i in chosen], count=count, side=side, seed=[seed, stream])
        else:
            made = render_family(data, classes=shape["concepts"], count=count, side=side, seed=[seed, stream])
        parts.append(Labelled(*made))
    return parts[0], parts[1], parts[2]


def _trained(
    train: Labelled,
    validation: Labelled | None,
    network: Mapping[str, Any],
    target: float,
    seed: int,
    device: str,
) -> tuple[Features, nn.Linear, float]:
    torch.manual_seed(seed)
    built = build_network(
        network["architecture"],
        train.pixels.shape[1],
        train.classes,
        width=network["width"],
        attributes=network["attributes"],
    )
    epochs = train_network(
        built,
        train.pixels,
        train.labels,
        epochs=network["epochs"],
        batch=network["batch"],
        learning_rate=network["learning_rate"],
        seed=seed,
        device=device,
        held_out=None if validation is None else (validation.pixels, validation.labels),
        target=target,
    )
    return built.features, built.head, epochs


def _head(head: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias
    return head.weight.detach().double().cpu().numpy(), bias.detach().double().cpu().numpy()


def build_recognition(
    folder: Path,
    *,
    data: str,
    images: SubjectRef | None,
    encoder: SubjectRef | None,
    shape: dict[str, int],
    network: dict[str, Any],
    target: float,
    seed: int,
    device: str,
) -> None:
    """Pooled activations of a seed's training and test images, the head, and the images' mean visual entropy.

    target: validation accuracy at which training stops (1: it runs to its end).
    """
    train, validation, test = drawn(data, images, shape, seed)
    epochs = 0.0
    if encoder is None:
        features, linear, epochs = _trained(train, validation, network, target, seed, device)
        head = _head(linear)
    else:
        features, given = opened_encoder(encoder, device)
        if given is not None and given.out_features != train.classes:
            raise UserError(
                f"encoder: its head has {given.out_features} classes, the images {train.classes}; return None as head "
                "and one is fitted"
            )
        head = _head(given) if given is not None else (np.zeros(0), np.zeros(0))
    maximum, average = pooled_features(features, train.pixels, device=device)
    _, test_average = pooled_features(features, test.pixels, device=device)
    if not len(head[0]):
        head = fit_head(average, train.labels)
    spread = test.pixels[:: max(1, len(test.pixels) // ENTROPY_IMAGES)]
    np.savez(
        folder / "recognition.npz",
        maximum=maximum,
        average=average,
        labels=train.labels,
        test_average=test_average,
        test_labels=test.labels,
        weight=head[0],
        bias=head[1],
        entropy=visual_entropy(spread, side=shape["entropy_side"]).mean(),
        epochs=epochs,
    )


def build_episodes_pools(
    folder: Path,
    *,
    images: SubjectRef | None,
    encoder: SubjectRef | None,
    shape: dict[str, int],
    network: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    """Pooled activations of base and new concepts. The network is trained on the base concepts alone (half of them).

    Of new concepts, `learnt` images fit a head and measure subjective complexity; episodes are of `new` images. Of base
    concepts, `base` images are the background and `spare` ones serve tuning.
    """
    parts = drawn("concepts" if images is None else "images", images, shape, seed)
    train, test = parts[0], parts[2]
    halves = np.array_split(np.random.default_rng([seed, 5]).permutation(train.classes), 2)
    pools = {
        "base": train.of(halves[0]),
        "spare": test.of(halves[0]),
        "learnt": train.of(halves[1]),
        "new": test.of(halves[1]),
    }
    if encoder is None:
        features, _, _ = _trained(pools["base"], None, network, 1.0, seed, device)
    else:
        features, _ = opened_encoder(encoder, device)
    arrays: dict[str, Any] = {}
    for name, pool in pools.items():
        maximum, average = pooled_features(features, pool.pixels, device=device)
        arrays |= {f"{name}_maximum": maximum, f"{name}_average": average, f"{name}_labels": pool.labels}
    weight, bias = fit_head(arrays["learnt_average"], pools["learnt"].labels)
    np.savez(folder / "pools.npz", learnt_weight=weight, learnt_bias=bias, **arrays)


def subject_of(trial: Trial, name: str) -> SubjectRef | None:
    return trial.subject.ref(name) if name in trial.subject else None


def shape_of(trial: Trial) -> dict[str, int]:
    return {
        name: trial.size[name]
        for name in ("concepts", "combinations", "train_images", "test_images", "side", "entropy_side")
    }


def network_of(trial: Trial) -> dict[str, Any]:
    return {
        name: trial.size[name]
        for name in ("architecture", "width", "attributes", "epochs", "batch", "learning_rate")
    }


def loaded(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / name) as arrays:
        return dict(arrays)
