"""Papers and claims as data: what `paper.toml` may say, validated, with errors that name file, field and fix.

Nothing here imports a paper's code: listing, searching and planning read data only.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from claimbench.errors import UserError, nearest

GROUPS = (
    "sequence",
    "vision",
    "compression",
    "training",
    "data",
    "inference",
    "theory",
    "evaluation",
    "science",
)
SCALES = ("smoke", "quick", "full", "paper")

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


class SubjectSpec(Strict):
    """Something the arms act on and a user may replace."""

    kind: Literal["causal-lm", "sentence-encoder", "chat", "text", "table", "images", "callable"]
    default: str
    note: str = ""


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
        overridden = self.scales[scale].baselines if scale in self.scales else None  # type: ignore[index]  # narrowed by `in`
        return [self.method, *(self.baselines if overridden is None else overridden)]

    def points(self, scale: str) -> list[Point]:
        """The sweep as points, in the order of the file; one empty point without a sweep."""
        overridden = self.scales[scale].sweep if scale in self.scales else None  # type: ignore[index]  # narrowed by `in`
        return expand(self.sweep if overridden is None else overridden)

    def sizes(self, scale: str) -> dict[str, Any]:
        return {**self.size, **(self.scales[scale].sizes if scale in self.scales else {})}  # type: ignore[index]  # narrowed by `in`

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
        for scale, settings in self.scales.items():
            for arm in settings.baselines or []:
                if arm not in self.baselines:
                    raise ValueError(
                        f'scales.{scale}.baselines: no baseline "{arm}"{nearest(arm, self.baselines)}'
                    )
            for name in settings.subjects or {}:
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
        if self.tuning and self.tune_for and self.tune_for not in self.metrics:
            raise ValueError(f'tune_for: no metric "{self.tune_for}"{nearest(self.tune_for, self.metrics)}')
        if self.timing and "arm" not in self.together:
            object.__setattr__(self, "together", ["arm", *self.together])
        return self

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


class Paper(Strict):
    """A published work on the shelf."""

    id: Name
    title: str
    group: str
    year: int = Field(ge=1900, le=2100)
    arxiv: str = ""
    authors: list[str]
    code: str = ""
    topics: list[str] = []
    summary: str
    extras: list[str] = []  # optional dependency groups of claimbench that its code needs
    claim: list[Claim] = Field(min_length=1)
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _check(self) -> Paper:
        seen: set[str] = set()
        for claim in self.claim:
            if claim.id in seen:
                raise ValueError(f'claim id "{claim.id}" stands twice')
            seen.add(claim.id)
        return self

    def find_claim(self, name: str) -> Claim:
        for claim in self.claim:
            if claim.id == name.replace("_", "-"):
                return claim
        raise UserError(f'no claim "{name}" in {self.id}{nearest(name, [c.id for c in self.claim])}')


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


def load_paper(path: Path) -> Paper:
    """Read and validate one `paper.toml`. Raises UserError with file, field and fix in one line."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: malformed TOML: {error}") from None
    try:
        paper = Paper.model_validate({**data, "folder": path.parent})
    except ValidationError as error:
        raise UserError(f"{path}: {_first(error, data)}") from None
    if paper.folder.name.replace("_", "-") != paper.id:
        raise UserError(
            f'{path}: id = "{paper.id}" does not match its folder "{paper.folder.name}"; rename one'
        )
    return paper


def _first(error: ValidationError, data: dict[str, Any]) -> str:
    """The first problem in one line. Claims are named by their id rather than their number."""
    problems = error.errors()
    problem = next(
        (p for p in problems if p["type"] == "extra_forbidden"), problems[0]
    )  # a misspelt key is also missing
    where: list[str] = []
    model: type[BaseModel] | None = Paper
    at: Any = data
    for part in problem["loc"]:
        if isinstance(part, int) and where and where[-1] == "claim":
            at = at[part] if isinstance(at, list) and part < len(at) else {}
            where[-1] = f'claim "{at.get("id", part) if isinstance(at, dict) else part}"'
            model = Claim
            continue
        at = (
            at.get(part)
            if isinstance(at, dict)
            else at[part]
            if isinstance(at, list) and isinstance(part, int)
            else None
        )
        where.append(str(part))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        owner = {
            "rules": Rule,
            "given": Rule,
            "metrics": Metric,
            "published": Published,
            "subjects": SubjectSpec,
        }
        holder = next((owner[w] for w in reversed(where[:-1]) if w in owner), model or Paper)
        message = f"unknown key{nearest(key, holder.model_fields)}"
    elif problem["type"] == "missing":
        message = "is missing; add it"
    return f"{'.'.join(where)}: {message}" if where else message
