"""How much faster many small models train as one stack than one after another, and how equal the results are.

python benchmarks/stacked.py                          every row; wants an idle machine
python benchmarks/stacked.py --rows mlp-32 --rounds 3 --json

The loop is each plain module alone with torch's fused AdamW, clip_grad_norm_ and the same schedule; the stack is
claimbench.blocks. Both train all models for the same steps on the same batches, in rounds that take every side at
every number of threads in turn, after one round to warm up. A side's seconds are the median over rounds at its best
number of threads; stacking and unstacking is done once a training and given apart. The ratio in processor seconds, at
the first number of threads, suffers less than the wall's where others use the machine, but suffers.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from claimbench.blocks.schedules import warm_cosine
from claimbench.blocks.stacked import Stack
from claimbench.blocks.stacked_training import Loss, train_stack
from claimbench.blocks.tiny_transformer import TinyTransformer, token_loss

INPUTS, CLASSES, BATCH = 32, 10, 32
RATES = (1e-3, 2e-3, 4e-3)  # the models take them in turn
Batches = list[tuple[Tensor, Tensor]]


class Row(NamedTuple):
    """One architecture: `make` builds a model, `data` the batches for so many models and steps."""

    title: str
    models: int
    steps: int
    make: Callable[[], nn.Module]
    data: Callable[[int, int], Batches]
    loss: Loss


def mlps(width: int) -> Row:
    def make() -> nn.Module:
        layers = (
            nn.Linear(INPUTS, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, CLASSES),
        )
        return nn.Sequential(*layers)

    def data(models: int, steps: int) -> Batches:
        return [
            (torch.randn(models, BATCH, INPUTS), torch.randint(CLASSES, (models, BATCH)))
            for _ in range(steps)
        ]

    title = f"MLP {INPUTS}-{width}-{width}-{CLASSES}, batch {BATCH}"
    return Row(title, 200, 10, make, data, nn.functional.cross_entropy)


def transformers(width: int, context: int, batch: int, steps: int) -> Row:
    def make() -> nn.Module:
        return TinyTransformer(width=width, heads=width // 16, context=context)

    def data(models: int, steps: int) -> Batches:
        texts = torch.randint(256, (steps, models, batch, context + 1))
        return [(text[..., :-1], text[..., 1:]) for text in texts]

    title = f"transformer, 2 layers, width {width}, context {context}, batch {batch}"
    return Row(title, 64, steps, make, data, token_loss)


ROWS = {
    "mlp-32": mlps(32),
    "mlp-64": mlps(64),
    "transformer-32-32": transformers(32, 32, 4, 30),
    "transformer-32-64": transformers(32, 64, 8, 10),
    "transformer-64-128": transformers(64, 128, 8, 4),
}


SIDES = ("loop", "stack")


def train_alone(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], rate: float, loss: Loss) -> None:
    """One plain module in torch's own way."""
    steps = len(batches)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_cosine(step, steps))
    for inputs, targets in batches:
        value = loss(model(inputs), targets)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def loop(row: Row, models: list[nn.Module], batches: Batches) -> None:
    for index, model in enumerate(models):
        own = [(inputs[index], targets[index]) for inputs, targets in batches]
        train_alone(model, own, RATES[index % len(RATES)], row.loss)


def together(row: Row, stack: Stack, batches: Batches) -> None:
    rates = torch.tensor(RATES, dtype=torch.float64).repeat(len(stack))[: len(stack)]
    train_stack(stack, batches, steps=len(batches), learning_rate=rates, loss=row.loss)


def clocked(function: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - start, time.process_time() - busy


def difference(row: Row, dtype: torch.dtype) -> float:
    """The largest difference between the weights of the two sides, over the largest weight of its tensor."""
    torch.manual_seed(1)
    models = [row.make().to(dtype) for _ in range(6)]
    batches = [
        (inputs.to(dtype) if inputs.is_floating_point() else inputs, targets)
        for inputs, targets in row.data(6, 20)
    ]
    stack = Stack.of(models)
    loop(row, models, batches)
    together(row, stack, batches)
    return max(
        float((one - two).detach().abs().max() / one.detach().abs().max())
        for alone, other in zip(models, stack.unstack(), strict=True)
        for one, two in zip(alone.parameters(), other.parameters(), strict=True)
    )


def measure(row: Row, rounds: int, threads: Sequence[int]) -> dict[str, Any]:
    torch.manual_seed(0)
    models = [row.make() for _ in range(row.models)]
    batches = row.data(row.models, row.steps)
    clocks: dict[str, dict[int, list[tuple[float, float]]]] = {
        side: {count: [] for count in threads} for side in SIDES
    }
    setting_up = []
    for _ in range(rounds + 1):
        for count in threads:
            torch.set_num_threads(count)
            start = time.perf_counter()
            stack = Stack.of(models)
            stack.unstack()
            setting_up.append(time.perf_counter() - start)
            clocks["stack"][count].append(clocked(together, row, stack, batches))
            clocks["loop"][count].append(clocked(loop, row, copy.deepcopy(models), batches))
    # The first round warms up.
    wall = {
        side: {count: median(seconds for seconds, _ in pairs[1:]) for count, pairs in clocks[side].items()}
        for side in SIDES
    }
    busy = {side: median(seconds for _, seconds in clocks[side][threads[0]][1:]) for side in SIDES}
    best = {side: min(wall[side], key=wall[side].__getitem__) for side in SIDES}
    return {
        "models": row.models,
        "architecture": row.title,
        "parameters": sum(parameter.numel() for parameter in models[0].parameters()),
        "steps": row.steps,
        "seconds": {side: {str(count): seconds for count, seconds in wall[side].items()} for side in SIDES},
        "seconds_to_stack_and_unstack": median(setting_up),
        "threads": best,
        "faster": wall["loop"][best["loop"]] / wall["stack"][best["stack"]],
        "faster_in_processor_seconds": busy["loop"] / busy["stack"],
        "difference_float64": difference(row, torch.float64),
        "difference_float32": difference(row, torch.float32),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0],
        epilog="example: python benchmarks/stacked.py --rows mlp-32 transformer-32-32 --rounds 3",
    )
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which architectures (all)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is taken (5)")
    parser.add_argument(
        "--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads to try on each side (1 2)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    results = {name: measure(ROWS[name], options.rounds, options.threads) for name in options.rows}
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(
        "| models | parameters each | loop, ms a step | stack, ms a step | to stack and unstack, ms | faster |"
        " in processor time | largest difference, float64 | float32 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for result in results.values():
        cells = [
            f"{1e3 * result['seconds'][side][str(result['threads'][side])] / result['steps']:.0f}"
            f" ({result['threads'][side]} thread{'s' * (result['threads'][side] > 1)})"
            for side in SIDES
        ]
        print(
            f"| {result['models']} x {result['architecture']} | {result['parameters']:,} | {cells[0]} | {cells[1]} "
            f"| {1e3 * result['seconds_to_stack_and_unstack']:.0f} | {result['faster']:.1f} x "
            f"| {result['faster_in_processor_seconds']:.1f} x "
            f"| {result['difference_float64']:.0e} | {result['difference_float32']:.0e} |"
        )
    loads = ", ".join(f"{result['load']:.1f}" for result in results.values())
    system = f"{platform.system()} {platform.release().split('-')[0]}, {os.cpu_count()} CPUs"
    print(
        f"\nMeasured on {system}, Python {platform.python_version()}, torch {torch.__version__}, load {loads}."
    )


if __name__ == "__main__":
    main()
