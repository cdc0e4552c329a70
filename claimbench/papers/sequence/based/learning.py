"""Train [short convolution, mixer] on multi-query recall: the same two layers, data and budget for every mixer.

Your own mixer goes in here:

    task = Recall(vocabulary=64, length=32, pairs=8)
    build = two_layers(lambda: MyMixer(32), task, features=32)
    learned = learn(build, task, seeds=[0, 1], steps=400, batch=32, learning_rate=0.01, split="test", tested=500)

The set-up is that of Arora et al. 2024, arXiv 2402.18668, Section 3.2 and Appendix E.2: two layers without an MLP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from claimbench.blocks.mixers import make_mixer
from claimbench.blocks.sequence_model import Block, SequenceModel
from claimbench.blocks.stacked import Stack
from claimbench.blocks.stacked_training import train_stack
from claimbench.blocks.training import fit
from claimbench.tasks.recall import IGNORED, Recall, Split, stream

TESTED_AT_ONCE = 64
DRAWN_AT_ONCE = 16

MakeMixer = Callable[[], Any]


class QueryModel(SequenceModel):
    """A sequence model that is read out at each sequence's queries alone.

    Input [batch, length + pairs]: the symbols, then the places of the queries; output [batch, pairs, symbols]. No other
    position is scored, so that nothing is lost, and the head costs `pairs` instead of `length` readouts.
    """

    def __init__(self, features: int, blocks: Sequence[Block], *, symbols: int, pairs: int) -> None:
        super().__init__(features, blocks, inputs=symbols, outputs=symbols, tokens=True, readout="all")
        self.pairs = pairs

    def forward(self, x: Int[Tensor, "batch length_and_pairs"]) -> Float[Tensor, "batch pairs symbols"]:
        symbols, places = x[:, : -self.pairs], x[:, -self.pairs :]
        hidden = self.encoder(symbols)
        for block in self.blocks:
            hidden = block(hidden)
        asked = hidden.gather(1, places[..., None].expand(-1, -1, self.features))
        out: Tensor = self.head(self.norm(asked))
        return out


def two_layers(
    make: MakeMixer, task: Recall, *, features: int, convolution: bool = True
) -> Callable[[], QueryModel]:
    """A builder of models: the gated convolution of width 3, then one mixer by `make`.

    convolution=False leaves the convolution out: then nothing brings a key to the place of its value but the mixer.
    """

    def build() -> QueryModel:
        first = [Block(features, make_mixer("base-conv", features))] if convolution else []
        return QueryModel(
            features, [*first, Block(features, make())], symbols=task.values.stop, pairs=task.pairs
        )

    return build


def queries(
    inputs: Int[Tensor, "count length"], labels: Int[Tensor, "count length"], pairs: int
) -> tuple[Tensor, Tensor]:
    """Model input [count, length + pairs] and the labels [count, pairs] at its queries."""
    places = (labels != IGNORED).nonzero()[:, 1].view(-1, pairs)
    return torch.cat([inputs, places], dim=1), labels.gather(1, places)


class Learned(NamedTuple):
    """For each seed: the share of queries answered right, and the loss over the last tenth (NaN: training diverged)."""

    accuracy: list[float]
    loss: list[float]


def learn(
    build: Callable[[], QueryModel],
    task: Recall,
    *,
    seeds: Sequence[int],
    steps: int,
    batch: int,
    learning_rate: float,
    split: Split,
    tested: int,
    at_once: int | None = None,
    device: str = "cpu",
) -> Learned:
    """One model for each seed, with initialisation, training and test data of its own, trained at once where possible.

    split: what is scored, "validation" or "test", on `tested` fresh sequences. at_once: how many models go through a
    step together, all by default: fewer where a step makes large tensors, which must not leave the processor's cache.
    """
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build().to(device))
    sources = [stream(seed, "train") for seed in seeds]

    feeds = [_batches(task, source, batch, device) for source in sources]

    def together() -> Iterator[tuple[Tensor, Tensor]]:
        for drawn in zip(*feeds, strict=True):
            inputs, labels = (torch.stack(part) for part in zip(*drawn, strict=True))
            yield inputs, labels

    if _batchable(models[0]):
        stack = Stack.of(models)
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel would run model by model
            losses = train_stack(
                stack, together(), steps=steps, learning_rate=learning_rate, loss=_loss, chunk=at_once
            ).tolist()
        models = [model for model in stack.unstack() if isinstance(model, QueryModel)]
    else:
        losses = [
            _alone(model, feed, steps, learning_rate) for model, feed in zip(models, feeds, strict=True)
        ]
    scored = zip(models, seeds, strict=True)
    return Learned([_score(model, task, seed, split, tested, device) for model, seed in scored], losses)


def _batches(
    task: Recall, source: torch.Generator, batch: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches without end, drawn many at a time: small draws cost as much."""
    while True:
        inputs, labels = queries(*task.draw(DRAWN_AT_ONCE * batch, source), task.pairs)
        yield from zip(inputs.to(device).split(batch), labels.to(device).split(batch), strict=True)


def _loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())


def _batchable(model: nn.Module) -> bool:
    """False where a layer is one of torch's recurrent kernels, which cannot be batched over models."""
    return not any(isinstance(module, nn.RNNBase) for module in model.modules())


def _alone(
    model: QueryModel, feed: Iterator[tuple[Tensor, Tensor]], steps: int, learning_rate: float
) -> float:
    try:
        return fit(model, feed, steps=steps, learning_rate=learning_rate, loss=_loss)
    except FloatingPointError:
        return math.nan


@torch.no_grad()
def _score(model: QueryModel, task: Recall, seed: int, split: Split, tested: int, device: str) -> float:
    model.eval()
    inputs, labels = queries(*task.draw(tested, stream(seed, split)), task.pairs)
    answers = [model(part.to(device)).argmax(-1).cpu() for part in inputs.split(TESTED_AT_ONCE)]
    return float((torch.cat(answers) == labels).double().mean())
