"""What passes between plan, ledger and runner: a trial to be run, the group it is run in, and what came of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "failed", "not-applicable", "lost"]
"""ok: metrics are there. failed: the arm's own doing (raised, diverged, out of memory or time).
not-applicable: this machine cannot. lost: ours or the machine's (killed worker, full disk), never an arm's failure."""


def canonical(value: Any) -> str:
    """JSON that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class SubjectRef:
    """A subject by name, path or hub id, with the hash of its content. Opening it is `claimbench.subjects`' work."""

    kind: str
    value: str  # what the user wrote, or the default's name
    identity: str  # content hash; the same content at another path is the same subject
    path: str = ""  # where it lies, if it lies anywhere
    label: str = ""  # what a report may show
    private: bool = False  # the user's own: label and path are never published


@dataclass(frozen=True)
class TrialSpec:
    """One arm at one point with one seed: the unit of running, recording, resuming and distributing.

    `key` is its identity. The claim's bounds, caveat and wording are no part of it, so that claims may share trials.
    """

    paper: str
    measure: str
    arm: str
    point: dict[str, Any]
    seed: int
    size: dict[str, Any] = field(default_factory=dict)
    subjects: dict[str, SubjectRef] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    tuned: dict[str, Any] = field(
        default_factory=dict
    )  # hyper-parameters chosen for this arm on validation data
    company: tuple[
        str, ...
    ] = ()  # timing: the arms that share the round, since they share the machine's state

    @cached_property
    def key(self) -> str:
        return digest(
            {
                "paper": self.paper,
                "measure": self.measure,
                "arm": self.arm,
                "point": self.point,
                "seed": self.seed,
                "size": self.size,
                "subjects": {name: ref.identity for name, ref in self.subjects.items()},
                "device": self.device,
                "dtype": self.dtype,
                "threads": self.threads,
                "tuned": self.tuned,
                "company": list(self.company),
            }
        )


@dataclass(frozen=True)
class Group:
    """Trials that one call of the measure runs: one trial, unless the claim says `together` or `timing`."""

    specs: tuple[TrialSpec, ...]
    folder: Path  # the paper's folder; its `claims.py` is imported by the worker alone
    metrics: tuple[str, ...]  # the names that every result must hold, finite
    timing: bool = False
    method: str = ""  # timing: the arm that runs twice (A/A)
    listed: bool = False  # the measure takes a list of trials
    time_limit: float = 600.0  # seconds, for the whole group
    memory_limit: float = 0.0  # bytes; 0: no limit

    @property
    def key(self) -> str:
        return self.specs[0].key if len(self.specs) == 1 else digest(sorted(s.key for s in self.specs))


@dataclass
class Result:
    """What came of one trial."""

    spec: TrialSpec
    status: Status
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""  # one line: "memory: 5.1 GiB of 4.0 GiB", "ValueError: ...", "time: 600 s"
    detail: str = ""  # the traceback or the last output, for the user's eyes; never published
    seconds: float = 0.0  # of the group's call, divided by its trials; contended, for expectations only
    peak_bytes: int = 0  # largest resident size seen
    modules: dict[str, str] = field(default_factory=dict)  # project module -> digest of its source
    packages: dict[str, str] = field(default_factory=dict)  # distribution -> version
    timing: dict[str, Any] = field(default_factory=dict)  # rounds: A/A ratio, load, steal, disturbed
    artefacts: dict[str, float] = field(
        default_factory=dict
    )  # shared set-up used: key -> seconds it cost once
