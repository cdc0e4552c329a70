"""Claims to sets: which trials are planned together, before any of them runs.

A plan is data. It names arms, points, sizes, subjects and the schedule of seeds; its fingerprint says when two plans
are the same, so that a second run goes on where the first stopped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from claimbench.errors import UserError, nearest
from claimbench.paper import SCALES, Claim, Paper, Point, Scalar, matches
from claimbench.rules.looks import schedule
from claimbench.spec import Group, SubjectRef, TrialSpec, canonical, digest

FIRST_SEED = 1000  # published verdicts use these seeds and up; development uses those below
TUNING_SEED = 10**9  # tuning never sees a seed that is measured, in whatever replication
TUNING_SEEDS = 2


@dataclass(frozen=True)
class Overrides:
    """What the user asked to be different from the paper's row."""

    sizes: Mapping[str, str | Scalar] = field(default_factory=dict)
    at: Mapping[str, Sequence[str | Scalar]] = field(default_factory=dict)
    arms: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes or self.at or self.arms)


@dataclass(frozen=True)
class Plan:
    """A set to be: everything that decides which trials are in it."""

    paper: Paper
    claim: Claim
    scale: str
    arms: tuple[str, ...]
    points: tuple[Point, ...]
    sizes: Mapping[str, Any]
    subjects: Mapping[str, SubjectRef]
    device: str
    schedule: tuple[int, ...]
    first_seed: int = FIRST_SEED
    replication: int = 0
    own: bool = False
    time_limit: float | None = None
    memory_limit: float | None = None
    tuned: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # canonical(arm, point) -> chosen values

    @property
    def name(self) -> str:
        return f"{self.paper.id}/{self.claim.id}"

    @property
    def verdict_possible(self) -> bool:
        return self.scale != "smoke"

    def content(self) -> dict[str, Any]:
        """The plan as the ledger keeps it."""
        return {
            "measure": self.claim.measured_by,
            "arms": list(self.arms),
            "points": [dict(p) for p in self.points],
            "sizes": dict(self.sizes),
            "subjects": {
                n: {"identity": r.identity, "label": r.label, "private": r.private}
                for n, r in self.subjects.items()
            },
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.claim.threads,
            "schedule": list(self.schedule),
            "first_seed": self.first_seed,
            "tuning": {name: list(values) for name, values in self.claim.tuning.items()},
        }

    @property
    def fingerprint(self) -> str:
        subjects = {name: ref.identity for name, ref in self.subjects.items()}
        return digest([self.paper.id, self.claim.id, self.scale, {**self.content(), "subjects": subjects}])

    @property
    def dtype(self) -> str:
        return str(self.sizes.get("dtype", self.claim.dtype))

    def seeds(self, count: int) -> list[int]:
        return [self.first_seed + index for index in range(count)]

    def specs(self, seeds: Sequence[int]) -> list[TrialSpec]:
        """The set's trials for these seeds, seed by seed so that a run cut short has whole seeds."""
        return [
            self._spec(arm, point, seed, tuned=self.tuned.get(canonical([arm, point]), {}))
            for seed, point, arm in itertools.product(seeds, self.points, self.arms)
        ]

    def tuning_specs(self) -> list[TrialSpec]:
        """The grid for every arm and point, on seeds that are never measured."""
        grid = [
            dict(zip(self.claim.tuning, v, strict=True))
            for v in itertools.product(*self.claim.tuning.values())
        ]
        if not self.claim.tuning:
            return []
        seeds = range(TUNING_SEED, TUNING_SEED + TUNING_SEEDS)
        return [
            self._spec(arm, point, seed, tuned=values, tuning=True)
            for seed, point, arm, values in itertools.product(seeds, self.points, self.arms, grid)
        ]

    def _spec(
        self, arm: str, point: Point, seed: int, *, tuned: Mapping[str, Any], tuning: bool = False
    ) -> TrialSpec:
        return TrialSpec(
            paper=self.paper.id,
            measure=self.claim.measured_by,
            arm=arm,
            point=dict(point),
            seed=seed,
            size={**self.sizes, "tuning": True} if tuning else dict(self.sizes),
            subjects=dict(self.subjects),
            device=self.device,
            dtype=self.dtype,
            threads=self.claim.threads,
            tuned=dict(tuned),
            company=self.arms if self.claim.timing else (),
        )

    def groups(self, specs: Sequence[TrialSpec]) -> list[Group]:
        """Trials gathered into calls of the measure, as the claim's `together` says."""
        together = set(self.claim.together)

        def call(spec: TrialSpec) -> str:
            return canonical(
                [
                    None if "seed" in together else spec.seed,
                    None if "point" in together else spec.point,
                    None if "arm" in together else spec.arm,
                    spec.tuned if self._apart(spec) else None,
                    bool(spec.size.get("tuning")),
                ]
            )

        gathered: dict[str, list[TrialSpec]] = {}
        for spec in specs:
            gathered.setdefault(call(spec), []).append(spec)
        settings = self.claim.scales[self.scale]  # type: ignore[index]  # a plan's scale is one of the claim's
        expected = settings.seconds or 0.0
        limit = self.time_limit or settings.time_limit or max(120.0, 10.0 * expected)
        names = tuple(name for name, metric in self.claim.metrics.items() if not metric.derived)
        return [
            Group(
                specs=tuple(members),
                folder=self.paper.folder,
                metrics=names,
                timing=self.claim.timing,
                method=self.claim.method,
                listed=bool(together),
                time_limit=limit * (1 if self.claim.timing else len(members)),
                memory_limit=self.memory_limit or 0.0,
            )
            for members in gathered.values()
        ]

    def _apart(self, spec: TrialSpec) -> bool:
        """True if trials with other tuned values belong to other calls; a timing round holds every arm once."""
        if "arm" not in self.claim.together:
            return bool(self.claim.tuning)
        return self.claim.timing and bool(spec.size.get("tuning"))

    def expected_seconds(self) -> float | None:
        return self.claim.scales[self.scale].seconds  # type: ignore[index]  # as above

    def with_tuned(self, tuned: Mapping[str, Mapping[str, Any]]) -> Plan:
        return replace(self, tuned=tuned)


def make_plan(
    paper: Paper,
    claim: Claim,
    *,
    scale: str,
    subjects: Mapping[str, SubjectRef],
    device: str = "cpu",
    overrides: Overrides | None = None,
    development: bool = False,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    own: bool = False,
) -> Plan:
    """A claim at a scale, with the user's changes, as a plan. Raises UserError naming the flag and the nearest name.

    own: the user has replaced a subject, so that the set is of their own setting even where the subject is public.
    """
    overrides = overrides or Overrides()
    name = f"{paper.id}/{claim.id}"
    if scale not in SCALES:
        raise UserError(f'--scale: no scale "{scale}"{nearest(scale, SCALES)}')
    if scale not in claim.scales:
        raise UserError(
            f'--scale: {name} has no scale "{scale}"; it can be seen at: {", ".join(claim.scales)}'
        )
    sizes = {**claim.sizes(scale), **_sizes(name, claim, scale, overrides.sizes)}
    points = _points(name, claim.points(scale), overrides.at)
    arms = claim.arms(scale)
    for arm in overrides.arms:
        if arm not in [claim.method, *claim.baselines]:
            raise UserError(
                f'--arm: {name} has no arm "{arm}"{nearest(arm, [claim.method, *claim.baselines])}'
            )
    if overrides.arms and claim.method not in overrides.arms:
        raise UserError(
            f"--arm: without {claim.method}, the method, nothing could be judged; add --arm {claim.method}"
        )
    if overrides.arms:
        arms = [arm for arm in [claim.method, *claim.baselines] if arm in overrides.arms]
    return Plan(
        paper=paper,
        claim=claim,
        scale=scale,
        arms=tuple(arms),
        points=tuple(points),
        sizes=sizes,
        subjects=subjects,
        device=device,
        schedule=(1,) if scale == "smoke" else schedule(claim),
        first_seed=0 if development or scale == "smoke" else FIRST_SEED,
        own=own or bool(overrides) or any(ref.private for ref in subjects.values()),
        time_limit=time_limit,
        memory_limit=memory_limit,
    )


def _sizes(name: str, claim: Claim, scale: str, given: Mapping[str, str | Scalar]) -> dict[str, Any]:
    known = claim.sizes(scale)
    allowed = {*known, "dtype"}
    out: dict[str, Any] = {}
    for key, value in given.items():
        if key not in allowed:
            raise UserError(f'--size: {name} has no size "{key}"{nearest(key, allowed)}')
        out[key] = convert(value, known.get(key, ""), f"--size {key}")
    return out


def _points(name: str, points: list[Point], at: Mapping[str, Sequence[str | Scalar]]) -> list[Point]:
    """Keep the points with these values; values that the sweep does not hold make points of the user's own."""
    for key, values in at.items():
        if not points or key not in points[0]:
            raise UserError(f'--at: {name} does not sweep "{key}"{nearest(key, points[0] if points else [])}')
        wanted = [convert(value, points[0][key], f"--at {key}") for value in values]
        chosen: list[Point] = []
        for value in wanted:
            kept = [p for p in points if matches(p, {key: value})]
            for point in kept or [{**p, key: value} for p in points]:
                if point not in chosen:
                    chosen.append(point)
        points = chosen
    return points


def convert(value: str | Scalar, like: Any, where: str) -> Any:
    """A word from the command line as the type of the value it replaces."""
    if not isinstance(value, str) or isinstance(like, str):
        return value
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(like, list):
            return [convert(part, like[0] if like else "", where) for part in value.split(",")]
        return type(like)(value)
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{where}: "{value}" is no {type(like).__name__}; the default is {like!r}') from None


def rules_digest(claim: Claim) -> str:
    """What a verdict depends on besides the numbers."""
    return digest(
        {
            "rules": [r.model_dump() for r in claim.rules],
            "given": [r.model_dump() for r in claim.given],
            "metrics": {name: metric.model_dump() for name, metric in claim.metrics.items()},
            "method": claim.method,
        }
    )


def choose_tuned(
    plan: Plan, trials: Sequence[tuple[TrialSpec, Mapping[str, float]]]
) -> dict[str, dict[str, Any]]:
    """For every arm and point the grid values with the best mean over the tuning seeds.

    A trial without the metric (a failed one is given none) counts with the metric's `on_failure`, or as worst where
    there is none. Ties go to the value that stands earlier in the grid, whichever trial finished first.
    """
    metric_name = plan.claim.tune_for or next(
        n for n, m in plan.claim.metrics.items() if m.better and not m.derived
    )
    metric = plan.claim.metrics[metric_name]
    sign = -1.0 if metric.better == "lower" else 1.0
    worst = metric.on_failure if metric.on_failure is not None else -sign * float("inf")
    found = {spec.key: metrics for spec, metrics in trials}
    scores: dict[str, dict[str, list[float]]] = {}
    for spec in plan.tuning_specs():
        if spec.key in found:
            cell = scores.setdefault(canonical([spec.arm, spec.point]), {})
            score = sign * found[spec.key].get(metric_name, worst)
            cell.setdefault(canonical(spec.tuned), []).append(score)
    return {
        cell: json.loads(max(values, key=lambda v: sum(values[v]) / len(values[v])))
        for cell, values in scores.items()
    }
