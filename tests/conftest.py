"""What several test files need: a place of its own for every cache, ledger and setting, and papers made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

PAPER = """
id = "{id}"
title = "A paper about {id}"
group = "{group}"
year = 2024
authors = ["A. Author"]
summary = "It says that one thing is larger than another."

[[claim]]
id = "larger"
statement = "The method is larger than the baseline."
published = {{ value = 1.0, where = "abstract", rule = 0, at = {{ n = 4 }} }}
method = "method"
baselines = ["baseline"]
metrics.size = {{ kind = "mean", better = "higher", resolution = 1e-6, on_failure = 0.0 }}
sweep = {{ n = [1, 2, 4] }}
varies = ["noise"]
rules = [{{ effect = "difference", metric = "size", against = "baseline", at_least = 0.5 }}]
size = {{ scale_of_noise = 0.1, steps = 1 }}
caveat = "Made for a test."
[claim.scales.smoke]
[claim.scales.quick]
seconds = 0.01
[claim.scales.full]
gpu = true
"""

CLAIMS = """
import random

from claimbench.trial import Trial, measure


@measure("larger")
def larger(trial: Trial) -> dict[str, float]:
    noise = random.Random(f"{trial.seed}-{trial.arm}-{trial.point}").gauss(0.0, trial.size["scale_of_noise"])
    return {"size": trial.point["n"] + (1.0 if trial.arm == "method" else 0.0) + noise}
"""

MakePaper = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Ledger and settings of one's own; the cache too, except where a test needs downloads or built models."""
    monkeypatch.setenv("CLAIMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLAIMBENCH_CONFIG", str(tmp_path / "config"))
    if "shared_cache" not in request.fixturenames:
        monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLAIMBENCH_SHELF", raising=False)


@pytest.fixture
def shared_cache() -> None:
    """Use the user's cache of downloads and converted models: they are checked by hash wherever they come from."""


@pytest.fixture
def make_paper(tmp_path: Path) -> MakePaper:
    """`make_paper("paper-id", group="theory", toml=..., claims=...)` writes a paper on the shelf `tmp_path/shelf`."""

    def make(
        name: str = "toy",
        group: str = "theory",
        toml: str = PAPER,
        claims: str = CLAIMS,
        shelf: str = "shelf",
    ) -> Path:
        folder = tmp_path / shelf / group / name.replace("-", "_")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "paper.toml").write_text(toml.format(id=name, group=group), encoding="utf-8")
        (folder / "claims.py").write_text(claims, encoding="utf-8")
        return folder

    return make
