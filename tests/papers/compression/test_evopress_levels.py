"""Compression levels of linears, and the database over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from claimbench.errors import UserError
from claimbench.papers.compression.evopress.database import (
    bits_database,
    owl_profile,
    search_levels,
    sparsity_database,
    start_bits,
)
from claimbench.papers.compression.evopress.fitness import Judge
from claimbench.papers.compression.evopress.levels import (
    bit_levels,
    inverse_factor,
    outlier_share,
    output_errors,
    sparse_levels,
)
from claimbench.papers.compression.evopress.search import Stage, level_switch


def problem(
    outputs: int = 6, inputs: int = 20, rows: int = 200
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, correlated inputs, and their Hessian X^T X."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(rows, inputs, generator=generator, dtype=torch.float64) @ mix
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64), x, x.T @ x


def error(weight, level, x) -> float:
    return float(((x @ (level - weight).T) ** 2).sum() / ((x @ weight.T) ** 2).sum())


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
@pytest.mark.parametrize("inputs", [20, 300])
def test_exactly_as_many_zeros_as_asked(method, inputs) -> None:
    weight, _, hessian = problem(inputs=inputs)
    zeros = torch.tensor([0, 1, 37, weight.numel() // 2, weight.numel()])
    levels = sparse_levels(weight, hessian, zeros, method)
    assert (levels == 0).flatten(1).sum(1).tolist() == zeros.tolist()
    assert torch.equal(levels[0], weight)


def test_sparsegpt_compensates_as_the_closed_form_says() -> None:
    """One weight pruned, one row: the optimal update of the columns after it is w_j / [H^-1]_jj times H^-1's row.

    Columns before the pruned one stay (SparseGPT's restriction), so the closed form uses the Hessian of the rest.
    """
    weight, x, hessian = problem(outputs=1)
    level = sparse_levels(weight, hessian, torch.tensor([1]), damping=1e-9)[0, 0]
    pruned = int((level == 0).nonzero())
    assert torch.equal(level[:pruned], weight[0, :pruned])
    rest = slice(pruned + 1, None)
    # least squares: the later weights that best replace x_p w_p
    best = torch.linalg.lstsq(x[:, rest], x[:, pruned] * weight[0, pruned]).solution
    assert torch.allclose(level[rest] - weight[0, rest], best, rtol=1e-4, atol=1e-6)
    assert error(weight, level, x) > 0


def test_compensation_beats_masking_and_output_errors_are_the_errors() -> None:
    weight, x, hessian = problem(outputs=16, inputs=40)
    zeros = torch.tensor([weight.numel() // 2])
    found = {m: sparse_levels(weight, hessian, zeros, m) for m in ("sparsegpt", "wanda", "magnitude")}
    errors = {m: error(weight, level[0], x) for m, level in found.items()}
    assert errors["sparsegpt"] < errors["wanda"]
    assert errors["sparsegpt"] < errors["magnitude"]
    for method, level in found.items():
        assert output_errors(weight, level, hessian).item() == pytest.approx(errors[method])


def test_wanda_prunes_each_row_by_weight_times_norm() -> None:
    weight, _, hessian = problem()
    level = sparse_levels(weight, hessian, torch.tensor([weight.shape[0] * 5]), "wanda")[0]
    scores = weight.abs() * hessian.diagonal().sqrt()
    assert ((level == 0).sum(1) == 5).all()
    for row, score in zip(level, scores, strict=True):
        assert set((row == 0).nonzero().flatten().tolist()) == set(score.argsort()[:5].tolist())


@pytest.mark.parametrize("method", ["gptq", "rtn"])
def test_bits_make_so_many_values_a_group_and_more_bits_err_less(method) -> None:
    weight, x, hessian = problem(outputs=5, inputs=64)
    bits = torch.tensor([2, 3, 4, 6, 12])
    levels = bit_levels(weight, hessian, bits, method, group=32)
    for count, level in zip([4, 8, 16], levels, strict=False):
        for row in level:
            for part in row.split(32):
                assert len(part.unique()) <= count
    errors = output_errors(weight, levels, hessian)
    assert (errors.diff() < 0).all()
    assert errors[-1] < 1e-5
    assert errors[0].item() == pytest.approx(error(weight, levels[0], x))


def test_rounding_to_nearest_is_within_half_a_step() -> None:
    weight, _, hessian = problem(inputs=32)
    level = bit_levels(weight, hessian, torch.tensor([3]), "rtn", group=16)[0]
    for row, rounded in zip(weight.split(16, dim=1), level.split(16, dim=1), strict=True):
        step = (row.amax(1).clamp(min=0) - row.amin(1).clamp(max=0)) / 7
        # a whole zero point shifts the grid by up to half a step, at its ends only
        assert ((row - rounded).abs() <= step[:, None] * (1 + 1e-9)).all()
        inner = (row > row.amin(1, keepdim=True) + step[:, None]) & (
            row < row.amax(1, keepdim=True) - step[:, None]
        )
        assert ((row - rounded).abs()[inner] <= (step[:, None] / 2 * (1 + 1e-9)).expand_as(row)[inner]).all()


def test_gptq_errs_less_than_rounding() -> None:
    weight, _, hessian = problem(outputs=16, inputs=64)
    bits = torch.tensor([2, 3, 4])
    gptq, nearest = (
        output_errors(weight, bit_levels(weight, hessian, bits, m), hessian) for m in ("gptq", "rtn")
    )
    assert (gptq < nearest).all()


def test_levels_together_equal_levels_alone() -> None:
    weight, _, hessian = problem(inputs=150)
    zeros, bits = torch.tensor([10, 300]), torch.tensor([2, 5])
    for together, alone in (
        (sparse_levels(weight, hessian, zeros), [sparse_levels(weight, hessian, z[None])[0] for z in zeros]),
        (bit_levels(weight, hessian, bits), [bit_levels(weight, hessian, b[None])[0] for b in bits]),
    ):
        assert torch.allclose(together, torch.stack(alone))


def test_the_factor_is_the_inverses_and_dead_inputs_do_no_harm() -> None:
    _, _, hessian = problem()
    hessian[3] = hessian[:, 3] = 0
    factor = inverse_factor(hessian, damping=0.1)
    damped = hessian.clone()
    damped[3, 3] = 1
    damped += 0.1 * damped.diagonal().mean() * torch.eye(len(damped))
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(len(damped), dtype=torch.float64), atol=1e-8)


def test_outliers_by_hand() -> None:
    weight = torch.ones(2, 4)
    weight[0, 0] = 100.0
    assert outlier_share(weight, torch.eye(4), threshold=5.0) == (1, 8)


SHAPE = {"vocab_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {**SHAPE, "hidden_size": 16, "intermediate_size": 24, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.3)).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 40, "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
    return GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=1, eos_token_id=2, initializer_range=0.3)).eval()


def text() -> torch.Tensor:
    return torch.randint(0, 40, (24, 16), generator=torch.Generator().manual_seed(1))


def zeros_of(database) -> int:
    return sum(int((unit.module.weight == 0).sum()) for unit in database.units)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_every_sparsity_profile_of_the_search_has_the_same_number_of_zeros(make) -> None:
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    database = sparsity_database(model, text(), 0.5, steps_of_smallest=16, each_side=3)
    assert len(database.units) == (14 if make is llama else 8)
    assert len({unit.size for unit in database.units}) > 1, "steps must be equal although sizes are not"
    rng = np.random.default_rng(0)
    counts = set()
    profiles = level_switch(database.space, np.tile(database.base, (6, 1)), rng)
    for profile in [database.base, *profiles]:
        database.write(profile)
        counts.add(zeros_of(database))
    assert counts == {sum(round(unit.size / 2) for unit in database.units)}
    database.reset()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_written_profile_is_the_profile_that_was_judged(make) -> None:
    model = make()
    database = bits_database(model, text(), bits=(2, 3, 4), base=3, group=8)
    judge = Judge(database)
    profile = level_switch(database.space, database.base[None], np.random.default_rng(1))[0]
    seen = judge(np.stack([profile, database.base]), text(), "loss").mean(axis=1)
    assert np.isfinite(seen).all()
    assert abs(seen[0] - seen[1]) > 1e-6
    for levels, value in zip((profile, database.base), seen, strict=True):
        database.write(levels)
        with torch.no_grad():
            logits = model(text()).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text()[:, 1:].flatten())
        assert float(loss) == pytest.approx(value, rel=1e-5)


def test_layers_are_prepared_on_what_the_base_level_before_them_gives() -> None:
    """The first layer's levels do not depend on the base level, the second one's do."""
    coarse, fine = (bits_database(llama(), text(), base=base, group=8) for base in (2, 6))
    for one, other in zip(coarse.units, fine.units, strict=True):
        same = all(torch.equal(a, b) for a, b in zip(one.levels, other.levels, strict=True))
        assert same == (one.layer == 0), one.name


def test_the_search_improves_on_uniform_and_keeps_its_size() -> None:
    database = sparsity_database(llama(), text(), 0.5, steps_of_smallest=8, each_side=2)
    stages = (Stage(384, 2), Stage(384, 1))
    result = search_levels(database, text(), generations=6, offspring=8, stages=stages)
    judge = Judge(database)
    found, uniform = judge(np.stack([result.levels, database.base]), text()).mean(axis=1)
    assert found < uniform
    assert result.levels.sum() == 0
    assert found == pytest.approx(result.fitness, rel=1e-5), "the last stage saw the whole text"


def test_owl_and_mixed_bits_meet_the_budget() -> None:
    database = sparsity_database(llama(), text(), 0.5, steps_of_smallest=16, each_side=4)
    profile = owl_profile(database, 0.5, 0.1)
    assert profile.sum() == 0
    assert profile.any()
    bits = bits_database(llama(), text(), base=3, group=8)
    sizes = np.array([unit.size for unit in bits.units])
    start = start_bits(bits, 2.5, np.random.default_rng(0))
    assert 2.5 * sizes.sum() - sizes.max() < start @ sizes <= 2.5 * sizes.sum()
    assert set(start) == {2, 3}
    assert (start_bits(bits, 3, np.random.default_rng(0)) == 3).all()
    with pytest.raises(UserError, match="target: 7 bits"):
        start_bits(bits, 7, np.random.default_rng(0))
    with pytest.raises(UserError, match="holds bit widths"):
        owl_profile(bits, 0.5)


def test_the_users_mistakes_are_named() -> None:
    weight, _, hessian = problem()
    with pytest.raises(UserError, match="zeros:"):
        sparse_levels(weight, hessian, torch.tensor([10_000]))
    with pytest.raises(UserError, match='"prune" is not known'):
        sparse_levels(weight, hessian, torch.tensor([1]), "prune")
    with pytest.raises(UserError, match='"awq" is not known'):
        bit_levels(weight, hessian, torch.tensor([3]), "awq")
    with pytest.raises(UserError, match="sparsity: 1.5"):
        sparsity_database(llama(), text(), 1.5)
    with pytest.raises(UserError, match="must be consecutive"):
        bits_database(llama(), text(), bits=(2, 4))
