"""The claims of hmm-complexity: every arm at smoke, what is derived, and the instrument on features of one's own."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from claimbench.blocks.byte_lm import byte_lm
from claimbench.errors import UserError
from claimbench.paper import load_paper
from claimbench.papers.theory import hmm_complexity
from claimbench.papers.theory.hmm_complexity import claims, isotropic_risk, risk_curve
from claimbench.papers.theory.hmm_complexity.__main__ import curve, main
from claimbench.papers.theory.hmm_complexity.curve import projection
from claimbench.papers.theory.hmm_complexity.setup import last_states, prefix_features
from claimbench.subjects.byte_model import byte_tokenizer
from claimbench.subjects.causal_lm import CausalLM
from claimbench.subjects.tabular import Tabular, categorical_column, numeric_column
from claimbench.testing import Given, check_derived, check_registry, declared, smoke_trials
from claimbench.trial import Row, Table, registry

PAPER = load_paper(Path(hmm_complexity.__file__).parent / "paper.toml")
FOUND = registry(claims.__name__)
pytestmark = pytest.mark.usefixtures("one_thread")
HMM = ("double-descent", "no-interior-sweet-spot", "theory-match")


def table_of(claim: Any, risk: Any) -> Table:
    """Made-up risks: f(arm, p/n)."""
    rows = []
    for arm in claim.arms("quick"):
        for point in claim.points("quick"):
            value = risk(arm, point["ratio"])
            rows.append(Row(arm, point, 0, {**dict.fromkeys(declared(claim), 1.0), "risk": value}))
    return Table(rows)


def test_every_claim_is_measured_and_derived() -> None:
    check_registry(PAPER, FOUND)
    for claim in PAPER.claim:
        if declared(claim, derived=True):
            numbers = check_derived(claim, FOUND, table_of(claim, lambda arm, ratio: ratio))
            assert all(math.isfinite(value) for value in numbers.values())


def test_the_limit_itself_is_a_double_descent_and_ridge_a_flat_line() -> None:
    def risk(arm: str, ratio: float) -> float:
        return 50.0 if ratio == 1 and arm == "least-squares" else isotropic_risk(ratio + 1e-3, 1.0, 0.25)

    for name in ("double-descent", "real-lm-head"):
        numbers = check_derived(
            PAPER.find_claim(name),
            FOUND,
            table_of(PAPER.find_claim(name), lambda a, r: 0.4 if a == "ridge" else risk(a, r)),
        )
        assert numbers["peak"] == 1.0
        assert numbers["height"] == pytest.approx(math.log10(50 / isotropic_risk(3.001, 1, 0.25)))
        assert numbers["rise"] > 0
        assert numbers["fall"] > 0
        assert numbers["ridge_height"] == 0


def test_steps_see_a_fall_and_where_it_ends() -> None:
    claim = PAPER.find_claim("no-interior-sweet-spot")
    bowl = {0.05: 1.0, 0.1: 0.9, 0.2: 0.5, 0.4: 0.6, 0.8: 1.2}
    numbers = claims.steps(
        table_of(claim, lambda arm, ratio: bowl[ratio] if arm == "misspecified" else ratio)
    )
    assert numbers["first_descent"] == pytest.approx(math.log10(2))
    assert numbers["sweet_spot"] == 0.2
    assert numbers["smallest_step"] == pytest.approx(math.log10(2))
    fallen = claims.steps(table_of(claim, lambda arm, ratio: bowl[ratio]))
    assert fallen["smallest_step"] < 0


@pytest.mark.parametrize("name", HMM)
def test_every_arm_measures_every_metric(name: str) -> None:
    claim = PAPER.find_claim(name)
    for point in (claim.points("smoke")[0], claim.points("smoke")[-1]):
        trials = smoke_trials(claim, point)
        found = FOUND.measures[claim.measured_by](trials)
        assert [set(metrics) for metrics in found] == [declared(claim)] * len(trials)
        assert all(math.isfinite(value) for metrics in found for value in metrics.values())
        again = FOUND.measures[claim.measured_by](trials[:1])
        assert again[0]["risk"] == pytest.approx(found[0]["risk"])  # whatever arms come with it


def test_filters_and_gaussian_features_obey_the_limit_far_from_the_peak() -> None:
    claim = PAPER.find_claim("theory-match")
    trials = smoke_trials(claim, {"ratio": 0.2}, samples=100, draws=20, models=1)
    found = dict(zip(claim.arms("smoke"), FOUND.measures[claim.measured_by](trials), strict=True))
    for arm in ("hmm", "gaussian", "hmm-rank-one-noise", "hmm-unwhitened", "gaussian-unwhitened"):
        # 20 draws, 60 numbers each: a standard error of 4 % (of 8 % for noise of rank one).
        assert found[arm]["limit_ratio"] == pytest.approx(1.0, abs=0.3), arm
        assert found[arm]["error"] == pytest.approx(abs(found[arm]["limit_ratio"] - 1))


def test_the_null_head_has_the_truths_norm_and_least_squares_peaks_at_p_equal_to_n() -> None:
    claim = PAPER.find_claim("double-descent")
    risks = {}
    for ratio in (0.25, 1.0, 3.0):
        trials = smoke_trials(claim, {"ratio": ratio}, samples=30, models=2)
        found = FOUND.measures["double-descent"](trials)
        risks[ratio] = {trial.arm: metrics["risk"] for trial, metrics in zip(trials, found, strict=True)}
    # Whitened on other prefixes than those that judge, so that the norm is met up to their sampling error.
    assert all(found["null"] == pytest.approx(1.0, rel=0.35) for found in risks.values())
    for arm in ("least-squares", "gaussian", "unwhitened"):
        assert risks[1.0][arm] > 3 * max(risks[0.25][arm], risks[3.0][arm]), arm
    for arm in ("ridge", "early-stopping", "components"):
        assert risks[1.0][arm] < risks[1.0]["least-squares"] / 2, arm


# ---- real features ----


def test_prefixes_of_a_language_model_are_a_seeds_own() -> None:
    model = byte_lm(layers=1, width=16, heads=2, hidden=16, context=32).eval()
    lm = CausalLM(model, byte_tokenizer())
    letters = np.random.default_rng(0).integers(97, 123, 24_000)
    text = "".join(map(chr, letters))
    states = last_states(lm, text, prefixes=40, length=4, seed=3, device="cpu")
    assert states.shape == (40, 16)
    start = 3 * 2000 + 7 * 50  # the fourth twelfth's eighth of forty places
    with torch.no_grad():
        own = model.model(input_ids=lm.encode(text[start : start + 4])[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(states[7], own)
    assert not torch.equal(states, last_states(lm, text, prefixes=40, length=4, seed=4, device="cpu"))
    with pytest.raises(UserError, match="600 prefixes of 4 tokens"):
        last_states(lm, text, prefixes=600, length=4, seed=0, device="cpu")

    class WithoutBlanks(CausalLM):
        """A tokenizer, as many are, to which a long blank is next to nothing."""

        def encode(self, text: str) -> torch.Tensor:
            return super().encode(text.replace(" ", ""))

    blank = f"{text[:start]}{46 * ' '}{text[start + 46 :]}"
    found = last_states(
        WithoutBlanks(model, byte_tokenizer()), blank, prefixes=40, length=4, seed=3, device="cpu"
    )
    with torch.no_grad():
        own = model.model(input_ids=lm.encode(text[start + 46 : start + 50])[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(found[7], own)
    torch.testing.assert_close(found[:7], states[:7])


def test_every_arm_measures_features_of_ones_own() -> None:
    rng = np.random.default_rng(0)
    columns = {f"f{i}": numeric_column(rng.normal(size=60)) for i in range(30)}
    columns["name"] = categorical_column(["a", "b"] * 30)
    claim, given = PAPER.find_claim("real-lm-head"), Given(features=Tabular(columns))
    for ratio in (0.5, 1.0, 3.0):
        for trial in smoke_trials(claim, {"ratio": ratio}, subject=given):
            assert prefix_features(trial).shape == (40, 30)
            metrics = FOUND.measures[claim.measured_by](trial)
            assert set(metrics) == declared(claim)
            assert all(math.isfinite(value) for value in metrics.values())
            assert (metrics["predicted"] == claims.INFINITE) == (ratio == 1.0)
    with pytest.raises(UserError, match="60 are needed"):
        FOUND.measures[claim.measured_by](smoke_trials(claim, {"ratio": 0.5}, subject=given, samples=30)[0])


# ---- the instrument ----


def test_the_curve_of_gaussian_features_is_the_limits() -> None:
    features = np.random.default_rng(1).normal(size=(1200, 160))
    rows = risk_curve(features, samples=100, sizes=[10, 50, 100, 150], draws=24)
    assert [row.features for row in rows] == [10, 50, 100, 150]
    for row in rows:
        if row.features != 100:
            assert row.risk == pytest.approx(row.predicted, rel=0.35)
    assert rows[2].risk > 5 * rows[1].risk
    # the random combinations are not white, so that the null risk is the mean variance times the norm
    assert rows[0].null == pytest.approx(1.0, rel=0.3)
    tuned = risk_curve(features, samples=100, sizes=[100], draws=24, head="ridge")
    assert tuned[0].risk < rows[2].risk / 3
    default = risk_curve(features, samples=100, draws=1)
    assert [row.features for row in default] == [
        7,
        25,
        50,
        80,
        100,
        120,
    ]  # 200 and 300 are wider than the features


def test_own_targets_and_own_heads() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(300, 12))
    targets = features @ rng.normal(size=(12, 2)) + 5.0
    exact = risk_curve(features, samples=60, sizes=[12], targets=targets, how="leading", draws=3)[0]
    assert math.isnan(exact.predicted)
    # The mean of 60 targets is all that is missed: a sixtieth of their variance.
    assert exact.risk < 0.1 * exact.null
    own = risk_curve(
        features, samples=60, sizes=[12], head=lambda design, answers: 0 * design.mT @ answers, draws=3
    )
    assert own[0].risk == pytest.approx(own[0].null)
    for wrong, words in (
        ({"samples": 300}, "samples = 300 of 300"),
        ({"samples": 60, "head": "rigde"}, "ridge"),
        ({"samples": 60, "sizes": [13]}, "13 dimensions"),
        ({"samples": 60, "targets": targets[:5]}, "5 rows"),
        ({"samples": 60, "how": "first"}, "projection"),
    ):
        with pytest.raises(UserError, match=words):
            risk_curve(features, **wrong)  # type: ignore[arg-type]  # made to be wrong


def test_leading_dimensions_are_principal_components() -> None:
    features = torch.randn(
        50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ) * torch.arange(1, 7)
    features = features - features.mean(0)
    made = projection(features, 2, "leading", 3, torch.Generator())
    values = torch.linalg.svdvals(features)
    assert made.shape == (3, 50, 2)
    ratio = made[0].var(0)
    assert float(ratio[0] / ratio[1]) == pytest.approx(float((values[0] / values[1]) ** 2))
    assert float(ratio.mean()) == pytest.approx(1.0)


def test_the_command_prints_what_python_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(3).normal(size=(90, 30))
    np.save(tmp_path / "own.npy", features)
    np.savetxt(tmp_path / "own.csv", features, delimiter=",", header="a", comments="")
    curve(str(tmp_path / "own.npy"), samples=20, sizes="5,20", draws=4)
    told = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    found = risk_curve(features, samples=20, sizes=[5, 20], draws=4)
    assert [line[0] for line in told] == ["5", "20"]
    assert [float(line[2]) for line in told] == [pytest.approx(row.risk, rel=1e-3) for row in found]
    curve(str(tmp_path / "own.csv"), samples=20, sizes="5,20", draws=4)
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == told
    monkeypatch.setattr(
        sys, "argv", ["curve", str(tmp_path / "own.npy"), "--samples", "20", "--sizes", "5;6"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith('claimbench: --sizes "5;6"')
