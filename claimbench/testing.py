"""What the tests of a paper's claims share: a claim's trials at its smallest sizes, and what every paper must pass.

For tests alone: nothing here is used by a run, and no number comes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from claimbench.claim import Claim
from claimbench.paper import Paper
from claimbench.rule import Point
from claimbench.trial import Registry, Row, Subjects, Table, Trial


class Given(Subjects):
    """Subjects that are open already, by name: `Given(model=..., text=...)`."""

    def __init__(self, **values: Any) -> None:
        super().__init__({}, "cpu")
        self._open = values

    def __getitem__(self, name: str) -> Any:
        return self._open[name]

    def __contains__(self, name: object) -> bool:
        return name in self._open


def smoke_trials(
    claim: Claim, point: Point | None = None, *, seed: int = 3, subject: Subjects | None = None, **sizes: Any
) -> list[Trial]:
    """One trial of each arm at the claim's smoke sizes, with the first value of each tuning grid.

    point: default the first of the smoke sweep. subject: none by default. sizes: replace those of the scale.
    """
    size = {**claim.sizes("smoke"), **sizes}
    return [
        Trial(
            arm=arm,
            point=claim.points("smoke")[0] if point is None else point,
            seed=seed,
            size=size,
            subject=Given() if subject is None else subject,
            dtype=str(size.get("dtype", claim.dtype)),
            method=claim.method,
            tuned_values={name: values[0] for name, values in claim.tuning.items()},
        )
        for arm in claim.arms("smoke")
    ]


def measured(claim: Claim, found: Registry, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """What the claim's measure finds for trials of different arms at one point and seed, by arm.

    The trials go through it together or one by one, as a run's would.
    """
    function = found.measures[claim.measured_by]
    if "arm" in claim.together:
        results = function(list(trials))
    else:
        results = [function([trial])[0] if claim.together else function(trial) for trial in trials]
    return {trial.arm: dict(metrics) for trial, metrics in zip(trials, results, strict=True)}


def declared(claim: Claim, *, derived: bool = False) -> set[str]:
    """Names of the metrics that a trial returns, or of those that are derived."""
    return {name for name, metric in claim.metrics.items() if metric.derived is derived}


def check_registry(paper: Paper, found: Registry) -> None:
    """Every claim has its measure and no measure is idle; claims with derived metrics have a function for them.

    Raises AssertionError, which names what is missing.
    """
    idle = {claim.measured_by for claim in paper.claim} ^ set(found.measures)
    assert not idle, f"measures of the claims and of claims.py differ: {idle}"
    idle = {claim.id for claim in paper.claim if declared(claim, derived=True)} ^ set(found.derived)
    assert not idle, f"claims with derived metrics and functions that derive differ: {idle}"


def made_up(claim: Claim, values: Callable[[Point], float], *, scale: str = "quick") -> Table:
    """A seed's trials at every point of a scale, in which every metric of every arm is `values(point)`."""
    return Table(
        [
            Row(arm, point, 0, dict.fromkeys(declared(claim), values(point)))
            for arm in claim.arms(scale)
            for point in claim.points(scale)
        ]
    )


def check_derived(claim: Claim, found: Registry, seed: Table) -> dict[str, float]:
    """The claim's derived numbers of one seed; they must be those that it declares.

    Raises AssertionError if other names come out.
    """
    numbers = dict(found.derived[claim.id](seed))
    other = set(numbers) ^ declared(claim, derived=True)
    assert not other, f"derived numbers and those declared differ: {other}"
    return numbers


@contextmanager
def untimed() -> Iterator[None]:
    """One call of each step instead of a timed round, for tests of the rest of a timing measure.

    Arms get 1, 2, ... seconds in the order of the steps.
    """

    def once(self: Trial, steps: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        for step in steps.values():
            step()
        return {arm: 1.0 + index for index, arm in enumerate(steps)}

    timed = Trial.rounds
    Trial.rounds = once  # type: ignore[method-assign]  # put back below
    try:
        yield
    finally:
        Trial.rounds = timed  # type: ignore[method-assign]  # as above
