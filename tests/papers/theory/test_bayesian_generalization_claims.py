"""The claims of bayesian-generalization: every arm at smoke, what is derived, users' encoders and the instrument."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from claimbench.errors import UserError
from claimbench.paper import load_paper
from claimbench.papers.theory import bayesian_generalization
from claimbench.papers.theory.bayesian_generalization import claims, describe_concepts, render_family
from claimbench.papers.theory.bayesian_generalization.__main__ import describe, main
from claimbench.papers.theory.bayesian_generalization.complexity import subjective_complexity
from claimbench.papers.theory.bayesian_generalization.network import (
    accuracy_on,
    build_network,
    fit_head,
    pooled_features,
    train_network,
)
from claimbench.papers.theory.bayesian_generalization.setup import Labelled, opened_encoder, split_classes
from claimbench.subjects import open_subject, resolve_subject
from claimbench.testing import check_derived, check_registry, declared, made_up, smoke_trials
from claimbench.trial import Row, Subjects, Table, Trial, registry

PAPER = load_paper(Path(bayesian_generalization.__file__).parent / "paper.toml")
FOUND = registry(claims.__name__)
pytestmark = pytest.mark.usefixtures("one_thread")


def subjects(**values: str) -> Subjects:
    kinds = {"images": "images", "encoder": "callable"}
    return Subjects({name: resolve_subject(kinds[name], value) for name, value in values.items()}, "cpu")


def test_every_claim_is_measured_and_derived() -> None:
    check_registry(PAPER, FOUND)
    for claim in PAPER.claim:
        if declared(claim, derived=True):
            numbers = check_derived(claim, FOUND, _ladder_of(claim, lambda x: 20 - 40 * (x - 0.5) ** 2))
            assert all(math.isfinite(value) for value in numbers.values())


def _ladder_of(claim: Any, length: Any) -> Table:
    """Made-up numbers; along a ladder, lengths that are a function of entropy scaled to 0..1."""
    if claim.id != "inverted-u":
        return made_up(claim, lambda point: 0.5)
    families = [point["family"] for point in claim.points("quick")]
    rows = []
    for arm in claim.arms("quick"):
        for place, family in enumerate(families):
            x = place / (len(families) - 1)
            metrics = dict.fromkeys(declared(claim), 0.9) | {"entropy": 2 + 6 * x, "attributes": length(x)}
            rows.append(Row(arm, {"family": family}, 0, metrics))
    return Table(rows)


def test_the_ladder_tells_an_inverted_u_from_a_line() -> None:
    claim = PAPER.find_claim("inverted-u")
    curved = claims.shape_of_ladder(_ladder_of(claim, lambda x: 20 - 40 * (x - 0.4) ** 2))
    assert curved["quadratic"] == pytest.approx(-40)
    assert curved["peak"] == pytest.approx(0.4)
    assert curved["rise"] > 0 > curved["fall"]
    line = claims.shape_of_ladder(_ladder_of(claim, lambda x: 3 + 8 * x))
    assert line["quadratic"] == pytest.approx(0, abs=1e-9)
    assert line["rise"] == pytest.approx(8)
    assert line["fall"] == pytest.approx(8)
    assert line["accuracy_range"] == 0


@pytest.mark.parametrize("claim", PAPER.claim, ids=lambda claim: claim.id)
def test_every_arm_measures_every_metric(claim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path))
    for trial in smoke_trials(claim, claim.points("smoke")[-1], subject=subjects()):
        metrics = FOUND.measures[claim.measured_by](trial)
        assert set(metrics) == declared(claim)
        assert all(math.isfinite(value) for value in metrics.values())


def test_tuning_is_on_base_concepts_and_settings_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path))
    claim = PAPER.find_claim("mode-shift")
    found = {}
    for trial in smoke_trials(claim, subject=subjects(), tuning=True)[:1]:
        for setting in claim.tuning["setting"]:
            cell = Trial(trial.arm, trial.point, trial.seed, size=trial.size, subject=trial.subject)
            cell.tuned_values = {"setting": setting}
            found[setting] = FOUND.measures[claim.measured_by](cell)
    assert {metrics["long"] - metrics["short"] for metrics in found.values()} == {0.0}
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in found.values())


# ---- networks and users' encoders ----

ENCODER = """
import torch
from torch import nn

def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU()), nn.Linear(12, CLASSES)

def without_head():
    return encoder()[0]

def wrong():
    return "weights.pt"
"""


def test_digits_through_an_encoder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(ENCODER.replace("CLASSES", "10"))
    claim = PAPER.find_claim("roa-shortest-description")
    accuracy = {}
    for name in ("encoder", "without_head"):
        given = subjects(images="digits", encoder=f"{tmp_path}/mine.py:{name}")
        trial = smoke_trials(claim, {"data": "images"}, subject=given)[0]
        accuracy[name] = FOUND.measures[claim.measured_by](trial)["accuracy"]
    assert accuracy["encoder"] < 0.4  # an untrained head; a fitted one does far better
    assert accuracy["without_head"] > accuracy["encoder"] + 0.2
    with pytest.raises(UserError, match="features, head"):
        opened_encoder(resolve_subject("callable", f"{tmp_path}/mine.py:wrong"), "cpu")


def test_training_stops_at_its_target_and_is_repeatable() -> None:
    pixels, labels = render_family("silhouettes", classes=3, count=24, side=12, seed=0)
    runs = []
    for target in (0.5, 1.0, 0.5):
        torch.manual_seed(0)
        network = build_network("small", 3, 3, width=8, attributes=16)
        epochs = train_network(
            network,
            pixels,
            labels,
            epochs=8,
            batch=16,
            learning_rate=0.02,
            seed=1,
            held_out=(pixels, labels),
            target=target,
        )
        runs.append((epochs, accuracy_on(network, pixels, labels)))
    assert runs[0] == runs[2]
    assert runs[0][0] < 8 == runs[1][0]
    assert 0.5 <= runs[0][1] <= runs[1][1]
    assert runs[1][1] > 0.6


def test_pooled_features_and_fitted_heads(rng: np.random.Generator) -> None:
    pixels = rng.random((5, 3, 4, 4), dtype=np.float32)
    maximum, average = pooled_features(lambda images: images, pixels, batch=2)
    np.testing.assert_array_equal(maximum, pixels.max((2, 3)))
    np.testing.assert_allclose(average, pixels.mean((2, 3)), rtol=1e-6)
    with pytest.raises(UserError, match="tensor"):
        pooled_features(lambda images: images.sum(), pixels)
    for classes in (2, 3):
        labels = np.repeat(np.arange(classes), 20)
        features = 1e-3 * (np.eye(classes)[labels] + 0.1 * rng.random((20 * classes, classes)))
        weight, bias = fit_head(features, labels)
        assert ((features @ weight.T + bias).argmax(1) == labels).all()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_residual_network_is_a_feature_map_and_a_linear_head() -> None:
    torch.manual_seed(0)
    network = build_network("resnet18", 3, 4, width=0, attributes=0).eval()
    # ResNet-18 has 11,689,512 parameters with 1,000 classes, of which 513,000 are its head's.
    assert sum(p.numel() for p in network.parameters()) == 11_689_512 - 513_000 + 513 * 4
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = network.features(images)
        assert found.shape[1] == 512
        assert float(found.min()) >= 0
        torch.testing.assert_close(network(images), network.head(found.mean((2, 3))))
    with pytest.raises(UserError, match="small and resnet18"):
        build_network("resnet50", 3, 4, width=8, attributes=8)


def test_splits_are_disjoint_and_classes_are_renumbered(rng: np.random.Generator) -> None:
    images = Labelled(np.arange(60, dtype=np.float32).reshape(60, 1, 1, 1), np.repeat(np.arange(3), 20))
    parts = split_classes(images, (0.5, 0.1, 0.4), seed=1)
    assert [len(part.labels) for part in parts] == [30, 6, 24]
    assert sorted(np.concatenate([part.pixels.ravel() for part in parts])) == list(range(60))
    two = images.of(np.array([2, 0]))
    assert two.labels.tolist() == [1] * 20 + [0] * 20
    assert two.pixels.ravel().tolist() == [*range(20), *range(40, 60)]


# ---- the instrument ----


def test_describing_planted_attributes() -> None:
    # Channel c is on for class c alone; a fourth is always on: one attribute describes each class.
    labels = np.tile(np.arange(3), 20)
    pixels = np.zeros((60, 4, 3, 3), dtype=np.float32)
    pixels[np.arange(60), labels] = 1
    pixels[:, 3] = 2
    head = torch.nn.Linear(4, 3)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, 4))
        head.bias.zero_()
    found = describe_concepts(lambda images: images, head, pixels, labels, names=("a", "b", "c"))
    assert [(concept.name, concept.complexity, concept.attributes) for concept in found] == [
        ("a", 1, (0,)),
        ("b", 1, (1,)),
        ("c", 1, (2,)),
    ]
    assert {concept.accuracy for concept in found} == {1.0}
    likely = describe_concepts(lambda images: images, head, pixels, labels, ordering="likelihood")
    assert {concept.complexity for concept in likely} == {
        1,
        2,
    }  # the constant channel first: of no use but to class 0
    with pytest.raises(UserError, match="likelihood"):
        describe_concepts(None, None, pixels, labels, ordering="likelyhood")
    with pytest.raises(UserError, match="head has 2 classes"):
        describe_concepts(lambda images: images, torch.nn.Linear(4, 2), pixels, labels)


def test_the_command_prints_what_python_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(ENCODER.replace("CLASSES", "10"))
    encoder = f"{tmp_path}/mine.py:without_head"
    describe("digits", encoder)
    told = capsys.readouterr().out.splitlines()
    images = open_subject(resolve_subject("images", "digits"))
    features, head = opened_encoder(resolve_subject("callable", encoder), "cpu")
    found = describe_concepts(features, head, images.pixels, images.labels, names=images.classes)
    assert [line.split()[:2] for line in told[1:]] == [[c.name, str(c.complexity)] for c in found]
    monkeypatch.setattr(sys, "argv", ["describe", "digits", "--encoder", encoder, "--ordering", "rao"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith('claimbench: ordering = "rao"')


def test_a_lasting_crossing_at_the_end_counts() -> None:
    assert subjective_complexity(np.array([[0.0, 0.0, 1.0, 1.0]]), stay=3).tolist() == [2]
