"""EvoPress's claims: what is fixed in paper.toml, and that the measures compute what they say, on a tiny model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from claimbench.errors import UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.compression import evopress
from claimbench.papers.compression.evopress import claims, setup
from claimbench.papers.compression.evopress.search import Generation, Outcome, Stage
from claimbench.trial import BLOCKS, Row, Table, Trial, registry


@dataclass
class Bytes:
    """A subject in miniature: a random model over bytes."""

    model: LlamaForCausalLM

    def encode(self, text: str) -> torch.Tensor:
        return torch.tensor(list(text.encode()), dtype=torch.int64)


@dataclass
class Splits:
    validation: str
    test: str


def tiny(layers: int) -> dict[str, Any]:
    torch.manual_seed(0)
    shape = {"vocab_size": 128, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = LlamaConfig(**shape, num_hidden_layers=layers, initializer_range=0.2, pad_token_id=0)
    rng = np.random.default_rng(0)
    halves = ["".join(map(chr, rng.integers(97, 97 + span, 30_000))) for span in (8, 10)]
    return {"model": Bytes(LlamaForCausalLM(config).eval()), "text": Splits(*halves)}


@pytest.fixture(scope="module")
def subject() -> dict[str, Any]:
    return tiny(layers=3)


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(Path(evopress.__file__).parent / "paper.toml")


def trials(
    paper: Paper, claim: str, subject: dict[str, Any], seed: int = 3, point: Any = None, **size: Any
) -> list[Trial]:
    """One seed's trials of a claim at its smoke sizes, on sequences of 16 bytes."""
    found = paper.find_claim(claim)
    sizes = {**found.sizes("smoke"), "sequence_length": 16, **size}
    point = found.points("smoke")[0] if point is None else point
    return [
        Trial(arm=arm, point=point, seed=seed, size=sizes, subject=subject) for arm in found.arms("smoke")
    ]


def test_every_measure_and_derived_metric_of_the_toml_exists(paper) -> None:
    known = registry(claims.__name__)
    assert {claim.measured_by for claim in paper.claim} == set(known.measures)
    for claim in paper.claim:
        assert any(metric.derived for metric in claim.metrics.values()) == (claim.id in known.derived)
        for scale in ("smoke", "quick", "full"):
            assert claim.scales[scale]


def test_pairs_are_sets_times_subsets_at_every_scale(paper) -> None:
    claim = paper.find_claim("monotonicity-fails")
    for scale in claim.scales:
        sizes = claim.sizes(scale)
        assert sizes["pairs"] == sizes["sets"] * sizes["subsets"]


@pytest.mark.parametrize("claim", ["depth-pruning-beats-scores", "ea-generations-scale"])
def test_arms_alone_return_their_metrics(paper, subject, claim) -> None:
    wanted = {name for name, metric in paper.find_claim(claim).metrics.items() if not metric.derived}
    function = registry(claims.__name__).measures[paper.find_claim(claim).measured_by]
    for trial in trials(paper, claim, subject):
        result = function(trial)
        assert set(result) == wanted
        assert np.isfinite(list(result.values())).all()
        if trial.arm == "evopress":
            assert function(trial) == result, "equal trials give equal numbers"


@pytest.mark.parametrize(
    "claim",
    [
        "monotonicity-fails",
        "multi-stage-selection-saves-tokens",
        "sparsity-levels-beat-owl",
        "bit-widths-beat-summed-errors",
    ],
)
def test_arms_together_return_their_metrics(paper, subject, claim) -> None:
    found = paper.find_claim(claim)
    function = registry(claims.__name__).measures[found.measured_by]
    before = {name: tensor.clone() for name, tensor in subject["model"].model.state_dict().items()}
    for point in found.points("smoke"):
        group = trials(paper, claim, subject, point=point)
        results = function(group)
        assert len(results) == len(group)
        for result in results:
            assert set(result) == set(found.metrics)
            assert np.isfinite(list(result.values())).all()
    assert function(group[::-1])[::-1] == results, "results follow their trials, whatever the order"
    assert all(torch.equal(before[n], t) for n, t in subject["model"].model.state_dict().items())


def test_searches_spend_the_same_tokens(paper, subject) -> None:
    arms = {trial.arm: trial for trial in trials(paper, "depth-pruning-beats-scores", subject)}
    spent = {
        arm: claims.depth_pruning(arms[arm])["tokens"] for arm in ("evopress", "random-search", "greedy")
    }
    budget = setup.search_tokens(arms["evopress"])
    assert spent["evopress"] == spent["random-search"] == budget
    # greedy sees whole sequences of a few calibration ones, so it cannot always spend all
    assert spent["greedy"] <= budget


def test_windows_of_seeds_and_splits_never_meet(subject) -> None:
    """Every window is found in its own twelfth of its split, and none twice."""
    for split in ("validation", "test"):
        text = getattr(subject["text"], split)
        for seed in (0, 5, 11):
            trial = Trial(arm="", point={}, seed=seed, size={"sequence_length": 16}, subject=subject)
            drawn = setup.windows(trial, split, 20)
            assert drawn.shape == (20, 16)
            places = [text.index(bytes(row.tolist()).decode()) for row in drawn]
            assert len(set(places)) == 20
            assert min(np.diff(sorted(places))) >= 16
            share = len(text) / BLOCKS
            assert all(seed * share - 1 <= place and place + 16 <= (seed + 1) * share + 1 for place in places)
            assert torch.equal(drawn, setup.windows(trial, split, 20))
    with pytest.raises(
        UserError, match=r"text: this seed's share of its test split holds \d+ sequences of 16"
    ):
        setup.windows(trial, "test", 10_000)


def test_violations_are_counted_as_their_definition_says(paper) -> None:
    """Against a plain loop over the same pairs."""
    trial = trials(paper, "monotonicity-fails", tiny(layers=4), sets=10, subsets=3, search_sequences=6)[0]
    text, seen = setup.windows(trial, "test", 24), setup.windows(trial, "validation", 6)
    with setup.droppable(trial) as judge:
        found = claims.violations(trial, judge, 4, text)
        dense = judge(np.zeros(8, dtype=int), text, "loss").mean()
        looked = confirmed = usable = 0
        for units in np.argsort(np.random.default_rng([trial.seed, 7]).random((10, 8)), axis=1)[:, :4]:
            profiles = np.zeros((4, 8), dtype=int)  # B, then B less one unit for three units of it
            profiles[:, units] = 1
            profiles[np.arange(1, 4), units[:3]] = 0
            searched, fresh = judge(profiles, seen, "loss").mean(axis=1), judge(profiles, text, "loss")
            for number in range(1, 4):
                if searched[0] < searched[number]:
                    looked += 1
                    gain = fresh[number] - fresh[0]
                    if gain.mean() / (gain.std(ddof=1) / math.sqrt(24)) > 3:
                        confirmed += 1
                        usable += fresh[0].mean() < dense + math.log(2)
    assert 0 < confirmed < looked < 30, "an instance in which every branch is taken"
    assert found["violation_rate"] == pytest.approx(confirmed / 30)
    assert found["usable_violation_rate"] == pytest.approx(usable / 30)
    assert found["found_rate"] == pytest.approx(looked / 30)


def scripted(values: dict[int, list[float]], tokens: dict[int, int]):
    """A `run` whose parents have the given true values, generation by generation, by the number of stages."""

    def run(stages, until):
        number = len(stages)
        history = [Generation(np.array([0, number]), math.nan, 0)]
        for step in range(1, len(values[number])):
            history.append(Generation(np.array([step, number]), math.nan, step * tokens[number]))
            if until is not None and until(history[-1]):
                break
        return Outcome(history[-1].levels, math.nan, history[-1].tokens, history)

    return run, lambda profile: values[int(profile[1])][int(profile[0])]


def test_tokens_to_the_target_by_hand() -> None:
    multi = (Stage(1, 2), Stage(4, 1))
    # target 1.02 * 100: the single-stage search is there after 3 of 4 generations, the tournament after 4
    run, true = scripted({1: [150, 120, 103, 101, 100], 2: [150, 140, 130, 110, 102, 90]}, {1: 1000, 2: 200})
    found = claims.tokens_to_target(run, true, multi)
    assert found == {"multi-stage": (800, 102), "single-stage": (3000, 100)}
    # one that does not arrive stops when it has spent the other's whole budget, and counts it
    run, true = scripted({1: [150, 120, 100], 2: [150] * 50}, {1: 1000, 2: 300})
    found = claims.tokens_to_target(run, true, multi)
    assert found["multi-stage"] == (2100, 150)
    assert found["single-stage"] == (2000, 100)


def test_scaling_recovers_a_planted_exponent() -> None:
    points = [{"n": n, "offspring": m} for n in (16, 64, 256) for m in (1, 4, 64)]
    rows = []
    for point in points:
        n, offspring = point["n"], point["offspring"]
        own = 3 * (n // 4 * (n - n // 4) / offspring) ** 0.9
        if offspring > n / math.log(n):
            own *= 50  # outside the theorem's range: it must not count
        for arm, factor in (("evopress", 1), ("repair", 10), ("random-search", 10**4 * offspring)):
            rows.append(
                Row(arm, point, 0, {"generations": own * factor, "evaluations": own * factor * offspring})
            )
    found = claims.scaling(Table(rows))
    assert found["slope"] == pytest.approx(0.9)
    assert found["r_squared"] == pytest.approx(1)
    assert found["repair_excess"] == pytest.approx(1)
    assert found["random_excess"] == pytest.approx(4), "the smallest over lambda"
    with pytest.raises(LookupError):
        claims.scaling(Table([row for row in rows if row.arm != "repair"]))
