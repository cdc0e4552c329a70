"""Train one of several sequence models on a task and test it: the same blocks, budget and number of parameters for all.

Your own sequences and your own kernel go in here:

    task = from_arrays((inputs, labels), (test_inputs, test_labels))
    learned = learn("s4", task, features=32, layers=2, state_size=64, steps=500, batch=32, learning_rate=3e-3)
    learned = learn(lambda: S4(32, kernel=MyKernel(32)), task, features=32, ...)

S4: Gu, Goel, Ré 2021, arXiv 2111.00396.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from claimbench.blocks.mixers.attention import Attention
from claimbench.blocks.mixers.recurrent import LSTM
from claimbench.blocks.sequence_model import Block, SequenceModel, count_parameters, match_parameters
from claimbench.blocks.training import fit
from claimbench.papers.sequence.s4.hippo import INITIALISATIONS
from claimbench.papers.sequence.s4.layer import S4
from claimbench.papers.sequence.s4.tasks import Split, Task

HEAD_WIDTH = 32
EVALUATED_AT_ONCE = 32

Mixer = Callable[[], nn.Module]


@dataclass(frozen=True)
class Learned:
    """A trained model, its score (accuracy; 1 − normalised squared error for regression) and its size."""

    model: SequenceModel
    score: float
    loss: float  # mean over the last tenth of training
    parameters: int


def build(arm: str | Mixer, task: Task, *, features: int, layers: int, state_size: int) -> SequenceModel:
    """A model for the task. "s4" or an initialisation's name: S4 blocks. "lstm", "transformer": blocks of these, with
    a width that gives them the number of parameters of the S4 model. A function: a new mixer of your own a block."""

    def model(block: Callable[[], Block], *, positions: bool = False) -> SequenceModel:
        return SequenceModel(
            features,
            [block() for _ in range(layers)],
            inputs=task.inputs,
            outputs=task.outputs,
            tokens=task.tokens,
            positions=positions,
        )

    if callable(arm):
        return model(lambda: Block(features, arm()))
    initialisation = "hippo" if arm == "s4" else arm
    if initialisation in INITIALISATIONS:
        return model(
            lambda: Block(
                features,
                S4(features, length=task.length, state_size=state_size, initialisation=initialisation),
            )
        )
    rivals: dict[str, Callable[[int], SequenceModel]] = {
        "lstm": lambda width: model(lambda: Block(features, LSTM(features, width))),
        "transformer": lambda width: model(
            lambda: Block(features, Attention(features, max(features // HEAD_WIDTH, 1)), hidden=width),
            positions=True,
        ),
    }
    if arm not in rivals:
        raise ValueError(f'no arm "{arm}"; known: s4, {", ".join([*INITIALISATIONS, *rivals])}')
    with torch.random.fork_rng(devices=[]):
        target = count_parameters(build("s4", task, features=features, layers=layers, state_size=state_size))
    return rivals[arm](match_parameters(rivals[arm], target))


def learn(
    arm: str | Mixer,
    task: Task,
    *,
    features: int,
    layers: int,
    state_size: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int = 0,
    device: str = "cpu",
    split: Split = "test",
    tested: int = 512,
) -> Learned:
    """Train on `steps` batches, then score on `split`. The seed decides initialisation, batches and fresh test data.

    Raises FloatingPointError if training diverges.
    """
    torch.manual_seed(seed)
    model = build(arm, task, features=features, layers=layers, state_size=state_size).to(device)
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x, y = task.draw("train", batch, generator)
            yield x.to(device), y.to(device)

    criterion = functional.mse_loss if task.regression else functional.cross_entropy
    loss = fit(model, batches(), steps=steps, learning_rate=learning_rate, loss=criterion)
    inputs, targets = task.draw(split, tested, generator)
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(part.to(device)).cpu() for part in inputs.split(EVALUATED_AT_ONCE)])
    if task.regression:
        spread = (targets - targets.mean(0)).square().mean()
        score = float(1 - (outputs - targets).square().mean() / spread)
    else:
        score = float((outputs.argmax(-1) == targets).double().mean())
    return Learned(model, score, loss, count_parameters(model))
