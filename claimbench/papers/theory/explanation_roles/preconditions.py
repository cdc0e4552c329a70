"""Preconditions of learning from explanations, each with what it is when it holds and when it is broken
(arXiv 2102.02201, section 5).

Each is a pair of problems and retrievers. What is lost is judged against the gain while it holds: with
accuracies a,

    excess = (a - a without explanations) - half of (a intact - a without explanations)

which is at most 0 where most of the gain is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from claimbench.errors import UserError, nearest
from claimbench.papers.theory.explanation_roles.encoders import find_by_encoder, untrained
from claimbench.papers.theory.explanation_roles.learning import (
    Find,
    Readers,
    Training,
    find_at_random,
    find_by_tokens,
    find_oracle,
)
from claimbench.papers.theory.explanation_roles.readers import Reading, Shape
from claimbench.papers.theory.explanation_roles.synthetic import Problem

READS = Reading("explanations")
ARMS = ("broken", "intact", "no-explanation", "no-explanation-broken", "uninformed")


@dataclass(frozen=True)
class Precondition:
    """changes: of the task when it is broken. encodes: whether it needs an encoder. more_data: whether both
    have more points. intact, broken: the retriever of a seed, made from the encoder where it needs one.
    """

    intact: Callable[[int, Any], Find]
    broken: Callable[[int, Any], Find]
    changes: dict[str, Any]
    encodes: bool = False
    more_data: bool = False


def _by_oracle(seed: int, encoder: Any) -> Find:
    return find_oracle(seed)


def _by_tokens(seed: int, encoder: Any) -> Find:
    return find_by_tokens


PRECONDITIONS = {
    "weak-feature": Precondition(_by_oracle, _by_oracle, {"weak": 1.0}),
    "translated": Precondition(_by_oracle, _by_oracle, {"translation": "shift"}),
    "random-retriever": Precondition(
        lambda seed, encoder: find_by_encoder(encoder),
        lambda seed, encoder: find_by_encoder(untrained(encoder, seed)),
        {},
        encodes=True,
    ),
    "hidden-index": Precondition(_by_tokens, _by_tokens, {"hidden_index": True}),
    "translated-more-data": Precondition(_by_oracle, _by_oracle, {"translation": "shift"}, more_data=True),
    "causal-only": Precondition(_by_oracle, _by_oracle, {"causal_only": True}),
    "new-tasks": Precondition(_by_oracle, _by_oracle, {"disjoint": True}),
    "new-tasks-smooth": Precondition(_by_oracle, _by_oracle, {"disjoint": True, "smooth": True}),
}


def precondition(name: str) -> Precondition:
    """Raises UserError for a name that there is not."""
    if name not in PRECONDITIONS:
        raise UserError(f'knob = "{name}" is not known{nearest(name, PRECONDITIONS)}')
    return PRECONDITIONS[name]


def gains(
    name: str,
    intact: Sequence[Problem],
    broken: Sequence[Problem],
    seeds: Sequence[int],
    *,
    encoder: Any = None,
    shape: Shape,
    training: Training,
    device: str = "cpu",
) -> dict[str, list[dict[str, float]]]:
    """For each arm and seed accuracy on test points, gain over no explanation, excess (see above), and
    `relevant`, the share of retrieved explanations that are of the query's task (0 where none is read).

    broken, intact: the arms that read. no-explanation: on the intact problem. no-explanation-broken: on the
    broken one. uninformed: reads any explanation, of the intact problem.
    """
    knob = precondition(name)
    plans: dict[str, tuple[Sequence[Problem], Reading, list[Find] | None]] = {
        "broken": (broken, READS, [knob.broken(seed, encoder) for seed in seeds]),
        "intact": (intact, READS, [knob.intact(seed, encoder) for seed in seeds]),
        "no-explanation": (intact, Reading(), None),
        "no-explanation-broken": (broken, Reading(), None),
        "uninformed": (intact, READS, [find_at_random(seed) for seed in seeds]),
    }
    accuracy: dict[str, np.ndarray] = {}
    relevant: dict[str, np.ndarray] = {}
    for arm, (problems, reading, find) in plans.items():
        readers = Readers(problems, reading, seeds=seeds, shape=shape, device=device)
        readers.train(find, training)
        found = readers.retrieved("test", find)
        accuracy[arm] = np.array(readers.accuracy("test", found=found))
        relevant[arm] = np.array([_share(*pair) for pair in zip(problems, found, strict=True)])
    without = accuracy["no-explanation"]
    half = (accuracy["intact"] - without) / 2
    return {
        arm: [
            {"accuracy": float(a), "gain": float(a - b), "excess": float(a - b - h), "relevant": float(r)}
            for a, b, h, r in zip(accuracy[arm], without, half, relevant[arm], strict=True)
        ]
        for arm in plans
    }


def _share(problem: Problem, found: np.ndarray) -> float:
    same = problem.train.place[found] == problem.test.place[:, None]
    return float(same.mean()) if same.size else 0.0
