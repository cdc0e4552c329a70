"""What a measure is given, and how `claims.py` registers its functions.

A measure is a function of one `Trial` that returns named numbers. With `together` (and always with `timing`) it takes
a list of trials and returns one result each, in the same order; a result may then also be an exception instance
(`NotApplicable("needs a GPU")`, a diverged arm's error), which concerns that trial alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from claimbench.errors import NotApplicable, UserError, nearest
from claimbench.spec import SubjectRef, TrialSpec

if TYPE_CHECKING:
    from claimbench.meters import Count, Memory

__all__ = ["BLOCKS", "Measured", "NotApplicable", "Table", "Trial", "derive", "measure"]

BLOCKS = 12  # the longest schedule of seeds: how many disjoint shares `Trial.block` makes of a fixed set

T = TypeVar("T")
Measured = Mapping[str, float]
Measure = Callable[..., Any]
Derive = Callable[["Table"], Mapping[str, float]]


class Registry:
    """The measures and derived numbers of one `claims.py`, filled by its decorators while it is imported."""

    def __init__(self) -> None:
        self.measures: dict[str, Measure] = {}
        self.derived: dict[str, Derive] = {}


_registries: dict[str, Registry] = {}


def registry(module: str) -> Registry:
    """The registry of a claims module, by the module's name."""
    return _registries.setdefault(module, Registry())


def measure(name: str) -> Callable[[Measure], Measure]:
    """Register a measure: `@measure("recall")` above `def recall(trial: Trial) -> dict[str, float]`."""

    def register(function: Measure) -> Measure:
        measures = registry(function.__module__).measures
        if name in measures and measures[name].__qualname__ != function.__qualname__:
            raise UserError(f'{function.__module__}: two functions measure "{name}"; rename one')
        measures[name] = function
        return function

    return register


def derive(claim: str) -> Callable[[Derive], Derive]:
    """Register a claim's derived numbers: a pure function from one seed's trials to named numbers."""

    def register(function: Derive) -> Derive:
        registry(function.__module__).derived[claim] = function
        return function

    return register


@dataclass(frozen=True)
class Row:
    """One trial's numbers, as rules and derived numbers see them."""

    arm: str
    point: Mapping[str, Any]
    seed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """The trials of one seed (for `@derive`), or of a set. Failed trials stand with their `on_failure` values."""

    rows: Sequence[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def where(self, *, arm: str | None = None, **point: Any) -> Table:
        return Table(
            [
                row
                for row in self.rows
                if (arm is None or row.arm == arm)
                and all(name in row.point and row.point[name] == value for name, value in point.items())
            ]
        )

    def value(self, metric: str, *, arm: str | None = None, **point: Any) -> float:
        """The one number that these words name. Raises LookupError if there is none or more than one."""
        found = [row.metrics[metric] for row in self.where(arm=arm, **point) if metric in row.metrics]
        if len(found) != 1:
            raise LookupError(f"{len(found)} values of {metric} for arm={arm}, {point}")
        return found[0]

    def series(self, metric: str, *, along: str, arm: str | None = None, **point: Any) -> dict[Any, float]:
        """Metric by sweep value, in the order of the sweep."""
        rows = self.where(arm=arm, **point)
        return {row.point[along]: row.metrics[metric] for row in rows if metric in row.metrics}


class Subjects(Mapping[str, Any]):
    """The trial's subjects, opened when first asked for: `trial.subject["model"]`."""

    def __init__(self, refs: Mapping[str, SubjectRef], device: str) -> None:
        self._refs, self._device, self._open = refs, device, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._refs:
            raise UserError(
                f'no subject "{name}" here: the claim declares none, or it is optional and was not given'
                f"{nearest(name, self._refs)}"
            )
        if name not in self._open:
            from claimbench.subjects import open_subject

            self._open[name] = open_subject(self._refs[name], device=self._device)
        return self._open[name]

    def __contains__(self, name: object) -> bool:
        return name in self._refs  # without opening it

    def ref(self, name: str) -> SubjectRef:
        return self._refs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)


@dataclass
class Trial:
    """One arm at one point with one seed. Everything that a measure may depend on is here.

    arm, point, seed: the cell. size: the scale's sizes. device: a torch device string. dtype: a torch dtype's name.
    subject: what the arms act on. method: the claim's method (the arm that timing repeats as A/A).
    """

    arm: str
    point: Mapping[str, Any]
    seed: int
    size: Mapping[str, Any] = field(default_factory=dict)
    subject: Subjects = field(default_factory=lambda: Subjects({}, "cpu"))
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    method: str = ""
    tuned_values: Mapping[str, Any] = field(default_factory=dict)
    setup: dict[str, float] = field(default_factory=dict, repr=False)  # shared set-up used: key -> seconds
    context: Any = field(
        default=None, repr=False
    )  # the worker's side: clock pauses, artefact and timing records

    @classmethod
    def of(cls, spec: TrialSpec, *, method: str = "", context: Any = None) -> Trial:
        return cls(
            arm=spec.arm,
            point=spec.point,
            seed=spec.seed,
            size=spec.size,
            subject=Subjects(spec.subjects, spec.device),
            device=spec.device,
            dtype=spec.dtype,
            threads=spec.threads,
            method=method,
            tuned_values=spec.tuned,
            context=context,
        )

    @property
    def tuning(self) -> bool:
        """True in the trials that choose hyper-parameters: score these on validation data, the others on test data."""
        return bool(self.size.get("tuning"))

    @property
    def setup_seconds(self) -> float:
        """Seconds that the shared set-up asked for so far took to build, each artefact once, whoever built it.

        For a claim about total compute. Contended, as all seconds outside timing rounds; where FLOPs will do, count
        them in the builder and write them into a file beside the model.
        """
        return sum(self.setup.values())

    def tuned(self, name: str) -> Any:
        """The hyper-parameter chosen for this arm from the claim's grid, on validation data and other seeds."""
        if name not in self.tuned_values:
            raise UserError(f'"{name}" is not in the claim\'s tuning grid{nearest(name, self.tuned_values)}')
        return self.tuned_values[name]

    def block(self, items: Sequence[T]) -> Sequence[T]:
        """This seed's disjoint share of a fixed set, so that the seeds of a set are independent."""
        if len(items) < BLOCKS:
            raise UserError(
                f"{len(items)} items cannot be shared among {BLOCKS} seeds; give at least {BLOCKS}"
            )
        index = self.seed % BLOCKS
        return items[index * len(items) // BLOCKS : (index + 1) * len(items) // BLOCKS]

    def shared(self, build: Callable[..., None], *, per_seed: bool = True, **arguments: Any) -> Path:
        """The folder that `build(folder, **arguments)` filled, built once, cached by content (`claimbench.shared`).

        build: a function at the top of a module; it gets `seed`, `device` and `dtype` if it names them. arguments:
        plain values and `trial.subject.ref(...)`. per_seed=False: one for all seeds, said with the verdict ("given one
        base model"). The files are read-only: load them afresh in every trial.
        """
        from claimbench.shared import shared

        return shared(self, build, per_seed=per_seed, arguments=arguments)

    def memory(self) -> AbstractContextManager[Memory]:
        """`with trial.memory() as used: ...; used.peak_bytes`: the block's own peak above what was held before."""
        from claimbench.meters import memory

        return memory(self.device)

    def count(self, function: Callable[[], Any]) -> Count:
        """FLOPs of `function()`, in a pass of its own: `.flops`, and `.complete` (False if an op had no formula)."""
        from claimbench.meters import count

        return count(function)

    def rounds(self, steps: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        """Median seconds of each arm's step: in random order after warm-up, with an A/A copy of the method."""
        from claimbench.meters import rounds

        timed = rounds(steps, method=self.method, seed=self.seed, device=self.device)
        if self.context is not None:
            self.context.timed(timed)
        return dict(timed.seconds)
