from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from claimbench.blocks.stacked import Stack


def _mlp(*, inputs: int = 6, hidden: int = 8, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 3),
    ).double()


@pytest.fixture
def models() -> list[nn.Module]:
    torch.manual_seed(0)
    return [_mlp() for _ in range(4)]


def _same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_each_model_makes_of_its_own_batch_what_it_makes_alone(models: list[nn.Module]) -> None:
    inputs = torch.randn(4, 5, 6, dtype=torch.float64)
    alone = torch.stack([model(own) for model, own in zip(models, inputs, strict=True)])
    torch.testing.assert_close(Stack.of(models)(inputs), alone, rtol=1e-12, atol=1e-14)


def test_a_shared_batch_is_that_batch_for_every_model(models: list[nn.Module]) -> None:
    stack, batch = Stack.of(models), torch.randn(5, 6, dtype=torch.float64)
    alone = torch.stack([model(batch) for model in models])
    torch.testing.assert_close(stack(batch, shared=True), alone, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(stack(batch.expand(4, 5, 6)), alone, rtol=1e-12, atol=1e-14)


def test_one_models_gradient_reaches_no_other(models: list[nn.Module]) -> None:
    stack = Stack.of(models)
    loss = stack(torch.randn(5, 6, dtype=torch.float64), shared=True)[2].square().sum()
    for gradient in torch.autograd.grad(loss, list(stack.parameters.values())):
        assert [bool(own.any()) for own in gradient] == [False, False, True, False]


def test_unstacking_gives_the_models_back_and_shares_nothing(models: list[nn.Module]) -> None:
    for model in models:
        model.eval()
    stack = Stack.of(models)
    back = stack.unstack()
    assert all(_same(model, other) and not other.training for model, other in zip(models, back, strict=True))
    with torch.no_grad():
        next(iter(stack.parameters.values())).zero_()
        next(back[1].parameters()).fill_(7)
    again = stack.unstack()
    assert all(not next(model.parameters()).any() for model in again)
    assert next(models[0].parameters()).any()


def test_buffers_are_each_models_own() -> None:
    models = [nn.BatchNorm1d(3) for _ in range(2)]
    inputs = torch.randn(2, 50, 3)
    stack = Stack.of(models)
    stack(inputs)
    for model, other, own in zip(models, stack.unstack(), inputs, strict=True):
        model(own)
        torch.testing.assert_close(other.running_mean, model.running_mean)
        assert other.num_batches_tracked == 1


def test_parts_share_the_stacks_memory(models: list[nn.Module]) -> None:
    stack = Stack.of(models)
    parts = list(stack.split(3))
    assert [len(part) for part in parts] == [3, 1]
    with torch.no_grad():
        for part in parts:
            for value in part.parameters.values():
                value.fill_(len(part))
    assert all(next(m.parameters()).unique() == n for m, n in zip(stack.unstack(), [3, 3, 3, 1], strict=True))


def test_dropout_differs_between_models_and_repeats_with_the_seed() -> None:
    model = _mlp(dropout=0.5)
    stack, batch = Stack.of([model, model]), torch.randn(50, 6, dtype=torch.float64)

    def drawn() -> Tensor:
        torch.manual_seed(1)
        return stack(batch, shared=True)

    first = drawn()
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, drawn())
    stack.eval()
    assert torch.equal(*stack(batch, shared=True))


def test_what_is_not_one_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Stack.of([])
    torch.manual_seed(0)
    for other in (_mlp(hidden=9), _mlp(dropout=0.1), _mlp().float(), _mlp().eval()):
        with pytest.raises(ValueError, match="model 1 differs from model 0"):
            Stack.of([_mlp(), other])


def test_a_batch_without_a_models_axis_is_refused(models: list[nn.Module]) -> None:
    stack = Stack.of(models)
    with pytest.raises(ValueError, match=r"shape \(5, 6\) for 4 models: its first axis must be the models"):
        stack(torch.zeros(5, 6, dtype=torch.float64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
def test_a_stack_on_a_gpu_agrees_with_the_cpu(models: list[nn.Module]) -> None:
    inputs = torch.randn(4, 5, 6, dtype=torch.float64)
    stack = Stack.of(models, device="cuda")
    assert stack.device.type == "cuda"
    torch.testing.assert_close(stack(inputs.cuda()).cpu(), Stack.of(models)(inputs), rtol=1e-10, atol=1e-12)
