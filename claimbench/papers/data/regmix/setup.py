"""What a trial's sizes and subjects mean to the measures: a seed's domains, its mixtures, and the models on them.

Every seed has its own documents: a twelfth of each domain. The target domain is held out of training; proxies
are judged on one half of its documents, and no search sees the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError, nearest
from claimbench.papers.data.regmix.mixtures import sample_mixtures
from claimbench.papers.data.regmix.ngrams import NgramProxies, ngrams
from claimbench.spec import SubjectRef
from claimbench.subjects import open_subject
from claimbench.subjects.documents import Text
from claimbench.trial import BLOCKS, Trial

TRAINING, TRANSFER = (
    0,
    1,
)  # streams of mixtures: those that regressions see, and those that models are compared on


@dataclass(frozen=True)
class Domains:
    """One seed's text."""

    texts: dict[str, bytes]  # of the training domains, each cut to the scale's limit
    sizes: dict[str, int]  # in bytes, before that cut: the natural proportions
    validation: bytes  # of the target: what proxies are judged on
    test: bytes  # of the target: what no search sees

    @property
    def prior(self) -> Float[np.ndarray, " domains"]:
        sizes = np.array(list(self.sizes.values()), dtype=float)
        return sizes / sizes.sum()


def seed_domains(text: Text, target: str, *, seed: int, domain_bytes: int, target_bytes: int) -> Domains:
    """This seed's share of every domain's documents, the target's in two halves.

    Raises UserError for a text without domains, an unknown target, and domains of fewer than 12 documents (24 the
    target).
    """
    names = [name for name in text.domains if name]
    if len(names) < 3:
        raise UserError(
            f"text: {len(names)} domains; give a folder with a sub-folder for each, three or more: one is the target"
        )
    if target not in names:
        raise UserError(
            f'text: no domain "{target}" to be the target{nearest(target, names)}; give --size target=NAME, one of '
            + ", ".join(names)
        )
    texts, sizes, halves = {}, {}, (b"", b"")
    for name in names:
        documents = [document.text for document in text.documents if document.domain == name]
        needed = BLOCKS * (2 if name == target else 1)
        if len(documents) < needed:
            raise UserError(
                f"text: domain {name} has {len(documents)} documents; {needed} are needed, files or passages"
            )
        own = Trial(arm="", point={}, seed=seed).block(documents)
        if name == target:
            first, second = ("\n\n".join(own[half::2]).encode()[:target_bytes] for half in (0, 1))
            halves = (first, second)
        else:
            joined = "\n\n".join(own).encode()
            texts[name], sizes[name] = joined[:domain_bytes], len(joined)
    return Domains(texts, sizes, *halves)


def model_losses(
    model: Mapping[str, Any],
    domains: Domains,
    mixtures: Float[np.ndarray, "n domains"],
    *,
    seed: int,
    device: str,
) -> Float[np.ndarray, "n 2"]:
    """Loss on the target's validation and test halves of a model trained on each mixture, in nats per byte.

    model: `kind` ("ngram" or "transformer") and that kind's settings; `tokens` is what every model is trained on.
    """
    settings = {name: value for name, value in model.items() if name != "kind"}
    texts, halves = list(domains.texts.values()), (domains.validation, domains.test)
    if model["kind"] == "ngram":
        tokens = settings.pop("tokens")
        parts = [NgramProxies(texts, half, **settings).losses(mixtures, tokens) for half in halves]
        return np.stack(parts, axis=1)
    from claimbench.papers.data.regmix.transformers import mixture_losses

    return mixture_losses(texts, mixtures, halves, seed=seed, device=device, **settings)


def build_runs(
    folder: Path,
    *,
    text: SubjectRef,
    target: str,
    limits: dict[str, int],
    model: dict[str, Any],
    count: int,
    stream: int,
    seed: int,
    device: str,
    repeat: bool = False,
) -> None:
    """Train a model on each of `count` random mixtures, and the unigram model of each beside it.

    repeat: with other initial weights and another order of the data, on the same mixtures.
    """
    domains = seed_domains(open_subject(text), target, seed=seed, **limits)
    mixtures = sample_mixtures(domains.prior, count, seed=[seed, stream])
    losses = model_losses(model, domains, mixtures, seed=seed + 500_000 * repeat, device=device)
    unigram = {"kind": "ngram", "order": 1, "tokens": model["tokens"], "pseudocount": 1.0}
    np.savez(
        folder / "runs.npz",
        mixtures=mixtures,
        prior=domains.prior,
        validation=losses[:, 0],
        test=losses[:, 1],
        unigram=model_losses(unigram, domains, mixtures, seed=seed, device=device)[:, 0],
    )


def model_of(trial: Trial, which: str, kind: str) -> dict[str, Any]:
    """The "proxy" or the "large" model of a trial, of one kind. The point's `length` is how many times a proxy's tokens
    the large model is trained on.
    """
    size = trial.size
    length = float(trial.point["length"]) if which == "large" else 1.0
    if kind == "ngram":
        own = {"order": size[f"{which}_order"], "pseudocount": float(size["pseudocount"])}
        return {"kind": kind, "tokens": length * size["proxy_tokens"], **own}
    if kind != "transformer":
        raise UserError(f'models: "{kind}"; there are ngram and transformer')
    own = {name: size[f"{which}_{name}"] for name in ("layers", "width", "heads", "learning_rate", "chunk")}
    shared = {name: size[name] for name in ("context", "batch")}
    tokens = length * size["proxy_steps"] * size["batch"] * size["context"]
    return {"kind": kind, "tokens": tokens, **own, **shared}


def limits_of(trial: Trial) -> dict[str, int]:
    return {"domain_bytes": trial.size["domain_bytes"], "target_bytes": trial.size["target_bytes"]}


def shared_runs(
    trial: Trial, model: dict[str, Any], count: int, stream: int, *, repeat: bool = False
) -> Mapping[str, np.ndarray]:
    """`build_runs`' arrays for this trial's seed, built once for all arms."""
    folder = trial.shared(
        build_runs,
        text=trial.subject.ref("text"),
        target=trial.size["target"],
        limits=limits_of(trial),
        model=model,
        count=count,
        stream=stream,
        repeat=repeat,
    )
    with np.load(folder / "runs.npz") as arrays:
        return dict(arrays)


def trial_domains(trial: Trial) -> Domains:
    return seed_domains(trial.subject["text"], trial.size["target"], seed=trial.seed, **limits_of(trial))


def overlap(domains: Sequence[bytes], target: bytes, order: int = 3) -> Float[np.ndarray, " domains"]:
    """How much of the target's distribution of n-grams each domain shares: sum over n-grams of the smaller rate."""
    codes, counts = np.unique(ngrams(target, order), return_counts=True)
    shares = []
    for text in domains:
        known, theirs = np.unique(ngrams(text, order), return_counts=True)
        _, left, right = np.intersect1d(codes, known, assume_unique=True, return_indices=True)
        shares.append(np.minimum(counts[left] / counts.sum(), theirs[right] / theirs.sum()).sum())
    return np.array(shares)
