"""The measures of S4's claims: what they return, that they repeat with their seed, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from claimbench.errors import UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.sequence.s4 import claims
from claimbench.shelf import BUILT_IN
from claimbench.testing import check_derived, check_registry, declared, made_up, smoke_trials, untimed
from claimbench.trial import Table, registry


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(BUILT_IN / "sequence" / "s4" / "paper.toml")


@pytest.fixture
def quick_rounds() -> Iterator[None]:
    with untimed():
        yield


def test_every_claim_has_its_measure_and_derived_numbers_recover_exponents(paper: Paper) -> None:
    found = registry(claims.__name__)
    check_registry(paper, found)
    claim = paper.find_claim("kernel-cost")
    seed = made_up(claim, lambda point: float(point["n"]) ** 2 * float(point["length"]))
    derived = check_derived(claim, found, seed)
    for name, value in derived.items():
        assert value == pytest.approx(2.0 if name.startswith(("n_slope", "last_slope")) else 1.0)


def test_slopes_need_three_settings_and_every_arms_points(paper: Paper) -> None:
    claim = paper.find_claim("kernel-cost")
    rows = made_up(claim, lambda point: 1.0)
    few = Table([row for row in rows if row.point["n"] in (64, 128)])
    assert math.isnan(claims.kernel_slopes(few)["n_slope_s4"])
    hole = Table([row for row in rows if not (row.arm == "s4" and row.point["n"] == 256)])
    with pytest.raises(LookupError, match="256"):
        claims.kernel_slopes(hole)


@pytest.mark.parametrize(("dtype", "largest"), [("float64", 1e-12), ("float32", 1e-4)])
def test_kernels_agree_whatever_is_timed(
    paper: Paper, quick_rounds: None, dtype: str, largest: float
) -> None:
    claim = paper.find_claim("kernel-cost")
    results = claims.kernel_cost(smoke_trials(claim, {"n": 16, "length": 100}, dtype=dtype))
    assert len(results) == len(claim.arms("smoke"))
    by_arm = dict(zip(claim.arms("smoke"), results, strict=True))
    for arm, result in by_arm.items():
        assert set(result) == declared(claim)
        assert all(math.isfinite(value) for value in result.values())
        if arm != "dense-eigen":
            assert result["error"] < 1e-12
            assert result["error_as_timed"] < largest
    assert by_arm["dense-eigen"]["error"] > 1e4 * by_arm["s4"]["error"]
    assert by_arm["s4"]["seconds"] == 1.0


def test_an_error_without_a_number_counts_as_the_worst() -> None:
    reference = torch.ones(3, dtype=torch.float64)
    assert claims.relative_error(reference * math.nan, reference) == claims.WORST_ERROR
    assert claims.relative_error(reference * math.inf, reference) == claims.WORST_ERROR
    assert claims.relative_error(torch.tensor([1.0, 1.0, 1.5]), reference) == 0.5


@pytest.mark.parametrize(
    ("point", "sizes", "word"),
    [({"n": 7, "length": 64}, {}, "even"), ({"n": 8, "length": 64}, {"dtype": "bfloat16"}, "bfloat16")],
)
def test_kernel_cost_refuses_in_one_line(
    paper: Paper, quick_rounds: None, point: dict[str, Any], sizes: dict[str, Any], word: str
) -> None:
    with pytest.raises(UserError, match=word):
        claims.kernel_cost(smoke_trials(paper.find_claim("kernel-cost"), point, **sizes))


def test_hippo_init_repeats_with_its_seed(paper: Paper) -> None:
    claim = paper.find_claim("hippo-init")
    for trial, again, other in zip(
        smoke_trials(claim, {"band": 0.05}),
        smoke_trials(claim, {"band": 0.05}),
        smoke_trials(claim, {"band": 0.05}, seed=4),
        strict=True,
    ):
        result = claims.hippo_init(trial)
        assert set(result) == declared(claim)
        assert 0 < result["nmse"] < 1.5
        assert result["step_size"] in trial.size["step_sizes"]
        assert claims.hippo_init(again) == result
        assert claims.hippo_init(other)["nmse"] != result["nmse"]
    with pytest.raises(UserError, match="delay"):
        claims.hippo_init(smoke_trials(claim, {"band": 0.05}, delay=200)[0])
    with pytest.raises(UserError, match="even"):
        claims.hippo_init(smoke_trials(claim, {"band": 0.05}, state=7)[0])


@pytest.mark.parametrize("order", ["rows", "permuted"])
def test_trained_initialisations_return_what_is_declared(paper: Paper, order: str) -> None:
    claim = paper.find_claim("hippo-init-trained")
    result = claims.hippo_init_trained(smoke_trials(claim, {"order": order})[0])
    assert set(result) == declared(claim)
    assert 0 <= result["accuracy"] <= 1


def test_generation_has_equal_arms_and_states_that_do_not_depend_on_the_context_for_s4(
    paper: Paper, quick_rounds: None
) -> None:
    claim = paper.find_claim("constant-generation")
    states = {}
    for context in (16, 64):
        s4, transformer = claims.constant_generation(smoke_trials(claim, {"context": context}))
        assert set(s4) == declared(claim)
        assert s4["parameters"] == pytest.approx(transformer["parameters"], rel=0.02)
        states[context] = (s4["state_bytes"], transformer["state_bytes"])
    assert states[16][0] == states[64][0] == 16 * 8 * 4  # features x state x float32
    assert states[64][1] == 2 * 16 * (64 + 1) * 4  # keys and values of 65 tokens


@pytest.mark.parametrize("tuning", [False, True])
def test_long_range_learning_tunes_on_other_data_than_it_tests(paper: Paper, tuning: bool) -> None:
    claim = paper.find_claim("long-range-learning")
    for trial in smoke_trials(claim, {"length": 64}, tuning=tuning):
        result = claims.long_range_learning(trial)
        assert set(result) == declared(claim)
        assert 0 <= result["accuracy"] <= 1
        assert claims.long_range_learning(trial) == result
