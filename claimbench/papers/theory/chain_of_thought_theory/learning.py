"""Training small causal models on problems with or without derivations, and what they then answer.

The loss counts the tokens after the prompt alone, as in the published code. Answers are judged after free generation;
whether every supervised token is right given the true ones before it is said beside (the published figures for LIS and
ED are of that kind).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from claimbench.blocks.orders import shuffled
from claimbench.blocks.stacked import Stack
from claimbench.blocks.stacked_training import train_stack
from claimbench.blocks.training import fit
from claimbench.papers.theory.chain_of_thought_theory.derivations import Derivations

IGNORED = -100  # a target that the loss does not count
MakeModel = Callable[[int, int], nn.Module]
"""make(vocabulary, context): a module from ids [batch, time <= context] to logits [batch, time, vocabulary]."""


@dataclass(frozen=True)
class Answered:
    """Shares of problems: answered right after free generation; every supervised token right given the true text."""

    free: float
    forced: float


def supervised_loss(
    logits: Float[Tensor, "batch time vocabulary"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood in nats over the targets that count."""
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)


def pairs_of(given: Derivations) -> tuple[Int[Tensor, "count time"], Int[Tensor, "count time"]]:
    """Inputs and targets; targets that do not count are `IGNORED`."""
    ids = torch.from_numpy(given.ids.astype(np.int64))
    counted = torch.from_numpy(given.supervised())
    return ids[:, :-1], ids[:, 1:].masked_fill(~counted, IGNORED)


def batches_of(
    given: Derivations, batch: int, generator: np.random.Generator, device: str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for ever: every problem once before any comes again, in a new order each time."""
    inputs, targets = (part.to(device) for part in pairs_of(given))
    for chosen in shuffled(len(given), batch, generator):
        rows = torch.from_numpy(chosen).to(device)
        yield inputs[rows], targets[rows]


def train(
    given: Derivations,
    make: MakeModel,
    *,
    steps: int,
    batch: int = 64,
    learning_rate: float = 2e-3,
    context: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> nn.Module:
    """A fresh model after so many steps of AdamW, with warm-up and a cosine counted in steps.

    context: the longest text that it must read (default: the longest given). The initial weights and the order of the
    data are the seed's. Raises FloatingPointError where it diverges.
    """
    torch.manual_seed(seed)
    model = make(len(given.words), context or given.ids.shape[1]).to(device)
    generator = np.random.default_rng([seed, 1])
    source = batches_of(given, batch, generator, device)
    fit(model, source, steps=steps, learning_rate=learning_rate, loss=supervised_loss)
    return model


def train_together(
    given: Sequence[Derivations],
    make: MakeModel,
    *,
    steps: int,
    seeds: Sequence[int],
    batch: int = 64,
    learning_rate: float = 2e-3,
    device: str = "cpu",
) -> list[nn.Module | FloatingPointError]:
    """One model for each set of problems and seed, each as `train` makes it, with every operation started once for all.

    An error stands for a model that diverged. Raises RuntimeError for models that `torch.func.vmap` cannot batch.
    """
    time = max(part.ids.shape[1] for part in given)
    models = []
    for part, seed in zip(given, seeds, strict=True):
        torch.manual_seed(seed)
        models.append(make(len(part.words), time))
    stack = Stack.of(models, device=device)
    padded = [replace(part, ids=np.pad(part.ids, ((0, 0), (0, time - part.ids.shape[1])))) for part in given]
    sources = [
        batches_of(part, batch, np.random.default_rng([seed, 1]), device)
        for part, seed in zip(padded, seeds, strict=True)
    ]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            inputs, targets = zip(*(next(source) for source in sources), strict=True)
            yield torch.stack(inputs), torch.stack(targets)

    chunk = None if device == "cpu" else 1  # one model fills a GPU
    means = train_stack(
        stack, batches(), steps=steps, learning_rate=learning_rate, loss=supervised_loss, chunk=chunk
    )
    return [
        model if math.isfinite(mean) else FloatingPointError(f"the loss became {mean} within {steps} steps")
        for model, mean in zip(stack.unstack(), means.tolist(), strict=True)
    ]


@torch.no_grad()
def generate(
    model: nn.Module, given: Derivations, *, time: int, device: str = "cpu"
) -> Int[np.ndarray, "count time"]:
    """Each problem's prompt, continued greedily to `time` tokens; what follows the end token is padding."""
    model.eval()
    ids = torch.from_numpy(given.ids.astype(np.int64))[:, :time].to(device)
    ids = nn.functional.pad(ids, (0, max(0, time - ids.shape[1])))
    prompt = torch.from_numpy(given.prompt).to(device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=device)
    for place in range(int(prompt.min()), time):
        written = model(ids[:, :place])[:, -1].argmax(-1).masked_fill(ended, 0)
        free = place >= prompt
        ids[:, place] = torch.where(free, written, ids[:, place])
        ended |= free & (written == given.end)
        if bool(ended.all()):
            ids[:, place + 1 :] = 0
            break
    return np.asarray(ids.cpu().numpy())


def same_answers(ids: Int[np.ndarray, "count time"], given: Derivations) -> Bool[np.ndarray, " count"]:
    """Whether what stands between the last separator and the end token is the problem's answer."""
    rows = np.arange(len(given))
    separator = given.ids[rows, given.prompt - 1][:, None]
    place = np.arange(ids.shape[1])
    ends = np.where((ids == given.end).any(axis=1), (ids == given.end).argmax(axis=1), -1)
    starts = np.where((ids == separator) & (place < ends[:, None]), place, -1).max(axis=1) + 1
    tail = np.arange(int((given.length - given.answer).max()) + 1)
    found = np.take_along_axis(ids, np.minimum(starts[:, None] + tail, ids.shape[1] - 1), axis=1)
    wanted = np.take_along_axis(
        given.ids, np.minimum(given.answer[:, None] + tail, given.ids.shape[1] - 1), axis=1
    )
    counted = tail <= (given.length - given.answer)[:, None]
    return np.asarray(((found == wanted) | ~counted).all(axis=1) & (ends >= 0))


@torch.no_grad()
def answered(
    model: nn.Module, given: Derivations, *, time: int | None = None, at_once: int = 256, device: str = "cpu"
) -> Answered:
    """How many problems a model answers. time: the longest text that it may write (default: the longest given)."""
    model.eval()
    free = forced = 0.0
    for start in range(0, len(given), at_once):
        part = given.take(slice(start, start + at_once))
        ids = generate(model, part, time=time or given.ids.shape[1], device=device)
        free += float(same_answers(ids, part).sum())
        inputs, targets = pairs_of(part)
        predicted = model(inputs.to(device)).argmax(-1).cpu()
        forced += float(((predicted == targets) | (targets == IGNORED)).all(1).sum())
    return Answered(free / len(given), forced / len(given))


def majority(train: Derivations, test: Derivations) -> float:
    """The share of test problems that the most frequent answer in training gets right."""

    def texts(given: Derivations) -> list[bytes]:
        ends = zip(given.ids, given.answer.tolist(), given.length.tolist(), strict=True)
        return [ids[answer:length].tobytes() for ids, answer, length in ends]

    answers, counts = np.unique(np.array(texts(train), dtype=object), return_counts=True)
    best = answers[counts.argmax()]
    return float(np.mean([answer == best for answer in texts(test)]))
