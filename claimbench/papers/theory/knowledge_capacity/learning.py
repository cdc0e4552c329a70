"""Training on fact sheets with counted exposures, and what of them the model then holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from claimbench.blocks.schedules import warm_cosine
from claimbench.papers.theory.knowledge_capacity.bits import ceiling_bits, stored_bits
from claimbench.papers.theory.knowledge_capacity.facts import Facts

MakeModel = Callable[[int, int], nn.Module]
"""make(vocabulary, context): a module from ids [batch, time <= context] to logits [batch, time, vocabulary]."""


@dataclass(frozen=True)
class Junk:
    """Sheets of people who are met once: `draw(people, generator)` gives [people, length] ids, mixed in as `share`
    sheets for each useful one. domain: the id in the place of the start in useful sheets, or None for no such mark.
    """

    draw: Callable[[int, np.random.Generator], Int[Tensor, "people length"]]
    share: int = 7
    domain: int | None = None


@dataclass(frozen=True)
class Capacity:
    """What a model holds. bits: the bound; ceiling: what knowing all would give; answered: the share of values that a
    greedy reading of the model gets right; parameters: all of them, shared ones once.
    """

    bits: float
    ceiling: float
    parameters: int
    answered: float

    @property
    def ratio(self) -> float:
        """Bits a parameter."""
        return self.bits / self.parameters


def exposures_of(
    facts: Facts, exposures: int, batch: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Whom each step meets: everybody `exposures` times, once before anybody twice; the last step may be smaller."""
    left = np.empty(0, dtype=np.int64)
    for _ in range(exposures):
        left = np.concatenate([left, generator.permutation(facts.people)])
        while len(left) >= batch:
            yield left[:batch]
            left = left[batch:]
    if len(left):
        yield left


def memorise(
    model: nn.Module,
    facts: Facts,
    *,
    exposures: int,
    batch: int,
    learning_rate: float,
    seed: int,
    weight_decay: float = 0.0,
    floor: float = 0.1,
    junk: Junk | None = None,
    device: str = "cpu",
) -> float:
    """Train in place with AdamW until everybody was met `exposures` times; the mean loss a token over the last tenth.

    Betas 0.9 and 0.98, epsilon 1e-6, linear warm-up over a tenth of the steps and a cosine to `floor` of the rate, as
    in the paper (Section A.2). batch: sheets a step, junk included. NaN: it diverged.
    """
    generator = np.random.default_rng([seed, 1])
    useful = batch if junk is None else max(1, batch // (1 + junk.share))
    sheets = _marked(facts.sequences, junk).to(device)
    steps = math.ceil(facts.people * exposures / useful)
    model.to(device).train()
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: warm_cosine(step, steps, floor=floor)
    )
    last: list[Tensor] = []
    for step, met in enumerate(exposures_of(facts, exposures, useful, generator)):
        ids = sheets[torch.from_numpy(met).to(device)]
        if junk is not None:
            ids = torch.cat([ids, junk.draw(len(met) * junk.share, generator).to(device)])
        loss = cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step >= steps - max(steps // 10, 1):
            last.append(loss.detach())
    mean = float(torch.stack(last).mean())
    return mean if math.isfinite(mean) else math.nan


def _marked(sheets: Int[Tensor, "people length"], junk: Junk | None) -> Int[Tensor, "people length"]:
    if junk is None or junk.domain is None:
        return sheets
    return torch.cat([torch.full_like(sheets[:, :1], junk.domain), sheets[:, 1:]], dim=1)


@torch.no_grad()
def measure_capacity(
    model: nn.Module, facts: Facts, *, junk: Junk | None = None, at_once: int = 1024, device: str = "cpu"
) -> Capacity:
    """The bound from the model's losses: a name's tokens given nothing, the values' given the name (Theorem 3.2).

    A model whose losses are not finite holds 0 bits.
    """
    model.to(device).eval()
    parts = facts.names.shape[1]
    named = valued = right = 0.0
    for ids in _marked(facts.sequences, junk).split(at_once):
        inputs, targets = ids[:, :-1].to(device), ids[:, 1:].to(device)
        logits = model(inputs).float()
        losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        named += float(losses[:, :parts].double().sum())
        valued += float(losses[:, parts:].double().sum())
        right += float((logits.argmax(-1) == targets)[:, parts:].double().sum())
    count, spaces = facts.people, (facts.name_space, facts.value_space)
    finite = math.isfinite(named + valued)
    bits = stored_bits(count, *spaces, name_loss=named / count, value_loss=valued / count) if finite else 0.0
    return Capacity(
        bits=bits,
        ceiling=ceiling_bits(count, *spaces),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        answered=right / facts.values.size,
    )


def trained(
    facts: Facts,
    make: MakeModel,
    *,
    exposures: int,
    batch: int,
    learning_rate: float,
    seed: int,
    junk: Junk | None = None,
    device: str = "cpu",
) -> nn.Module:
    """A fresh model after so many exposures; its initial weights and the order of the data are the seed's."""
    torch.manual_seed(seed)
    model = make(facts.vocabulary + (junk is not None and junk.domain is not None), facts.context)
    memorise(
        model,
        facts,
        exposures=exposures,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        junk=junk,
        device=device,
    )
    return model


def capacity(
    facts: Facts,
    make: MakeModel,
    *,
    exposures: int = 1000,
    batch: int = 250,
    learning_rate: float = 0.02,
    seed: int = 0,
    junk: Junk | None = None,
    device: str = "cpu",
) -> Capacity:
    """Train a fresh model on the facts, everybody met `exposures` times, and say what it holds.

    The rate matters: try several and take the best, for each number of exposures anew.
    """
    model = trained(
        facts,
        make,
        exposures=exposures,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        junk=junk,
        device=device,
    )
    return measure_capacity(model, facts, junk=junk, device=device)
