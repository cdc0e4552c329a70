"""Dense kernels, the memory experiment and the tasks that S4 is measured on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

from claimbench.blocks.sequence_model import count_parameters
from claimbench.papers.sequence.s4 import dense
from claimbench.papers.sequence.s4.hippo import hippo_legs
from claimbench.papers.sequence.s4.layer import S4
from claimbench.papers.sequence.s4.learning import build, learn
from claimbench.papers.sequence.s4.recall import delay_recall, states_of, system
from claimbench.papers.sequence.s4.tasks import (
    BLANK,
    band_limited_noise,
    digits,
    from_arrays,
    majority,
    majority_task,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense_model(n: int, heads: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b = hippo_legs(n)
    c = torch.randn(heads, n, dtype=torch.float64, generator=seeded())
    step = torch.logspace(-3, -1, heads, dtype=torch.float64)
    return a.expand(heads, n, n).contiguous(), b.expand(heads, n).contiguous(), c, step


def test_discretised_pair_is_scipys() -> None:
    a, b, c, step = dense_model(16)
    discrete, inputs = dense.discretise(a, b, step)
    for head, delta in enumerate(step):
        wanted = signal.cont2discrete(
            (a[head].numpy(), b[head].numpy()[:, None], c[:1].numpy(), np.zeros((1, 1))),
            float(delta),
            method="bilinear",
        )
        assert np.allclose(discrete[head].numpy(), wanted[0], rtol=0, atol=1e-13)
        assert np.allclose(inputs[head].numpy(), wanted[1][:, 0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("length", [1, 2, 5, 64, 300, 513])
@pytest.mark.parametrize("name", ["dense-recurrence", "dense-doubling", "dense-baby-giant"])
def test_dense_methods_agree_with_powers_of_the_transition(name: str, length: int) -> None:
    a, b, c, step = dense_model(8)
    discrete, inputs = (part.numpy() for part in dense.discretise(a, b, step))
    x, rows = inputs.copy(), []
    for _ in range(length):
        rows.append((c.numpy() * x).sum(-1))
        x = np.einsum("hij,hj->hi", discrete, x)
    wanted = np.stack(rows, axis=1)
    kernel = dense.METHODS[name](a, b, c, step, length)
    assert kernel.shape == (2, length)
    assert np.allclose(kernel.numpy(), wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())


def test_diagonalising_is_right_for_a_normal_matrix_and_wrong_for_hippo() -> None:
    _, _, c, step = dense_model(32)
    normal = torch.diag(-torch.rand(32, dtype=torch.float64, generator=seeded()) - 0.1).expand(2, 32, 32)
    b = torch.ones(2, 32, dtype=torch.float64)
    assert torch.allclose(
        dense.eigen(normal, b, c, step, 50), dense.recurrence(normal, b, c, step, 50), rtol=0, atol=1e-12
    )
    a, b, c, step = dense_model(32)
    right = dense.recurrence(a, b, c, step, 50)
    assert not float((dense.eigen(a, b, c, step, 50) - right).abs().max()) < float(right.abs().max())


def test_noise_has_its_band_and_unit_power() -> None:
    noise = band_limited_noise(50, 1000, 0.1, seeded())
    assert float(noise.square().mean()) == pytest.approx(1, abs=1e-12)
    _, power = signal.welch(noise.numpy(), nperseg=250, detrend=False)
    frequencies = np.linspace(0, 1, power.shape[1])  # share of Nyquist
    total = power.mean(0)
    assert total[frequencies > 0.15].sum() < 1e-3 * total.sum()
    assert total[frequencies < 0.1].min() > 0.3 * total[frequencies < 0.1].max()
    with pytest.raises(ValueError, match="Nyquist"):
        band_limited_noise(1, 10, 0.0, seeded())


def test_states_are_powers_of_the_transition() -> None:
    a, b = system("hippo", 8, seeded())
    states = states_of(a, b, 0.02, 21)
    discrete, inputs = dense.discretise(a[None], b[None], torch.tensor([0.02], dtype=torch.float64))
    x = inputs[0]
    for length in range(21):
        assert torch.allclose(states[:, length], x, rtol=0, atol=1e-13)
        x = discrete[0] @ x


def shift_register(n: int) -> tuple[Tensor, Tensor]:
    """A continuous system whose bilinear discretisation at step 1 is an exact delay line of n taps."""
    discrete = torch.diag(torch.ones(n - 1, dtype=torch.float64), diagonal=-1)
    identity = torch.eye(n, dtype=torch.float64)
    a = 2 * torch.linalg.solve(discrete + identity, discrete - identity)
    first = torch.zeros(n, dtype=torch.float64)
    first[0] = 1
    return a, (identity - a / 2) @ first


def test_a_delay_line_recalls_perfectly_up_to_its_length_and_nothing_beyond() -> None:
    g = seeded()
    train, validation, test = (torch.randn(8, 100, dtype=torch.float64, generator=g) for _ in range(3))
    a, b = shift_register(12)
    within = delay_recall(a, b, train, validation, test, delay=11, steps=[1.0], stride=1)
    beyond = delay_recall(a, b, train, validation, test, delay=12, steps=[1.0], stride=1)
    assert within.test < 1e-15
    assert beyond.test > 0.9


def test_step_size_is_chosen_on_validation_data_only() -> None:
    g = seeded()
    train, validation, test = (band_limited_noise(8, 200, 0.05, g) for _ in range(3))
    a, b = system("hippo", 16, g)
    tried = [1e-3, 1e-2, 1e-1]
    each = [delay_recall(a, b, train, validation, test, delay=100, steps=[s]) for s in tried]
    chosen = delay_recall(a, b, train, validation, test, delay=100, steps=tried)
    assert chosen == min(each, key=lambda r: r.validation)
    other = delay_recall(a, b, train, validation, torch.randn_like(test), delay=100, steps=tried)
    assert (other.step, other.ridge, other.validation) == (chosen.step, chosen.ridge, chosen.validation)
    with pytest.raises(ValueError, match="delay"):
        delay_recall(a, b, train, validation, test, delay=200, steps=tried)


def test_majority_counts_the_first_tokens_and_is_balanced() -> None:
    tokens, labels = majority(4000, 20, counted=6, generator=seeded())
    ones = tokens[:, :6].sum(1)
    assert torch.all(tokens[:, 6:] == BLANK)
    assert torch.all(2 * ones != 6)
    assert torch.equal(labels, (ones > 3).long())
    assert abs(float(labels.double().mean()) - 0.5) < 4 * math.sqrt(0.25 / 4000)


def test_digits_are_split_without_overlap_and_permuted_alike() -> None:
    rows, permuted = digits(16, test_share=slice(0, 149)), digits(16, test_share=slice(0, 149), permuted=True)
    assert (rows.length, rows.inputs, rows.outputs) == (256, 1, 10)
    x, y = rows.draw("test", 0, seeded())
    assert x.shape == (149, 256, 1)
    px, py = permuted.draw("test", 0, seeded())
    assert torch.equal(y, py)
    assert not torch.equal(x, px)
    assert torch.equal(x.sort(1).values, px.sort(1).values)
    seen = {tuple(row.tolist()) for row in x[:, ::5, 0]}
    train, _ = rows.draw("train", 300, seeded())
    validation, _ = rows.draw("validation", 0, seeded())
    for other in (train, validation):
        assert not seen & {tuple(row.tolist()) for row in other[:, ::5, 0]}


def test_own_arrays_become_tasks_and_are_checked() -> None:
    reals, labels = torch.randn(40, 12, 3), torch.randint(0, 4, (40,))
    task = from_arrays((reals, labels), (reals[:5], labels[:5]))
    assert (task.length, task.inputs, task.tokens, task.regression) == (12, 3, False, False)
    x, y = task.draw("train", 7, seeded())
    assert x.shape == (7, 12, 3)
    assert y.shape == (7,)
    symbols = from_arrays(
        (torch.randint(0, 9, (40, 12)), torch.randn(40, 2)), (torch.full((5, 12), 9), torch.randn(5, 2))
    )
    assert (symbols.inputs, symbols.outputs, symbols.tokens, symbols.regression) == (10, 2, True, True)
    with pytest.raises(ValueError, match="inputs must be"):
        from_arrays((reals[..., 0], labels), (reals[..., 0], labels))
    with pytest.raises(ValueError, match="targets must be"):
        from_arrays((reals, labels[:5]), (reals, labels))
    with pytest.raises(ValueError, match="too few"):
        from_arrays((reals[:9], labels[:9]), (reals, labels))


def test_arms_have_equal_parameters_and_one_that_is_unknown_is_refused() -> None:
    task = majority_task(16)
    sizes = {
        arm: count_parameters(build(arm, task, features=16, layers=1, state_size=32))
        for arm in ("s4", "lstm", "transformer")
    }
    assert all(abs(size / sizes["s4"] - 1) < 0.03 for size in sizes.values())
    with pytest.raises(ValueError, match="known: s4"):
        build("gru", task, features=16, layers=1, state_size=32)


def test_learning_repeats_with_its_seed_and_takes_a_mixer_of_ones_own() -> None:
    task = majority_task(24, counted=4)
    options = {"features": 8, "layers": 1, "state_size": 8, "batch": 8, "learning_rate": 0.01}
    first, again, other = (learn("s4", task, steps=3, seed=seed, **options) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert (first.score, first.loss) == (again.score, again.loss)
    assert first.loss != other.loss
    own = learn(lambda: S4(8, length=24, state_size=8), task, steps=3, seed=0, **options)  # type: ignore[arg-type]
    assert own.loss == first.loss  # the same layer, made by hand


def test_regression_is_scored_as_explained_variance() -> None:
    x = torch.randn(60, 6, 1, generator=seeded())
    task = from_arrays((x, x.mean(1)), (x, x.mean(1)))
    learned = learn(
        "s4", task, features=8, layers=1, state_size=8, steps=60, batch=8, learning_rate=0.03, seed=0
    )
    assert 0.5 < learned.score <= 1
