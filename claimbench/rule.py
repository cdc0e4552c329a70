"""The words of a rule: metrics, effects with bounds, the paper's own figures, and the points that a rule names."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from claimbench.errors import UserError

Scalar = str | int | float | bool
Point = dict[str, Scalar]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(Strict):
    """What a number is. `kind` decides how its interval is made (see `claimbench.rules`)."""

    kind: Literal["exact", "mean", "proportion", "jumpy", "time"]
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    resolution: float = Field(default=0.0, ge=0)  # the smallest difference that one seed's value can show
    items: int | str | None = (
        None  # proportion: how many cases one seed's value is a share of (a number or a size's name)
    )
    on_failure: float | None = None  # the value when an arm diverges or runs out of memory or time
    derived: bool = False  # made by @derive from one seed's trials
    label: str = ""

    @model_validator(mode="after")
    def _check(self) -> Metric:
        if self.kind == "proportion" and self.items is None:
            raise ValueError(
                "a proportion needs items = N (or a size's name): how many cases one value is a share of"
            )
        if self.kind != "proportion" and self.items is not None:
            raise ValueError(f'items belongs to kind = "proportion", not "{self.kind}"')
        if isinstance(self.items, int) and self.items < 1:
            raise ValueError(f"items = {self.items}; one value is a share of at least 1 case")
        if self.on_failure is not None:
            if math.isnan(self.on_failure):
                raise ValueError("on_failure must be a number; leave it out if a failed trial has no value")
            if self.kind == "mean" and math.isinf(self.on_failure):
                raise ValueError(
                    'on_failure = inf has no mean over seeds; give a finite value, or kind = "jumpy"'
                )
            if self.kind == "proportion" and not 0 <= self.on_failure <= 1:
                raise ValueError(f"on_failure = {self.on_failure:g}; a proportion lies between 0 and 1")
        return self


At = Literal["every", "first", "last", "mean"] | Point | list[Point]


class Published(Strict):
    """The paper's own figure and where it stands."""

    value: float
    unit: str = ""
    where: str
    note: str = ""
    scale: Literal["linear", "log"] = (
        "linear"  # how a plot shows it; whether it lies in an interval does not depend on it
    )
    rule: int | None = (
        None  # which rule's effect the figure is comparable with; None: not directly comparable
    )
    against: str | None = None  # where the rule has several baselines: which one
    at: Point | None = None  # where the rule has several cells: which one
    factor: float = 1.0  # value times factor is in the effect's unit: 0.01 for accuracy points beside a share


class Rule(Strict):
    """One condition on an effect. Without a bound it is only reported."""

    effect: Literal["value", "difference", "ratio", "slope"]
    metric: str
    arm: str | None = None  # default: the claim's method; a derived metric has no arm
    against: str | list[str] | None = (
        None  # difference and ratio: a baseline, several, or "baselines": each must be beaten
    )
    at: At = "every"
    along: str | None = None  # slope: the sweep variable on the horizontal axis
    need: str | None = None  # "2/3": how many cells must hold; default: all
    at_least: float | None = None
    at_most: float | None = None
    sure: float | None = None  # the estimate meets the bound and the interval clears this
    label: str = ""

    @property
    def bounded(self) -> bool:
        return self.at_least is not None or self.at_most is not None

    def needed(self, cells: int) -> int:
        """How many of `cells` must hold."""
        if self.need is None:
            return cells
        wanted, of = (int(part) for part in self.need.split("/"))
        if of != cells:
            raise UserError(f'need = "{self.need}" but the rule has {cells} cells; write "{wanted}/{cells}"')
        return wanted

    @field_validator("need")
    @classmethod
    def _need(cls, value: str | None) -> str | None:
        if value is not None:
            parts = value.split("/")
            if (
                len(parts) != 2
                or not all(p.isdigit() for p in parts)
                or not 0 < int(parts[0]) <= int(parts[1])
            ):
                raise ValueError(f'need = "{value}"; write it as "2/3": how many cells of how many must hold')
        return value

    @model_validator(mode="after")
    def _check(self) -> Rule:
        if self.effect in ("difference", "ratio") and self.against is None:
            raise ValueError(f'a {self.effect} needs against = "..." (a baseline, a list, or "baselines")')
        if self.effect in ("value", "slope") and self.against is not None:
            raise ValueError(f"a {self.effect} takes no against; use difference or ratio")
        if self.effect == "slope" and self.along is None:
            raise ValueError('a slope needs along = "..." (the sweep variable)')
        if self.effect != "slope" and self.along is not None:
            raise ValueError("along belongs to a slope")
        for name in ("at_least", "at_most", "sure"):
            bound = getattr(self, name)
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"{name} = {bound}; a bound must be finite")
            if bound is not None and bound <= 0 and self.effect == "ratio":
                raise ValueError(
                    f"{name} = {bound:g}; a ratio is judged on the log scale, so its bounds are positive"
                )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least = {self.at_least:g} lies above at_most = {self.at_most:g}")
        if self.need is not None and not self.bounded:
            raise ValueError("need counts cells that meet a bound; give at_least or at_most")
        if self.at in ([], {}):
            raise ValueError("at is empty; leave it out for every point, or name points: at = { n = 4096 }")
        if self.sure is not None and not self.bounded:
            raise ValueError("sure needs a bound beside it: at_least or at_most")
        if self.sure is not None and self.at_least is not None and self.at_most is not None:
            raise ValueError("sure goes with one bound, not two; write two rules")
        if self.sure is not None and self.at_least is not None and self.sure > self.at_least:
            raise ValueError("sure must not exceed at_least")
        if self.sure is not None and self.at_most is not None and self.sure < self.at_most:
            raise ValueError("sure must not be below at_most")
        return self


def expand(sweep: dict[str, list[Scalar]] | list[Point]) -> list[Point]:
    """A sweep as points: a table of lists is crossed, in the file's order; a list of points is itself."""
    if isinstance(sweep, list):
        return [dict(p) for p in sweep]
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def matches(point: Point, wanted: Point) -> bool:
    return all(name in point and point[name] == value for name, value in wanted.items())


def select(points: list[Point], at: At) -> list[Point]:
    """The points that a rule's `at` names ("mean" uses them all)."""
    if at in ("every", "mean"):
        return points
    if at == "first":
        return points[:1]
    if at == "last":
        return points[-1:]
    wanted = at if isinstance(at, list) else [at]
    return [p for p in points if any(matches(p, w) for w in wanted)]  # type: ignore[arg-type]  # the words are handled above


def settings(points: list[Point], along: str) -> list[tuple[Point, list[int]]]:
    """Each setting of the variables other than `along`, in the order of the sweep, with the places of its
    points."""
    found: list[tuple[Point, list[int]]] = []
    for place, point in enumerate(points):
        rest = {name: value for name, value in point.items() if name != along}
        members = next((places for other, places in found if other == rest), None)
        if members is None:
            found.append((rest, [place]))
        else:
            members.append(place)
    return found


def cells(points: list[Point], rule: Rule) -> list[Point]:
    """What a rule judges one by one against each baseline; an average over points is one cell without a
    name."""
    if rule.at == "mean":
        return [{}]
    choices = [rest for rest, _ in settings(points, str(rule.along))] if rule.effect == "slope" else points
    return select(choices, rule.at)
