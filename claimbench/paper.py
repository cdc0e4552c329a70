"""Papers and claims as data: what `paper.toml` may say, validated, with errors that name file, field and fix.

Nothing here imports a paper's code: listing, searching and planning read data only.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from claimbench.claim import Claim, Scale, SubjectSpec
from claimbench.errors import UserError, nearest
from claimbench.rule import (
    At,
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
    select,
    settings,
)

__all__ = [
    "SCALES",
    "At",
    "Claim",
    "Metric",
    "Paper",
    "Point",
    "Published",
    "Rule",
    "Scalar",
    "Scale",
    "SubjectSpec",
    "cells",
    "expand",
    "load_paper",
    "matches",
    "select",
    "settings",
]

SCALES = ("smoke", "quick", "full", "paper")


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
    model: type[Strict] | None = Paper
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
        owner: dict[str, type[Strict]] = {
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
