"""What goes into a judgement and what comes out of it: data only, and JSON for the ledger and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from claimbench.spec import Status

State = Literal["holds", "fails", "undecided"]
CellState = Literal["holds", "outside", "unclear", "unjudged", "reported"]
"""holds: the interval lies within the bounds. outside: wholly beyond one. unclear: neither.
unjudged: a number is missing, so there is no interval. reported: the rule has no bound."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A trial as the rules see it: what it measured and how it ended, nothing of where or when."""

    arm: str
    point: Mapping[str, Any]
    seed: int
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    aa: float | None = (
        None  # timing: seconds of the method's A/A copy over seconds of the method, in this trial's round
    )


@dataclass
class Cell:
    """One effect with its interval, at the level at which *holds* is judged.

    level: one-sided error of the interval at this look; 0 where the interval is unbounded or nothing is
    uncertain. extra: fail_low, fail_high, fail_level (the interval of *fails*), share (of seeds on the rule's
    side), last_two_slope and largest_residual (on logarithms) where they belong.
    """

    against: str | None
    point: dict[str, Any]
    estimate: float
    low: float
    high: float
    level: float
    n: int
    state: CellState
    note: str = ""
    extra: dict[str, float] = field(default_factory=dict)


@dataclass
class RuleVerdict:
    """One rule with its cells: each baseline's points in the order of the sweep."""

    index: int
    given: bool
    text: str
    state: Literal["holds", "fails", "undecided", "reported"]
    reason: str
    needed: int  # cells per baseline that must hold
    holds_share: float  # one-sided error that a cell's *holds* may spend over all looks
    fails_share: float  # the same for *outside*
    cells: list[Cell]


@dataclass
class Figure:
    """The paper's own number beside the cell that it is comparable with. inside is None where there is no
    such cell."""

    value: float  # in the effect's unit
    where: str
    rule: int | None
    against: str | None
    point: dict[str, Any] | None
    inside: bool | None
    note: str = ""


@dataclass
class Verdict:
    """The judgement of one set at one look."""

    state: State
    reason: str
    scale: str
    rules: list[RuleVerdict]
    seeds: list[int]
    look: int  # counted from 1; 0: not at a look
    schedule: list[int]
    failed: int
    lost: int
    not_applicable: int
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    aa: Cell | None = None  # timing: the A/A ratio over rounds

    def to_json(self) -> dict[str, Any]:
        """Plain data for any JSON writer. NaN and infinities, which JSON lacks, become {"$float": "nan"} and
        the like."""
        return {key: _encode(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_json`. Keys of a later version are ignored."""
        plain = _known(cls, {key: _decode(value) for key, value in data.items()})
        plain["rules"] = [
            RuleVerdict(
                **{**_known(RuleVerdict, rule), "cells": [Cell(**_known(Cell, c)) for c in rule["cells"]]}
            )
            for rule in plain["rules"]
        ]
        plain["figures"] = [Figure(**_known(Figure, figure)) for figure in plain.get("figures", [])]
        if plain.get("aa") is not None:
            plain["aa"] = Cell(**_known(Cell, plain["aa"]))
        return cls(**plain)


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {key: _encode(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(inner) for inner in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$float"} and isinstance(value["$float"], str):
            return float(value["$float"])
        return {key: _decode(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_decode(inner) for inner in value]
    return value
