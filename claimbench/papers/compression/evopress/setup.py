"""What a trial's sizes and subjects mean to the measures: its text, its search space, its tournament, its
held-out numbers.

Shared by the measures of `claims.py`. The base model is a subject ("byte-lm": trained here once and cached),
so every number is given one base model; seeds differ in their text and in the search's randomness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.baselines import random_selections, summed_errors
from claimbench.papers.compression.evopress.decoder import SublayerSwitch
from claimbench.papers.compression.evopress.depth import ATTENTION_GROUP, MLP_GROUP, depth_space
from claimbench.papers.compression.evopress.fitness import Calibration, Compressed, Judge
from claimbench.papers.compression.evopress.scores import single_drops
from claimbench.papers.compression.evopress.search import Outcome, Profile, Space, Stage, evolve
from claimbench.trial import BLOCKS, Trial

Sequences = Int[Tensor, "sequences tokens"]


def windows(trial: Trial, split: str, count: int) -> Sequences:
    """`count` sequences out of this seed's share of a split, at places drawn by the seed, none overlapping
    another.
    """
    lm, text = trial.subject["model"], getattr(trial.subject["text"], split)
    length = int(trial.size["sequence_length"])
    share = trial.block(range(len(text)))
    sample = text[share[0] : share[0] + 4096]
    width = math.ceil(1.3 * length * len(sample) / max(1, len(lm.encode(sample)))) + 16
    slots = np.random.default_rng([trial.seed, len(split)]).permutation(len(share) // width)
    rows: list[Tensor] = []
    for slot in slots:
        ids = lm.encode(text[share[0] + slot * width : share[0] + (slot + 1) * width])
        if len(ids) >= length:
            rows.append(ids[:length])
        if len(rows) == count:
            return torch.stack(rows).to(trial.device)
    raise UserError(
        f"text: this seed's share of its {split} split holds {len(rows)} sequences of {length} tokens and "
        f"{count} are needed; give about {math.ceil(BLOCKS * 10 * count * width * 1.1 / 1e6)} MB of text "
        "or a smaller sequence_length"
    )


def stages(trial: Trial) -> tuple[Stage, ...]:
    """Few tokens for all offspring, many for the survivors and the parent."""
    size = trial.size
    return (Stage(size["few_tokens"], size["survivors"]), Stage(size["many_tokens"], 1))


def search_tokens(trial: Trial) -> int:
    """Forward tokens of the whole EvoPress search: what random search and greedy removal may spend too."""
    size = trial.size
    generation = size["offspring"] * size["few_tokens"] + (size["survivors"] + 1) * size["many_tokens"]
    return int(size["starts"] * size["start_tokens"] + size["generations"] * generation)


@contextmanager
def droppable(trial: Trial) -> Iterator[Judge]:
    """A judge of the subject model's sub-layers; the model is as it was afterwards."""
    with SublayerSwitch(trial.subject["model"].model) as switch:
        yield judge_of(trial, switch)


def judge_of(trial: Trial, compressed: Compressed) -> Judge:
    """A judge within the scale's bounds of memory."""
    size = trial.size
    return Judge(compressed, tokens_at_once=size["tokens_at_once"], logits_at_once=size["logits_at_once"])


def depth_problem(trial: Trial, judge: Judge, share: float) -> tuple[Space, dict[int, int]]:
    """Which sub-layers may go, and how many of each kind do: `share` of the layers."""
    layers = len(judge.decoder)
    count = round(share * layers)
    protected = tuple(range(trial.size.get("protect", 0)))
    if not 0 < count < layers - len(protected):
        raise UserError(
            f"remove: {share} of {layers} layers is {count}; it must be at least 1 and leave some"
        )
    return depth_space(layers, protected), {ATTENTION_GROUP: count, MLP_GROUP: count}


def evopress_depth(
    trial: Trial, judge: Judge, space: Space, budget: dict[int, int], calibration: Sequences
) -> Outcome:
    rng = np.random.default_rng(trial.seed)
    size = trial.size
    return evolve(
        space,
        Calibration(judge, calibration),
        random_selections(space, budget, size["starts"], rng),
        generations=size["generations"],
        offspring=size["offspring"],
        stages=stages(trial),
        start_tokens=size["start_tokens"],
        seed=rng,
    )


def summed_depth(
    judge: Judge, space: Space, budget: dict[int, int], calibration: Sequences
) -> tuple[Profile, np.ndarray, int]:
    """The dynamic programme over single drops: its profile, the single drops' KL, the tokens spent."""
    singles = single_drops(judge, calibration)
    errors = np.stack([np.zeros_like(singles), singles], axis=1)
    return summed_errors(space, errors, budget), singles, (judge.units + 1) * calibration.numel()


def held_out(judge: Judge, profile: Profile, text: Sequences) -> dict[str, float]:
    """Perplexity, KL from the dense model in nats per token, and the dense model's perplexity."""
    found = judge.evaluate(profile, text)
    return {
        "perplexity": float(np.exp(found["loss"].mean())),
        "kl": float(found["kl"].mean()),
        "dense_perplexity": judge.dense_perplexity(text),
    }
