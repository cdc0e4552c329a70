from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from claimbench.blocks.schedules import warm_cosine
from claimbench.blocks.stacked import Stack
from claimbench.blocks.stacked_training import train_stack
from claimbench.blocks.tiny_transformer import TinyTransformer, token_loss

MODELS, STEPS = 5, 20
RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-3]
Batches = list[tuple[Tensor, Tensor]]


def _mlps() -> tuple[list[nn.Module], Batches]:
    torch.manual_seed(0)
    models = [
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).double()
        for _ in range(MODELS)
    ]
    batches = [
        (torch.randn(MODELS, 32, 6, dtype=torch.float64), torch.randint(3, (MODELS, 32)))
        for _ in range(STEPS)
    ]
    return models, batches


def _transformers() -> tuple[list[nn.Module], Batches]:
    torch.manual_seed(0)
    models = [TinyTransformer(vocabulary=20, width=16, heads=2, context=12).double() for _ in range(MODELS)]
    texts = [torch.randint(20, (MODELS, 4, 13)) for _ in range(STEPS)]
    return models, [(text[..., :-1], text[..., 1:]) for text in texts]


def _alone(
    model: nn.Module,
    batches: Batches,
    *,
    rate: float,
    decay: float = 0.01,
    clip: float | None = 1.0,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    vectors: bool = True,
) -> float:
    """The loop that the stack stands for: torch's own AdamW, clipping and scheduler on one module."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1 or vectors], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim < 2 and not vectors], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_cosine(step, len(batches)))
    losses = []
    for inputs, targets in batches:
        value = loss(model(inputs), targets)
        optimiser.zero_grad()
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        schedule.step()
        losses.append(value.detach())
    return float(torch.stack(losses[-(len(batches) // 10) :]).mean())


def _own(batches: Batches, model: int) -> Batches:
    return [(inputs[model], targets[model]) for inputs, targets in batches]


def _check(models: list[nn.Module], stack: Stack, rtol: float = 1e-10) -> None:
    for model, other in zip(models, stack.unstack(), strict=True):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(two, one, rtol=rtol, atol=rtol * float(one.detach().abs().max()))


@pytest.mark.parametrize(("clip", "chunk"), [(None, None), (0.05, 2)], ids=["unclipped", "clipped-in-chunks"])
@pytest.mark.parametrize(
    ("made", "loss"),
    [(_mlps, nn.functional.cross_entropy), (_transformers, token_loss)],
    ids=["mlp", "transformer"],
)
def test_every_model_ends_where_it_ends_alone(
    made: Callable[[], tuple[list[nn.Module], Batches]],
    loss: Callable[[Tensor, Tensor], Tensor],
    chunk: int | None,
    clip: float | None,
) -> None:
    """Own data, initialisation, learning rate and weight decay. A gradient norm is about 1, so 0.05 always clips."""
    models, batches = made()
    decays = [0.1, 0.0, 0.3, 0.01, 0.1]
    stack = Stack.of(models)
    losses = train_stack(
        stack,
        batches,
        steps=STEPS,
        learning_rate=torch.tensor(RATES),
        weight_decay=torch.tensor(decays, dtype=torch.float64),
        clip=clip,
        loss=loss,
        chunk=chunk,
    )
    alone = [
        _alone(
            model, _own(batches, i), rate=float(torch.tensor(RATES)[i]), decay=decays[i], clip=clip, loss=loss
        )
        for i, model in enumerate(models)
    ]
    torch.testing.assert_close(losses, torch.tensor(alone, dtype=torch.float64), rtol=1e-10, atol=0)
    _check(models, stack)


def test_single_precision_agrees_to_rounding() -> None:
    """Each of 20 steps moves a weight by at most about its rate, computed to some 1e-6 of itself: 20 x 1e-3 x 1e-6."""
    models, batches = _mlps()
    models = [model.float() for model in models]
    batches = [(inputs.float(), targets) for inputs, targets in batches]
    stack = Stack.of(models)
    train_stack(stack, batches, steps=STEPS, learning_rate=1e-3)
    for i, model in enumerate(models):
        _alone(model, _own(batches, i), rate=1e-3)
    for model, other in zip(models, stack.unstack(), strict=True):
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_decay_may_spare_vectors() -> None:
    models, batches = _mlps()
    stack = Stack.of(models)
    train_stack(stack, batches, steps=STEPS, learning_rate=1e-2, weight_decay=1.0, decay_vectors=False)
    for i, model in enumerate(models):
        _alone(model, _own(batches, i), rate=1e-2, decay=1.0, vectors=False)
    _check(models, stack)


def test_a_diverging_model_is_nan_and_the_others_do_not_notice() -> None:
    """At a rate of 1e160 three layers of weights multiply to more than a double holds."""
    models, batches = _mlps()
    healthy = [0, 2, 3, 4]
    rates = torch.tensor([1e-2, 1e160, 1e-2, 3e-2, 1e-3], dtype=torch.float64)
    stack, rest = Stack.of(models), Stack.of([models[i] for i in healthy])
    losses = train_stack(stack, batches, steps=STEPS, learning_rate=rates)
    chosen = [(inputs[healthy], targets[healthy]) for inputs, targets in batches]
    expected = train_stack(rest, chosen, steps=STEPS, learning_rate=rates[healthy])
    assert losses.isnan().tolist() == [False, True, False, False, False]
    torch.testing.assert_close(losses[healthy], expected, rtol=1e-12, atol=0)
    _check([stack.unstack()[i] for i in healthy], rest, rtol=1e-12)


def test_shared_batches_are_those_batches_for_every_model() -> None:
    models, batches = _mlps()
    first = _own(batches, 0)
    stack = Stack.of(models)
    train_stack(stack, first, steps=STEPS, learning_rate=torch.tensor(RATES), shared=True, chunk=2)
    for i, model in enumerate(models):
        _alone(model, first, rate=float(torch.tensor(RATES)[i]))
    _check(models, stack)


def test_a_frozen_parameter_stays() -> None:
    models, batches = _mlps()
    for model in models:
        next(model.parameters()).requires_grad_(False)
    before = copy.deepcopy(models)
    stack = Stack.of(models)
    train_stack(stack, batches, steps=STEPS, learning_rate=1e-2)
    for model, other in zip(before, stack.unstack(), strict=True):
        was, now = list(model.parameters()), list(other.parameters())
        assert torch.equal(was[0], now[0])
        assert not any(torch.equal(a, b) for a, b in zip(was[1:], now[1:], strict=True))


def test_the_schedule_and_the_progress_see_every_step() -> None:
    models, batches = _mlps()
    stack, seen = Stack.of(models), []
    losses = train_stack(
        stack,
        itertools.cycle(batches[:1]),
        steps=STEPS,
        learning_rate=1e-2,
        schedule=partial(warm_cosine, warmup=0.5),
        progress=lambda step, steps, now: seen.append((step, steps, now.clone())),
    )
    assert [entry[:2] for entry in seen] == [(step + 1, STEPS) for step in range(STEPS)]
    torch.testing.assert_close(losses, torch.stack([now for *_, now in seen[-STEPS // 10 :]]).mean(0))
    assert (losses < seen[0][2]).all()
    still = Stack.of(models)
    train_stack(still, batches, steps=STEPS, learning_rate=1.0, schedule=lambda step, steps: 0.0)
    _check(models, still, rtol=0)


def test_wrong_shapes_are_named() -> None:
    models, batches = _mlps()
    stack = Stack.of(models)
    with pytest.raises(ValueError, match=r"learning_rate of shape \(3,\) for 5 models"):
        train_stack(stack, batches, steps=STEPS, learning_rate=torch.ones(3))
    with pytest.raises(ValueError, match=r"shape \(32, 6\) for 5 models"):
        train_stack(stack, _own(batches, 0), steps=STEPS, learning_rate=1e-3)
    with pytest.raises(ValueError, match="ended after 20 of 21 steps"):
        train_stack(stack, batches, steps=STEPS + 1, learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"must be a scalar, not of shape \(32, 3\)"):
        train_stack(stack, batches, steps=STEPS, learning_rate=1e-3, loss=lambda outputs, targets: outputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
def test_a_gpu_trains_to_the_same_models() -> None:
    models, batches = _transformers()
    here, there = Stack.of(models), Stack.of(models, device="cuda")
    for stack in (here, there):
        train_stack(stack, batches, steps=STEPS, learning_rate=torch.tensor(RATES), loss=token_loss)
    for name, value in here.parameters.items():
        torch.testing.assert_close(there.parameters[name].cpu(), value, rtol=1e-8, atol=1e-8)
