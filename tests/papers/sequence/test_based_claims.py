"""The measures of Based's claims: what they return, that they repeat, matched states, derived numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from claimbench.blocks.mixers import make_mixer
from claimbench.errors import UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.sequence.based import claims
from claimbench.papers.sequence.based.arms import based_bytes, matched
from claimbench.shelf import BUILT_IN
from claimbench.subjects import resolve_subject
from claimbench.testing import check_derived, check_registry, declared, made_up, smoke_trials, untimed
from claimbench.trial import Row, Subjects, Table, registry


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(BUILT_IN / "sequence" / "based" / "paper.toml")


@pytest.fixture
def quick_rounds() -> Iterator[None]:
    with untimed():
        yield


def test_every_claim_has_its_measure_and_all_derived_numbers(paper: Paper) -> None:
    found = registry(claims.__name__)
    check_registry(paper, found)
    for name in found.derived:
        claim = paper.find_claim(name)
        check_derived(claim, found, made_up(claim, lambda point: 1.0 + sum(map(float, point.values()))))


# --- state-size-recall ---


@pytest.mark.parametrize("arm", ["mamba", "linear-elu", "sliding-window", "gru"])
@pytest.mark.parametrize("key_width", [2, 4, 6, 8])
def test_baselines_get_at_least_as_many_bytes_and_the_least_such(arm: str, key_width: int) -> None:
    wanted = based_bytes(32, key_width, 0)
    assert make_mixer("based", 32, key_width=key_width).state_bytes() == wanted
    found = matched(arm, features=32, state_bytes=wanted)().state_bytes()
    step = matched(arm, features=32, state_bytes=found + 1)().state_bytes() - found
    assert found >= wanted
    assert found - step < wanted or (arm, key_width) == (
        "mamba",
        2,
    )  # a Mamba with a state of 1 holds 256 numbers


def test_recall_repeats_with_its_seed_and_trains_attention_once(paper: Paper) -> None:
    claim = paper.find_claim("state-size-recall")
    points = claim.points("smoke")
    by_arm = {}
    for arm in ("based", "attention", "gru"):  # stacked, shared by both points, and one model after the other
        mine = [
            trial
            for seed in (3, 4)
            for point in points
            for trial in smoke_trials(claim, point, seed=seed)
            if trial.arm == arm
        ]
        results = claims.state_size_recall(mine)
        assert results == claims.state_size_recall(mine)
        alone = claims.state_size_recall(mine[1:2])[0]
        assert isinstance(alone, dict)
        assert alone["accuracy"] == results[1]["accuracy"]  # type: ignore[index]  # a result, not an error
        assert alone["train_loss"] == pytest.approx(results[1]["train_loss"], rel=1e-4)  # type: ignore[index]  # as above
        for result in results:
            assert isinstance(result, dict)
            assert set(result) == declared(claim)
            assert 0 <= result["accuracy"] <= 1
        by_arm[arm] = results
    first, second, third, _ = by_arm["attention"]
    assert first == second != third  # one model for both points, another for the next seed
    assert by_arm["based"][0] != by_arm["based"][1]


def test_recall_without_the_convolution_or_noise_is_another_task(paper: Paper) -> None:
    claim = paper.find_claim("state-size-recall")
    trial = smoke_trials(claim, {"key_width": 2, "window": 0})[0]
    plain = claims.state_size_recall([trial])[0]
    for change in ({"convolution": False}, {"random_non_queries": False}):
        other = claims.state_size_recall([smoke_trials(claim, {"key_width": 2, "window": 0}, **change)[0]])[0]
        assert other["train_loss"] != plain["train_loss"]  # type: ignore[index]  # results, not errors
    with pytest.raises(UserError, match="even"):
        claims.state_size_recall(smoke_trials(claim, {"key_width": 2, "window": 0}, length=31)[:1])


def test_a_users_own_mixer_and_pairs_take_their_places(paper: Paper, tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "from claimbench.blocks.mixers import make_mixer\n"
        "def make(features, state_bytes):\n"
        "    return make_mixer('lstm', features, hidden=state_bytes // 8)\n"
        "def pairs():\n"
        "    return [(f'key {i}', f'value {i % 9}') for i in range(20)]\n"
    )
    refs = {
        name: resolve_subject("callable", f"{source}:{function}")
        for name, function in (("mixer", "make"), ("pairs", "pairs"))
    }
    claim = paper.find_claim("state-size-recall")
    based, *_, gru = smoke_trials(claim, {"key_width": 2, "window": 0}, subject=Subjects(refs, "cpu"))
    result = claims.state_size_recall([based])[0]
    assert isinstance(result, dict)
    assert result["state_bytes"] == based_bytes(8, 2, 0) // 8 * 8
    assert len(claims.recall_task(gru).keys) == 20
    assert len(claims.recall_task(gru).values) == 9


def test_the_frontier_counts_bins_and_ranks(paper: Paper) -> None:
    claim = paper.find_claim("state-size-recall")
    points = claim.points("quick")
    accuracy = {
        "based": [0.3, 0.7, 0.6, 0.9],
        "mamba": [0.3, 0.705, 0.62, 0.2],
        "linear-elu": [0.1, 0.1, 0.1, 0.1],
        "sliding-window": [0.5, 0.6, 0.7, 0.8],
        "attention": [1.0, 1.0, 1.0, 1.0],
    }
    rows = [
        Row(arm, point, 0, {"accuracy": value, "state_bytes": 100.0 * 2**index})
        for arm, values in accuracy.items()
        for index, (point, value) in enumerate(zip(points, values, strict=True))
    ]
    found = claims.frontier(Table(rows))
    assert found["tau"] == pytest.approx(4 / 6)  # five pairs in order, one not
    assert found["bins_mamba"] == 3
    assert found["bins_linear_elu"] == 4
    assert found["bins_sliding_window"] == found["bins_least"] == 2
    assert found["area_linear_elu"] == pytest.approx((0.2 / 2 + 0.6 + 0.5 + 0.8 / 2) / 3)
    alone = claims.frontier(Table([row for row in rows if row.arm in ("based", "mamba")]))
    assert alone["bins_least"] == alone["bins_mamba"] == 3
    assert math.isnan(alone["bins_linear_elu"])
    assert all(math.isnan(value) for value in claims.frontier(Table(rows[:1])).values())
    with pytest.raises(LookupError, match="mamba"):
        claims.frontier(Table([row for row in rows if row is not rows[5]]))


# --- throughput ---


def test_states_of_based_do_not_grow_and_the_crossover_is_the_formula(
    paper: Paper, quick_rounds: None
) -> None:
    claim = paper.find_claim("throughput")
    found = {}
    for context in (16, 64):
        based, attention = claims.throughput(smoke_trials(claim, {"batch": 2, "context": context}))
        assert set(based) == declared(claim)
        found[context] = (based, attention)
        assert based["crossover"] == 273 * (1024 + 16) / (2 * 1024)
        assert based["crossover_merged"] == 153 * (1024 + 16) / (2 * 1024)
    assert found[16][0]["state_bytes"] == found[64][0]["state_bytes"] > 0
    assert found[64][1]["state_bytes"] == 4 * found[16][1]["state_bytes"] == 3 * 2 * 16 * 64 * 4
    linear, window, convolution = 7 * 273 * (1792 + 16), 7 * 2 * 256 * 1792, 22 * 2 * 2 * 1792
    assert found[16][0]["paper_numbers"] == linear + window + convolution
    assert found[64][1]["paper_numbers"] == 36 * 2 * 1792 * 64


def test_random_states_generate_finite_numbers(paper: Paper) -> None:
    claim = paper.find_claim("throughput")
    model = claims.generator("based", claim.sizes("smoke"), 32)
    states = [claims.filled(state, 32) for state in model.init_state(2)]
    assert all(state.length == 32 for state in states if hasattr(state, "length"))
    logits, _ = model.step(torch.zeros(2, dtype=torch.long), states)
    assert bool(logits.isfinite().all())


def test_gain_grows_as_the_ratio_does() -> None:
    rows = [
        Row(arm, {"batch": batch, "context": context}, 0, {"seconds_per_token": seconds})
        for batch in (1, 4)
        for context in (512, 2048, 8192)
        for arm, seconds in (("based", 1.0), ("attention", (batch * context) ** 0.5))
    ]
    assert claims.gain(Table(rows))["gain_growth"] == pytest.approx(0.5)


# --- lm-recall-gap ---


@pytest.fixture
def prose(tmp_path: Path) -> Subjects:
    generator = torch.Generator().manual_seed(0)
    words = [
        "".join(chr(97 + int(c)) for c in torch.randint(26, (6,), generator=generator)) for _ in range(300)
    ]
    folder = tmp_path / "text"
    folder.mkdir()
    for index in range(40):
        chosen = torch.randint(300, (400,), generator=generator)
        (folder / f"{index}.txt").write_text(" ".join(words[int(i)] for i in chosen))
    return Subjects({"text": resolve_subject("text", str(folder))}, "cpu")


def test_language_models_are_scored_where_strings_come_back(paper: Paper, prose: Subjects) -> None:
    claim = paper.find_claim("lm-recall-gap")
    parameters = []
    for trial in smoke_trials(claim, {}, subject=prose):
        result = claims.lm_recall_gap(trial)
        assert set(result) == declared(claim)
        assert all(math.isfinite(value) for value in result.values())
        assert (
            min(result["hit_loss"], result["other_loss"])
            < result["loss"]
            < max(result["hit_loss"], result["other_loss"])
        )
        assert claims.lm_recall_gap(trial) == result
        parameters.append(result["parameters"])
    assert parameters == pytest.approx([parameters[0]] * 3, rel=0.02)
