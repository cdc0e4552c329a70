"""The Rashomon ratio's claims: every measure runs at smoke, what a table of one's own changes, the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claimbench.claim import Claim
from claimbench.paper import Paper, load_paper
from claimbench.papers.theory import rashomon
from claimbench.papers.theory.rashomon import claims, learners
from claimbench.subjects.tabular import Tabular, categorical_column, make_tabular, numeric_column
from claimbench.testing import (
    Given,
    check_derived,
    check_registry,
    declared,
    made_up,
    measured,
    smoke_trials,
)
from claimbench.trial import registry


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(Path(rashomon.__file__).parent / "paper.toml")


def found_at(claim: Claim, **arguments: Any) -> dict[str, dict[str, float]]:
    return measured(claim, registry(claims.__name__), smoke_trials(claim, **arguments))


def own_table(rows: int = 120) -> Tabular:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((rows, 6))
    colours = np.where(numbers[:, 0] > 0, "red", "blue")
    columns = {f"x{place}": numeric_column(numbers[:, place]) for place in range(6)}
    label = np.where(numbers[:, 1] > 0.3, "yes", "no")
    words = {"colour": categorical_column(colours), "label": categorical_column(label)}
    return make_tabular(
        {**columns, **words},
        "label",
        None,
        where="own",
    )


def test_every_claim_has_its_measure(paper: Paper) -> None:
    check_registry(paper, registry(claims.__name__))


@pytest.mark.parametrize(
    "claim",
    [
        "simple-class-exists",
        "simple-class-bounds",
        "ridge-volume",
        "agreement-signals-ratio",
        "gamma-curve",
    ],
)
def test_smoke(paper: Paper, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "FOREST", 8)
    found = paper.find_claim(claim)
    for metrics in found_at(found).values():
        assert declared(found) <= set(metrics)
        assert all(np.isfinite(list(metrics.values())))


def test_the_theorem_s_numbers(paper: Paper) -> None:
    found = found_at(paper.find_claim("simple-class-exists"), draws=300)
    for metrics in found.values():
        assert 0 <= metrics["margin"] < 0.05
        assert abs(metrics["deviation"]) < 4 * np.sqrt(0.25 / 300)
    ridge = paper.find_claim("ridge-volume")
    volumes = found_at(ridge, point={"p": 2, "n": 1024}, draws=100_000)
    assert volumes["closed-form"]["volume"] == pytest.approx(volumes["monte-carlo"]["volume"], rel=0.02)
    larger = found_at(ridge, point={"p": 2, "n": 8192}, draws=1000)
    assert larger["closed-form"]["volume"] / volumes["closed-form"]["volume"] == pytest.approx(1 / 8, rel=0.2)
    assert larger["mean-loss"]["volume"] / volumes["mean-loss"]["volume"] == pytest.approx(1, rel=0.2)


def test_derived_numbers(paper: Paper) -> None:
    found = registry(claims.__name__)
    claim = paper.find_claim("agreement-signals-ratio")
    order = {str(point["data"]): place for place, point in enumerate(claim.points("quick"))}
    # Score and spread are the same number here, so that every correlation is perfect.
    numbers = check_derived(claim, found, made_up(claim, lambda point: 0.01 * order[str(point["data"])]))
    assert numbers["spearman"] == numbers["spearman_noise"] == pytest.approx(1.0)
    assert numbers["close_third"] == 0.0  # the third with the largest ratios has the largest spreads
    assert numbers["close_all"] == pytest.approx(6 / 12)
    curve = paper.find_claim("gamma-curve")
    values = iter([0.0, 0.02, 0.021, 0.5, 0.0, 0.0])
    losses = {str(point["data"]): next(values) for point in curve.points("quick")}
    near = check_derived(curve, found, made_up(curve, lambda point: losses[str(point["data"])]))
    assert set(near.values()) == {4 / 6}
    exists = paper.find_claim("simple-class-exists")
    at_most = check_derived(
        exists, found, made_up(exists, lambda point: -0.1 if point["data"] == "diabetes" else 0.0)
    )
    assert at_most == {"stump_sets": 0.75, "table_sets": 0.75}


def test_a_table_of_one_s_own_replaces_the_problems(paper: Paper) -> None:
    own = Given(table=own_table())
    claim = paper.find_claim("simple-class-exists")
    found = found_at(claim, subject=own)["random-class"]
    assert found["stump_hit"] == 1.0  # one column decides
    problem = rashomon.problem_of(own_table())
    assert problem.names[-2:] == ["colour=blue", "colour=red"]
    assert problem.classes == ["no", "yes"]
    ridge = found_at(paper.find_claim("ridge-volume"), subject=own)
    assert ridge["closed-form"]["volume"] > 0


def test_the_command_line_has_the_same_defaults(tmp_path: Path) -> None:
    table = own_table(80)
    lines = [",".join([*(f"x{i}" for i in range(6)), "label"])]
    for row in range(80):
        label = table.target.classes[table.target.values[row]] if table.target else ""
        lines.append(",".join([*(f"{table[f'x{i}'][row]:.6f}" for i in range(6)), label]))
    (tmp_path / "own.csv").write_text("\n".join(lines))
    command = [
        sys.executable,
        "-m",
        "claimbench.papers.theory.rashomon",
        str(tmp_path / "own.csv"),
        "--no-learners",
        "--most",
        "1",
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    problem = rashomon.problem_of(table)
    problem = rashomon.Problem(problem.X[:, :6].round(6), problem.y, problem.names[:6], problem.classes)
    trees = rashomon.depth_two_class(problem.X, problem.y)
    assert "80 rows, 6 columns, 2 classes" in said
    assert f"{trees.members(0.05):,} of {len(trees):,}" in said
    assert "x1 > " in said
    wrong = subprocess.run([*command[:3], "no-such-table"], capture_output=True, text=True, timeout=100)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("claimbench: ")
