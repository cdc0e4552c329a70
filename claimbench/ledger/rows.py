"""Rows of the ledger as data, and back: a set, a trial's values, the specification a trial was run from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from claimbench.spec import Result, SubjectRef, TrialSpec, canonical


@dataclass(frozen=True)
class SetRow:
    """One set as stored."""

    uid: str
    serial: int
    paper: str
    claim: str
    scale: str
    environment: str
    fingerprint: str
    replication: int
    own: bool
    plan: dict[str, Any]
    rules_digest: str
    claim_text: str
    created: str


def moment() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def storable(text: str) -> str:
    """A program's words as every database can hold them: without NUL and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def trial_values(result: Result, environment: str, fence: int, code: str) -> dict[str, Any]:
    """A trial's row. NaN and infinities round-trip through JSON as Python writes them."""
    spec = result.spec
    return {
        "key": spec.key,
        "environment": environment,
        "fence": fence,
        "code": code,
        "paper": spec.paper,
        "measure": spec.measure,
        "arm": spec.arm,
        "point": canonical(spec.point),
        "seed": spec.seed,
        "size": canonical(spec.size),
        "subjects": canonical({name: asdict(ref) for name, ref in spec.subjects.items()}),
        "device": spec.device,
        "dtype": spec.dtype,
        "threads": spec.threads,
        "tuned": canonical(spec.tuned),
        "company": canonical(list(spec.company)),
        "status": result.status,
        "metrics": json.dumps(result.metrics),
        "failure": storable(result.failure),
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
        "timing": json.dumps(result.timing),
        "artefacts": canonical(sorted(result.artefacts)),
        "created": moment(),
    }


JSON_COLUMNS = ("point", "size", "subjects", "tuned", "company", "metrics", "timing", "artefacts")


def decoded(row: Any) -> dict[str, Any]:
    values = dict(row._mapping)
    return {name: json.loads(value) if name in JSON_COLUMNS else value for name, value in values.items()}


def spec_of(trial: dict[str, Any]) -> TrialSpec:
    """The specification that a stored trial was run from."""
    names = ("paper", "measure", "arm", "point", "seed", "size", "device", "dtype", "threads", "tuned")
    subjects = {name: SubjectRef(**ref) for name, ref in trial["subjects"].items()}
    return TrialSpec(**{n: trial[n] for n in names}, subjects=subjects, company=tuple(trial["company"]))


def set_values(row: SetRow) -> dict[str, Any]:
    return {**asdict(row), "own": int(row.own), "plan": canonical(row.plan)}


def set_row(row: Any) -> SetRow:
    return SetRow(**{**row._mapping, "own": bool(row.own), "plan": decode(row.plan)})


@lru_cache(maxsize=8192)
def decode(text: str) -> Any:
    """JSON that many rows have in common, such as points and plans; what is returned is theirs together."""
    return json.loads(text)
