"""Knowledge capacity: the bound and its arithmetic, facts as tokens, counted exposures, rounding, and every claim."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from claimbench.errors import UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.theory import knowledge_capacity as kc
from claimbench.papers.theory.knowledge_capacity import claims
from claimbench.papers.theory.knowledge_capacity.bits import information_bits
from claimbench.papers.theory.knowledge_capacity.learning import Junk, exposures_of
from claimbench.papers.theory.knowledge_capacity.rounding import round_to_nearest
from claimbench.subjects.tabular import Tabular, categorical_column, numeric_column, target_of
from claimbench.testing import Given, check_derived, check_registry, declared, made_up, smoke_trials
from claimbench.trial import registry


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(Path(kc.__file__).parent / "paper.toml")


class Oracle(nn.Module):
    """Knows every sheet: 1/people to the names, spread over their tokens, and all of it to the right values."""

    def __init__(self, facts: kc.Facts) -> None:
        super().__init__()
        self.facts, self.sheets = facts, facts.sequences
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        batch, time = ids.shape
        logits = torch.full((batch, time, self.facts.vocabulary), -math.inf)
        for length in range(1, time + 1):
            same = (self.sheets[None, :, :length] == ids[:, None, :length]).all(-1)
            following = self.sheets[:, length]
            counts = torch.zeros(batch, self.facts.vocabulary)
            counts.index_add_(1, following, same.float())
            logits[:, length - 1] = counts.log()
        return logits


class Uniform(nn.Module):
    """Knows nothing: every id alike."""

    def __init__(self, facts: kc.Facts) -> None:
        super().__init__()
        self.vocabulary = facts.vocabulary
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids.shape, self.vocabulary)


def test_bio_holds_the_bits_that_the_paper_counts() -> None:
    facts = kc.draw_bio(200, seed=0)
    assert facts.name_space == 1.6e8
    assert math.log2(facts.value_space) == pytest.approx(47.59, abs=0.01)
    assert math.log2(math.prod(kc.bio_attributes().values())) == pytest.approx(math.log2(facts.value_space))


def test_an_oracle_reaches_the_ceiling_and_nothing_exceeds_it() -> None:
    facts = kc.draw_facts(60, seed=1, words=12, values=8)
    found = kc.measure_capacity(Oracle(facts), facts)
    assert found.bits == pytest.approx(found.ceiling, rel=1e-5)
    assert found.answered == 1
    assert kc.measure_capacity(Uniform(facts), facts).bits == 0


def test_the_ceiling_is_stirlings_for_the_information() -> None:
    people, names, values = 10_000, 1.6e8, 2.0**47
    exact, ceiling = information_bits(people, names, values), kc.ceiling_bits(people, names, values)
    assert exact == pytest.approx(ceiling + people * math.log2(math.e), rel=1e-4)
    small = information_bits(3, 10, 1)
    assert small == pytest.approx(math.log2(math.comb(10, 3)))


def test_bits_of_a_known_loss() -> None:
    bits = kc.stored_bits(100, 1024, 64, name_loss=math.log(100), value_loss=math.log(2))
    assert bits == pytest.approx(100 * (math.log2(1024 / 100) + 5))
    assert kc.stored_bits(100, 1024, 64, name_loss=50, value_loss=50) == 0
    assert kc.value_set_bits(2, 4, 3, 10, set_loss=0.0) == pytest.approx(8 * math.log2(996 / 4))
    with pytest.raises(ValueError, match="do not exist"):
        kc.value_set_bits(1, 11, 1, 10, set_loss=0.0)


def test_names_differ_and_no_id_is_idle() -> None:
    facts = kc.draw_facts(300, seed=2, words=20)
    assert len(np.unique(facts.names, axis=0)) == 300
    sheets = facts.sequences
    assert sheets.shape == (300, 1 + facts.context)
    assert set(sheets.unique().tolist()) == set(range(facts.vocabulary))
    assert (sheets[:, 0] == 0).all()
    with pytest.raises(UserError, match="people: 401"):
        kc.draw_facts(401, seed=0, words=20)


def test_the_bound_does_not_change_where_one_value_becomes_two_tokens() -> None:
    """Losses are sums over tokens: 64 values in one token or 8 x 8 in two, known equally well, hold as much."""
    one = kc.draw_facts(50, seed=3, words=16, attributes=1, values=64)
    two = kc.Facts(
        one.names,
        np.stack(np.divmod(one.values[:, 0], 8), axis=1),
        one.name_sizes,
        (8, 8),
        shared_values=False,
    )
    first, second = (kc.measure_capacity(Oracle(facts), facts) for facts in (one, two))
    assert first.bits == pytest.approx(second.bits, rel=1e-5)


@pytest.mark.parametrize("batch", [7, 30, 1000])
def test_everybody_is_met_equally_often(batch: int) -> None:
    facts = kc.draw_facts(30, seed=0, words=10)
    steps = list(exposures_of(facts, 5, batch, np.random.default_rng(0)))
    assert (np.bincount(np.concatenate(steps), minlength=30) == 5).all()
    assert len(steps) == math.ceil(150 / batch)


def test_training_stores_bits_within_the_ceiling() -> None:
    facts = kc.draw_facts(60, seed=0, words=16, attributes=2, values=8)

    def make(vocabulary: int, context: int) -> nn.Module:
        return claims.make_transformer(vocabulary, context, layers=1, width=16, heads=2)

    before = kc.measure_capacity(make(facts.vocabulary, facts.context), facts)
    found = kc.capacity(facts, make, exposures=200, batch=30, learning_rate=0.02)
    assert before.bits < 0.2 * found.bits
    assert 0.5 * found.ceiling < found.bits <= found.ceiling
    assert found.answered > 0.8


def test_a_table_of_ones_own() -> None:
    facts = kc.facts_from_columns(
        ["Ada L", "Alan T", "Kurt"], {"born": [1815, 1912, 1906], "sex": ["f", "m", "m"]}
    )
    assert facts.names.shape == (3, 2)
    assert facts.value_space == 6
    assert len({tuple(row) for row in facts.names.tolist()}) == 3
    letters = kc.facts_from_columns(["ab", "c"], {"x": [0, 1]})
    assert letters.names.shape == (2, 2)
    with pytest.raises(UserError, match="twice"):
        kc.facts_from_columns(["a b", "a b"], {"x": [0, 1]})
    with pytest.raises(UserError, match="born has 1 rows"):
        kc.facts_from_columns(["a b", "b c"], {"born": [0]})
    with pytest.raises(UserError, match="no attribute"):
        kc.facts_from_columns(["a b"], {})
    with pytest.raises(UserError, match="possible_names = 1"):
        kc.facts_from_columns(["a b", "b c"], {"x": [0, 1]}, possible_names=1)


def test_a_subject_table_needs_its_names() -> None:
    columns = {"age": numeric_column(np.array([1.0, 2.0])), "city": categorical_column(["x", None])}
    with pytest.raises(UserError, match="target=COLUMN"):
        claims.facts_of(Tabular(columns))
    named = Tabular(columns, target_of("name", categorical_column(["Ada L", "Alan T"])))
    assert claims.facts_of(named).value_space == 4


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, None), (4, 8), (3, 5)])
def test_rounding_moves_no_weight_by_more_than_half_a_step(bits: int, group: int | None) -> None:
    weight = torch.randn(6, 17, generator=torch.Generator().manual_seed(0))
    rounded = round_to_nearest(weight, bits, group)
    assert rounded.shape == weight.shape
    for start in range(0, 17, group or 17):
        part, near = weight[:, start : start + (group or 17)], rounded[:, start : start + (group or 17)]
        step = part.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        assert ((part - near).abs() <= step / 2 * (1 + 1e-5)).all()
        assert torch.allclose(near / step, (near / step).round(), atol=1e-4)
    with pytest.raises(ValueError, match="bits = 1"):
        round_to_nearest(weight, 1)


def test_rounded_models_say_what_they_take() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2, bias=False))
    rounded, bits = kc.round_weights(model, 8)
    assert bits == 8 * (32 + 8) + 16 * (4 + 2) + 32 * 4
    assert torch.equal(rounded[0].bias, model[0].bias)
    assert not torch.equal(rounded[0].weight, model[0].weight)
    assert kc.round_weights(model, 8, 4)[1] == bits + 16 * 4  # rows of 8 have two groups


def test_strangers_are_new_and_made_of_the_same_words() -> None:
    facts = kc.draw_facts(100, seed=0)
    junk = claims.strangers(facts, 500, np.random.default_rng(0))
    assert junk.shape == (500, facts.sequences.shape[1])
    known = {tuple(row) for row in facts.sequences.tolist()}
    assert sum(tuple(row) in known for row in junk.tolist()) == 0
    for column in range(junk.shape[1]):
        assert set(junk[:, column].tolist()) <= set(facts.sequences[:, column].tolist())


def test_junk_takes_its_share_and_the_mark_is_read() -> None:
    facts = kc.draw_facts(24, seed=0, words=8, attributes=1, values=4)
    drawn: list[int] = []

    def draw(people: int, generator: np.random.Generator) -> torch.Tensor:
        drawn.append(people)
        return claims.strangers(facts, people, generator)

    junk = Junk(draw, share=3, domain=facts.vocabulary)
    model = claims.make_transformer(facts.vocabulary + 1, facts.context, layers=1, width=8, heads=1)
    kc.memorise(model, facts, exposures=4, batch=16, learning_rate=0.01, seed=0, junk=junk)
    assert sum(drawn) == 3 * 4 * 24
    marked = kc.measure_capacity(model, facts, junk=junk)
    assert marked.ceiling == kc.measure_capacity(model, facts).ceiling


def test_models_of_a_claim_have_about_as_many_parameters() -> None:
    def count(**options: str) -> int:
        model = claims.make_transformer(193, 6, layers=2, width=16, heads=2, head="untied", **options)
        return sum(parameter.numel() for parameter in model.parameters())

    assert count(mlp="swiglu") == pytest.approx(count(mlp="gelu"), rel=0.05)


def test_measures_and_claims_fit(paper: Paper) -> None:
    check_registry(paper, registry(claims.__name__))
    claim = paper.find_claim("bits-per-parameter")
    numbers = check_derived(
        claim, registry(claims.__name__), made_up(claim, lambda point: point["width"] / 8)
    )
    assert numbers == {"least_peak": 1.0, "most_peak": 2.0, "least_gain": 1.0}


@pytest.mark.parametrize("name", ["bits-per-parameter", "mlp-vs-gated", "domain-token"])
def test_claims_run(paper: Paper, name: str) -> None:
    claim = paper.find_claim(name)
    run = registry(claims.__name__).measures[claim.measured_by]
    for trial in smoke_trials(claim):
        numbers = run(trial)
        assert set(numbers) == declared(claim)
        assert 0 <= numbers["saturation"] <= 1


def test_all_roundings_of_a_seed_start_from_one_model(paper: Paper, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path))
    claim = paper.find_claim("int8-free")
    trials = smoke_trials(claim, many=120)
    found = {trial.arm: claims.int8_free(trial) for trial in trials}
    assert all(set(numbers) == declared(claim) for numbers in found.values())
    assert found["float32"]["kept"] == 1
    assert found["int8"]["kept"] > found["int4"]["kept"]
    assert found["float32"]["stored"] > 3 * found["int8"]["stored"]


def test_a_users_architecture_takes_part(paper: Paper) -> None:
    made: list[tuple[int, int]] = []

    def make(vocabulary: int, context: int) -> nn.Module:
        made.append((vocabulary, context))
        return nn.Sequential(nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary))

    trial = smoke_trials(paper.find_claim("bits-per-parameter"), subject=Given(architecture=make))[0]
    assert claims.bits_per_parameter(trial)["parameters"] == made[0][0] * 9
