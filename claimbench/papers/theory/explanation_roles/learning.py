"""Training readers on the synthetic task, one for each of several problems in one loop, with or without
retrieval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int, Int64
from torch import Tensor

from claimbench.blocks.orders import shuffled
from claimbench.blocks.stacked import Stack
from claimbench.blocks.stacked_training import train_stack
from claimbench.papers.theory.explanation_roles.readers import Reader, Reading, Shape, reader_loss
from claimbench.papers.theory.explanation_roles.retrieval import (
    bags_of_explanations,
    bags_of_queries,
    nearest,
    oracle,
)
from claimbench.papers.theory.explanation_roles.synthetic import HEAD, Points, Problem

Find = Callable[[Problem, Points, "Int[np.ndarray, ' points'] | None", int], Int[np.ndarray, "points found"]]
"""find(problem, points, own, count): for each point `count` rows of the training points, never row `own` of
them.
"""


@dataclass(frozen=True)
class Training:
    """steps of `batch` points each. refresh: a learning retriever searches anew after so many steps."""

    steps: int = 1500
    batch: int = 100
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    refresh: int = 50


def find_oracle(seed: int) -> Find:
    """Explanations of the query's own task, in random order; of the task with the nearest number where it has none."""

    def find(
        problem: Problem, points: Points, own: Int[np.ndarray, " points"] | None, count: int
    ) -> np.ndarray:
        rng = np.random.default_rng([seed, len(points), 5])
        there = np.unique(problem.train.place)
        numbers = problem.numbers
        apart = np.abs(numbers[:, None] - numbers[None, there])
        apart[there, np.arange(len(there))] = -1
        asked = there[apart.argmin(axis=1)]
        return oracle(asked[points.place], problem.train.place, count, rng, own=own)

    return find


def find_at_random(seed: int) -> Find:
    """Any training points' explanations."""

    def find(
        problem: Problem, points: Points, own: Int[np.ndarray, " points"] | None, count: int
    ) -> np.ndarray:
        rng = np.random.default_rng([seed, len(points), 6])
        drawn = rng.integers(len(problem.train) - (own is not None), size=(len(points), count))
        return drawn if own is None else drawn + (drawn >= own[:, None])

    return find


def find_by_tokens(problem: Problem, points: Points, own: np.ndarray | None, count: int) -> np.ndarray:
    """By the cosine of bags of tokens: a fixed encoder that knows equal tokens and nothing else."""
    return find_by_features(
        bags_of_queries(points.sequences, problem), bags_of_explanations(problem.train.explanations, problem)
    )(problem, points, own, count)


def find_by_features(queries: np.ndarray, pool: np.ndarray) -> Find:
    """By inner products of rows that were made beforehand: of these points, and of the training points'
    explanations.
    """

    def find(
        problem: Problem, points: Points, own: Int[np.ndarray, " points"] | None, count: int
    ) -> np.ndarray:
        return nearest(queries, pool, count, own=own)

    return find


def pack(
    problem: Problem, points: Points, reading: Reading, found: Int[np.ndarray, "points found"]
) -> Float32[np.ndarray, "points columns"]:
    """What `Reader` takes. found: rows of the training points in the order of retrieval; no columns where
    nothing is read.
    """
    train, task = problem.train, problem.task
    place = np.zeros(len(points), dtype=np.int64) if task.hidden_index else points.place + 1
    parts: list[np.ndarray] = [points.sequences, place[:, None]]
    if reading.context == "explanations":
        told = task.code(train.explanations[:, 1:])[found]
        if reading.pooling == "integers":
            told = np.rint(told.reshape(len(points), reading.sets, reading.each, 4).mean(axis=2))
        parts.append(told.reshape(len(points), -1))
    elif reading.context == "examples":
        seen = np.column_stack([train.sequences[:, 1:], train.labels])
        parts.append(seen[found].reshape(len(points), -1))
    if reading.learnt:
        parts.append(bags_of_queries(points.sequences, problem))
        parts.append(bags_of_explanations(train.explanations, problem)[found].reshape(len(points), -1))
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def targets(problem: Problem, points: Points) -> Int64[np.ndarray, "points 5"]:
    """The label, and the codes of the point's own explanation."""
    return np.column_stack([points.labels, problem.task.code(points.explanations[:, 1:])])


class Readers:
    """A reader for each of several problems, all of one task's sizes: trained together, each as if alone.

        readers = Readers([problem], Reading("explanations"), seeds=[0])
        readers.train(find_oracle(0), Training(steps=1500))
        print(readers.accuracy("test", find_oracle(0)))

    seeds: of each reader's initial weights and order of data. Raises ValueError if problems and seeds differ
    in number.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        reading: Reading,
        *,
        seeds: Sequence[int],
        shape: Shape | None = None,
        precision: float = 1.0,
        device: str = "cpu",
    ) -> None:
        self.problems, self.reading, self.seeds = list(problems), reading, list(seeds)
        task = problems[0].task
        self.features = task.integers + HEAD + task.known if reading.learnt else 0
        models = []
        for _, seed in zip(problems, seeds, strict=True):
            torch.manual_seed(seed)
            models.append(
                Reader(task, reading, shape or Shape(), features=self.features, precision=precision)
            )
        self.stack = Stack.of(models, device=device)
        self.loss = reader_loss(task, reading.auxiliary)

    def train(self, find: Find | Sequence[Find] | None, training: Training) -> list[float]:
        """Train in place; each reader's mean loss over the last tenth of the steps (NaN: it diverged).

        find: what is retrieved, one for all or one a problem; None where the reading has no context or learns
        to retrieve.
        """
        losses = train_stack(
            self.stack,
            self._batches(find, training),
            steps=training.steps,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            loss=self.loss,
        )
        return [float(loss) for loss in losses]

    def _batches(
        self, find: Find | Sequence[Find] | None, training: Training
    ) -> Iterator[tuple[Tensor, Tensor]]:
        own = [np.arange(len(problem.train)) for problem in self.problems]
        orders = [
            shuffled(len(rows), training.batch, np.random.default_rng([seed, 7]))
            for rows, seed in zip(own, self.seeds, strict=True)
        ]
        labels = [torch.from_numpy(targets(problem, problem.train)) for problem in self.problems]
        packed: list[Tensor] = []
        for step in range(training.steps):
            if step == 0 or (self.reading.learnt and step % training.refresh == 0):
                packed = self._packed("train", self.retrieved("train", find, own))
            rows = [torch.from_numpy(next(order)) for order in orders]
            yield (
                torch.stack([part[chosen] for part, chosen in zip(packed, rows, strict=True)]),
                torch.stack([part[chosen] for part, chosen in zip(labels, rows, strict=True)]),
            )

    def retrieved(
        self, split: str, find: Find | Sequence[Find] | None, own: Sequence[np.ndarray] | None = None
    ) -> list[Int[np.ndarray, "points found"]]:
        """What each problem's points of a split get: rows of its training points, by `find` or by the learnt
        retriever.
        """
        count = self.reading.sets * self.reading.each
        found = []
        for index, problem in enumerate(self.problems):
            points: Points = getattr(problem, split)
            mine = None if own is None else own[index]
            if self.reading.context == "nothing":
                found.append(np.empty((len(points), 0), dtype=np.int64))
            elif self.reading.learnt:
                learnt = self.stack.parameters["retriever.map"][index].detach().cpu().numpy()
                queries = bags_of_queries(points.sequences, problem) @ learnt
                pool = bags_of_explanations(problem.train.explanations, problem) @ learnt
                pool /= np.maximum(np.linalg.norm(pool, axis=1, keepdims=True), 1e-12)
                found.append(nearest(queries, pool, count, own=mine))
            else:
                assert find is not None
                chosen = find if callable(find) else find[index]
                found.append(chosen(problem, points, mine, count))
        return found

    def _packed(
        self, split: str, found: Sequence[Int[np.ndarray, "points found"]], part: slice = slice(None)
    ) -> list[Tensor]:
        return [
            torch.from_numpy(pack(problem, getattr(problem, split).take(part), self.reading, rows))
            for problem, rows in zip(self.problems, found, strict=True)
        ]

    @torch.no_grad()
    def accuracy(
        self,
        split: str,
        find: Find | Sequence[Find] | None = None,
        *,
        found: Sequence[Int[np.ndarray, "points found"]] | None = None,
        at_once: int = 2000,
    ) -> list[float]:
        """Each reader's share of a split's points whose label it gives. found: what `retrieved` gave, if that
        is known.
        """
        self.stack.eval()
        rows = self.retrieved(split, find) if found is None else found
        labels = torch.stack([torch.from_numpy(getattr(problem, split).labels) for problem in self.problems])
        right = torch.zeros(len(self.problems), dtype=torch.int64)
        for start in range(0, labels.shape[1], at_once):
            part = slice(start, start + at_once)
            inputs = torch.stack(self._packed(split, [chosen[part] for chosen in rows], part))
            guesses = self.stack(inputs.to(self.stack.device))[..., :2].argmax(-1).cpu()
            right += (guesses == labels[:, part]).sum(1)
        return (right / labels.shape[1]).tolist()
