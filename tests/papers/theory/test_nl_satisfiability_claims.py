"""Claims of natural-language satisfiability: smoke, derived numbers, the encoder, the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from claimbench.claim import Claim
from claimbench.errors import UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.theory import nl_satisfiability as nl
from claimbench.papers.theory.nl_satisfiability import claims, predictors
from claimbench.papers.theory.nl_satisfiability.formulas import joined
from claimbench.papers.theory.nl_satisfiability.transformer import ClauseEncoder, predict, train_encoder
from claimbench.testing import Given, check_derived, check_registry, declared, measured, smoke_trials
from claimbench.trial import Row, Table, Trial, registry

OWN = Given(classifier=nl.tfidf_svm)


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(Path(nl.__file__).parent / "paper.toml")


def found_at(claim: Claim, **arguments: Any) -> dict[str, dict[str, float]]:
    return measured(claim, registry(claims.__name__), smoke_trials(claim, subject=OWN, **arguments))


def test_every_claim_has_its_measure(paper: Paper) -> None:
    check_registry(paper, registry(claims.__name__))


@pytest.mark.parametrize(
    "claim",
    ["hard-region", "naive-sampling-inflates", "sampling-of-training-data", "limited-scale-invariance"],
)
def test_smoke(paper: Paper, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "ROUNDS", 10)
    found = paper.find_claim(claim)
    for metrics in found_at(found).values():
        assert declared(found) <= set(metrics)
        assert all(np.isfinite(list(metrics.values())))


def test_hard_region_sees_the_threshold_and_two_sat_has_none(paper: Paper) -> None:
    claim = paper.find_claim("hard-region")
    few, many = (found_at(claim, point={"n": 60, "alpha": ratio}, formulas=20) for ratio in (2.0, 4.25))
    assert few["3sat"]["satisfiable"] == 1.0
    assert 0.2 < many["3sat"]["satisfiable"] <= 1.0
    assert many["3sat"]["effort"] > 3 * few["3sat"]["effort"]
    assert many["3sat"]["effort"] > 3 * many["2sat"]["effort"]


def test_crossings_lie_on_straight_lines() -> None:
    alphas, shares = np.array([2.0, 4.0, 6.0, 8.0]), np.array([1.0, 0.75, 0.25, 0.0])
    assert claims.crossing(alphas, shares, 0.5) == pytest.approx(5.0)
    assert claims.crossing(alphas, shares, 0.8) == pytest.approx(2.0 + 2 * 0.2 / 0.25)
    assert claims.crossing(alphas, np.ones(4), 0.5) == 8.0
    assert claims.crossing(alphas, np.zeros(4), 0.5) == 2.0


def test_derived_numbers_of_the_hard_region(paper: Paper) -> None:
    claim = paper.find_claim("hard-region")
    rows = []
    for point in claim.points("quick"):
        n, ratio = float(point["n"]), float(point["alpha"])
        share = 1 / (
            1 + np.exp(np.log(4) * 2 * (ratio - 4.5) / (6 / np.sqrt(n)))
        )  # 80 % to 20 % in 6 / sqrt(n)
        effort = 100.0 if ratio == 4.5 else 20.0 if ratio == 2.0 else 40.0
        rows.append(Row("3sat", point, 0, {"effort": effort, "satisfiable": float(share), "decisions": 1.0}))
        rows.append(Row("2sat", point, 0, {"effort": 1.0, "satisfiable": 0.5, "decisions": 1.0}))
    found = check_derived(claim, registry(claims.__name__), Table(rows))
    assert found["peak_offset"] == pytest.approx(0.0, abs=0.05)
    assert found["rise"] == pytest.approx(5.0)
    assert found["fall"] == pytest.approx(2.5)
    assert found["narrowing"] == pytest.approx(-0.5, abs=0.1)
    assert found["naive_near"] == pytest.approx(1.4 / 11.4, abs=0.01)


def test_derived_numbers_of_the_others(paper: Paper) -> None:
    known = registry(claims.__name__)
    claim = paper.find_claim("naive-sampling-inflates")
    accuracy = {"naive": 0.9, "hard": 0.6, "hard-global": 0.7}
    rows = [
        Row(arm, point, 0, {"accuracy": accuracy[str(point["sampling"])] + 0.02 * place})
        for place, arm in enumerate(claim.arms("full"))
        for point in claim.points("full")
    ]
    found = check_derived(claim, known, Table(rows))
    assert found["smallest_drop"] == pytest.approx(0.3)
    assert found["best_on_hard"] == pytest.approx(0.66)  # the transformer, last, is not judged
    claim = paper.find_claim("limited-scale-invariance")
    falling = {5: 0.95, 7: 0.9, 8: 0.85, 10: 0.75, 12: 0.77}
    rows = [
        Row(arm, point, 0, {"accuracy": falling[int(point["n"])] if arm == "transformer" else 0.6})
        for arm in claim.arms("full")
        for point in claim.points("full")
    ]
    found = check_derived(claim, known, Table(rows))
    assert found["largest_rise"] == pytest.approx(0.02)
    assert found["loss_at_last"] == pytest.approx(0.08)
    assert found["above_shallow"] == pytest.approx(0.17)


def test_samplings_of_one_seed_are_the_same_for_all_arms_and_disjoint(paper: Paper) -> None:
    claim = paper.find_claim("sampling-of-training-data")
    trials = smoke_trials(claim, subject=OWN)
    tests = [claims.draw(trial, "hard", 8, 200, 1) for trial in trials]
    np.testing.assert_array_equal(tests[0].formulas, tests[1].formulas)
    train = claims.draw(trials[0], "hard", 8, 200, 0)
    assert not set(nl.canonical_keys(train.formulas)) & set(nl.canonical_keys(tests[0].formulas))
    other = Trial(arm="train-hard", point={}, seed=4)
    assert (claims.draw(other, "hard", 8, 200, 1).formulas != tests[0].formulas).any()


def test_a_classifier_of_one_s_own_is_asked_and_checked(paper: Paper) -> None:
    sample = nl.naive_sample(8, 60, np.random.default_rng(0))
    train, test = sample.split(40)
    answer = claims.text_predictions(
        lambda theories, labels, asked: ["If" in text for text in asked], train, test
    )
    assert answer.tolist() == [True] * 20
    with pytest.raises(UserError, match="20 labels"):
        claims.text_predictions(lambda *_: [True], train, test)


def test_the_encoder_reads_no_padding_and_learns() -> None:
    torch.manual_seed(0)
    model = ClauseEncoder(n=6, clauses=30, layers=2, width=32, heads=2).eval()
    formulas = nl.random_formulas(6, 20, 5, np.random.default_rng(0))
    plain = model(torch.from_numpy(formulas))
    padded = model(
        torch.from_numpy(joined([formulas, nl.random_formulas(6, 30, 1, np.random.default_rng(1))]))
    )[:5]
    torch.testing.assert_close(plain, padded, rtol=1e-4, atol=1e-5)
    # The number of clauses alone tells these apart, so that an encoder that learns anything gets them right.
    rng = np.random.default_rng(2)
    few, many = nl.random_formulas(5, 6, 300, rng), nl.random_formulas(5, 45, 300, rng)
    both = joined([few, many])
    labels = nl.satisfiable(both, 5)
    order = rng.permutation(600)
    train, test = nl.Sample(both[order], labels[order], 5).split(400)
    trained = train_encoder(
        train, variables=6, clauses=48, steps=80, batch=32, learning_rate=2e-3, layers=1, width=32, heads=2
    )
    assert nl.balanced_accuracy(predict(trained, test), test.labels) > 0.8


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "claimbench.papers.theory.nl_satisfiability", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_command_line_generates_and_measures(tmp_path: Path) -> None:
    made = run("generate", "--n", "6", "--count", "40", "--seed", "1")
    records = [json.loads(line) for line in made.stdout.splitlines()]
    assert len(records) == 40
    assert sum(record["label"] for record in records) == 20
    expected = nl.hard_sample(6, 40, np.random.default_rng(1))
    assert [record["text"] for record in records] == expected.theories()
    (tmp_path / "hard.jsonl").write_text(made.stdout)
    said = run("hardness", str(tmp_path / "hard.jsonl"), "--count", "30").stdout
    assert "40 problems, 50% satisfiable" in said
    (tmp_path / "one.cnf").write_text("c a comment\np cnf 3 2\n1 -2 0\n2 3 0\n")
    assert " 3        2   0.67" in run("hardness", str(tmp_path / "one.cnf")).stdout
    wrong = run("hardness", str(tmp_path / "hard.jsonl"), "--fragment", "sentences")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("claimbench: ")
