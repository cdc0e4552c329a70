"""A claim: what is compared, on what, at which scales, and the rules that judge it, checked against each other."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from claimbench.errors import UserError, nearest
from claimbench.rule import (
    Metric,
    Name,
    Point,
    Published,
    Rule,
    Scalar,
    Strict,
    cells,
    expand,
    matches,
    settings,
)


class SubjectSpec(Strict):
    """Something the arms act on and a user may replace. With `default = ""` it is absent unless the user gives it."""

    kind: Literal["causal-lm", "sentence-encoder", "chat", "text", "table", "images", "callable"]
    default: str
    note: str = ""

    @property
    def optional(self) -> bool:
        return not self.default


class Scale(BaseModel):
    """What a scale overrides. Keys that are not fields are sizes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    sweep: dict[str, list[Scalar]] | list[Point] | None = None
    baselines: list[str] | None = None
    subjects: dict[str, str] | None = None
    seconds: float | None = (
        None  # expected seconds of one trial (a round, if timing) on 2 CPU cores or the scale's GPU
    )
    memory_gib: float | None = None  # expected peak
    time_limit: float | None = None  # seconds; default: ten times `seconds`, at least 120
    gpu: bool = False  # needs one

    @property
    def sizes(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Claim(Strict):
    """One measurable sentence of a paper: what is compared, and the rules that judge it."""

    id: Name
    statement: str
    published: Published | list[Published] | None = None
    measure: str = ""
    method: str
    baselines: list[str] = []
    metrics: dict[str, Metric]
    sweep: dict[str, list[Scalar]] | list[Point] = {}
    varies: list[str]
    fixed: list[str] = []
    rules: list[Rule] = Field(min_length=1)
    given: list[Rule] = []
    subjects: dict[str, SubjectSpec] = {}
    size: dict[str, Any] = {}
    together: list[Literal["arm", "point", "seed"]] = []
    timing: bool = False
    threads: int = Field(default=1, ge=1)
    dtype: str = "float32"
    caveat: str
    tuning: dict[str, list[Scalar]] = {}
    tune_for: str = ""  # the metric that tuning optimises; default: the first one declared with `better`
    scales: dict[Literal["smoke", "quick", "full", "paper"], Scale] = Field(min_length=1)

    @property
    def measured_by(self) -> str:
        return self.measure or self.id

    @property
    def figures(self) -> list[Published]:
        if self.published is None:
            return []
        return self.published if isinstance(self.published, list) else [self.published]

    def arms(self, scale: str) -> list[str]:
        """The method, then the baselines of that scale."""
        overridden = self.scales[scale].baselines if scale in self.scales else None
        return [self.method, *(self.baselines if overridden is None else overridden)]

    def points(self, scale: str) -> list[Point]:
        """The sweep as points, in the order of the file; one empty point without a sweep."""
        overridden = self.scales[scale].sweep if scale in self.scales else None
        return expand(self.sweep if overridden is None else overridden)

    def sizes(self, scale: str) -> dict[str, Any]:
        return {**self.size, **(self.scales[scale].sizes if scale in self.scales else {})}

    def opponents(self, rule: Rule, scale: str) -> list[str | None]:
        """What a rule is judged against at a scale: each of its baselines; [None] for a value or a slope."""
        if rule.against is None:
            return [None]
        named = [rule.against] if isinstance(rule.against, str) else rule.against
        every = [arm for name in named for arm in (self.arms(scale)[1:] if name == "baselines" else [name])]
        return [arm for arm in dict.fromkeys(every) if arm != (rule.arm or self.method)]

    @model_validator(mode="after")
    def _check(self) -> Claim:
        if self.method in self.baselines:
            raise ValueError(f'baselines: "{self.method}" is the method')
        for scale, changes in self.scales.items():
            for arm in changes.baselines or []:
                if arm not in self.baselines:
                    raise ValueError(
                        f'scales.{scale}.baselines: no baseline "{arm}"{nearest(arm, self.baselines)}'
                    )
            for name in changes.subjects or {}:
                if name not in self.subjects:
                    raise ValueError(
                        f'scales.{scale}.subjects: no subject "{name}"{nearest(name, self.subjects)}'
                    )
            if len({str(sorted(p.items())) for p in self.points(scale)}) != len(self.points(scale)):
                raise ValueError(f"scales.{scale}.sweep: a point stands there twice")
        for kind, rules in (("rules", self.rules), ("given", self.given)):
            for index, rule in enumerate(rules):
                self._check_rule(f"{kind}[{index}]", rule)
        if not any(rule.bounded for rule in self.rules):
            raise ValueError(
                "rules: none has a bound (at_least or at_most), so nothing could ever be decided"
            )
        for index, rule in enumerate(self.given):
            if not rule.bounded:
                raise ValueError(
                    f"given[{index}]: has no bound, so it would always be met; give at_least or at_most"
                )
        for figure in self.figures:
            self._check_figure(figure)
        for name, metric in self.metrics.items():
            for scale in self.scales:
                items = self.sizes(scale).get(metric.items) if isinstance(metric.items, str) else 1
                if not isinstance(items, int) or items < 1:
                    raise ValueError(
                        f'metrics.{name}.items: at scale {scale} there is no whole size "{metric.items}"'
                        f"{nearest(str(metric.items), self.sizes(scale))}"
                    )
        self._check_tuning()
        if self.timing and "arm" not in self.together:
            object.__setattr__(self, "together", ["arm", *self.together])
        return self

    def _check_tuning(self) -> None:
        for name, values in self.tuning.items():
            if len({str(value) for value in values}) < max(1, len(values)):
                raise ValueError(f"tuning.{name}: {values} names no values, or one of them twice")
        usable = [name for name, metric in self.metrics.items() if metric.better and not metric.derived]
        if self.tuning and self.tune_for and self.tune_for not in usable:
            what = f'"{self.tune_for}" is no metric that a trial returns and that says which way is better'
            raise ValueError(f"tune_for: {what}{nearest(self.tune_for, usable)}")
        if self.tuning and not usable:
            raise ValueError("tuning: no metric that a trial returns says which way is better")

    def _check_rule(self, where: str, rule: Rule) -> None:
        arms = [self.method, *self.baselines]
        metric = self.metrics.get(rule.metric)
        if metric is None:
            raise ValueError(
                f'{where}.metric: "{rule.metric}" is not declared{nearest(rule.metric, self.metrics)}'
            )
        if metric.kind == "time" and not self.timing:
            raise ValueError(f'{where}.metric: "{rule.metric}" is a time; set timing = true on the claim')
        if metric.derived and (rule.effect != "value" or rule.arm is not None):
            raise ValueError(
                f'{where}: the derived metric "{rule.metric}" is judged as a value without an arm'
            )
        if metric.derived and (rule.at != "every" or rule.need is not None):
            raise ValueError(
                f'{where}: the derived metric "{rule.metric}" is one number a seed; leave out at and need'
            )
        if rule.effect in ("ratio", "slope") and metric.on_failure is not None and metric.on_failure <= 0:
            raise ValueError(
                f"{where}: a {rule.effect} is taken on logarithms; "
                f"metrics.{rule.metric}.on_failure must be positive"
            )
        if rule.effect == "slope" and metric.on_failure is not None and math.isinf(metric.on_failure):
            raise ValueError(
                f"{where}: a slope needs finite values; metrics.{rule.metric}.on_failure is infinite"
            )
        against = [rule.against] if isinstance(rule.against, str) else rule.against or []
        for arm in [rule.arm, *against]:
            if arm is not None and arm != "baselines" and arm not in arms:
                raise ValueError(f'{where}: no arm "{arm}"{nearest(arm, arms)}')
        if (rule.arm or self.method) in against:
            raise ValueError(f'{where}.against: "{rule.arm or self.method}" would be compared with itself')
        if "baselines" in against and not self.baselines:
            raise ValueError(f"{where}.against: the claim has no baselines")
        for scale in self.scales:
            if scale != "smoke":
                self._check_rule_at(where, rule, scale)

    def _check_rule_at(self, where: str, rule: Rule, scale: str) -> None:
        if self.metrics[rule.metric].derived:
            return
        points, measured = self.points(scale), self.arms(scale)
        opponents = self.opponents(rule, scale)
        if rule.bounded:
            for arm in [rule.arm, *opponents]:
                if arm is not None and arm not in measured:
                    raise ValueError(
                        f'{where}: scales.{scale}.baselines leaves out "{arm}", which the rule needs'
                    )
            if not opponents:
                raise ValueError(f"{where}.against: no other arm is measured at scale {scale}")
        if rule.effect == "slope":
            along = str(rule.along)
            if any(along not in p for p in points):
                raise ValueError(f'{where}.along: "{along}" is not swept at scale {scale}')
            for rest, places in settings(points, along):
                values = {points[place][along] for place in places}
                beside = f" beside {rest}" if rest else ""
                if not all(isinstance(v, int | float) and v > 0 for v in values):
                    raise ValueError(
                        f"{where}.along: {along} must be positive numbers to stand on a log scale"
                    )
                if len(values) < 3:
                    raise ValueError(
                        f"{where}: a slope needs at least 3 values of {along}; "
                        f"scale {scale} has {len(values)}{beside}"
                    )
        choices = (
            [rest for rest, _ in settings(points, str(rule.along))] if rule.effect == "slope" else points
        )
        for wanted in (
            rule.at if isinstance(rule.at, list) else [rule.at] if isinstance(rule.at, dict) else []
        ):
            if not any(matches(p, wanted) for p in choices):
                what = f"setting beside {rule.along}" if rule.effect == "slope" else "point of the sweep"
                raise ValueError(f"{where}.at: {wanted} is no {what} at scale {scale}")
        if rule.need is not None:
            try:
                rule.needed(len(cells(points, rule)))
            except UserError as error:
                raise ValueError(f"{where}, scale {scale}: {error}") from None

    def _check_figure(self, figure: Published) -> None:
        if figure.rule is None:
            return
        if not 0 <= figure.rule < len(self.rules):
            raise ValueError(
                f"published.rule = {figure.rule}; there are {len(self.rules)} rules, counted from 0"
            )
        rule = self.rules[figure.rule]
        found = 0
        for scale in self.scales:
            points: list[Point] = (
                [{}] if self.metrics[rule.metric].derived else cells(self.points(scale), rule)
            )
            opponents = [o for o in self.opponents(rule, scale) if figure.against in (None, o)]
            meant = len(opponents) * sum(figure.at is None or matches(p, figure.at) for p in points)
            if meant > 1:
                raise ValueError(
                    f"published: {meant} cells of rules[{figure.rule}] could be meant at scale {scale}; "
                    'say which with against = "..." and at = {...}'
                )
            found += meant
        if not found:
            raise ValueError(f"published: rules[{figure.rule}] has no cell with these against and at")
