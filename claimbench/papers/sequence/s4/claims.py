"""How the claims of arXiv 2111.00396 are measured.

Sizes and points that any run may change: n, length, heads, dtype, device (kernel-cost); state, length, delay, bands
(hippo-init); features, layers, state, batch, context (the others). Own kernels and sequences: see `learning.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from claimbench.blocks.mixers.attention import Attention
from claimbench.blocks.sequence_model import Block, SequenceModel, count_parameters, match_parameters
from claimbench.errors import UserError
from claimbench.papers.sequence.s4 import dense
from claimbench.papers.sequence.s4.hippo import hippo_legs, nplr
from claimbench.papers.sequence.s4.kernel import dplr_kernel, truncate
from claimbench.papers.sequence.s4.layer import S4
from claimbench.papers.sequence.s4.learning import learn
from claimbench.papers.sequence.s4.recall import delay_recall, system
from claimbench.papers.sequence.s4.tasks import band_limited_noise, digits, majority_task
from claimbench.trial import BLOCKS, Table, Trial, derive, measure

WORST_ERROR = 1e300  # stands for an error that is larger or not a number
LEAST_BYTES = 4096  # one page: less cannot be told from nothing, and ratios need positive numbers
DIGITS = 1797

Kernel = Callable[[torch.dtype], Callable[[], Tensor]]


# --- kernel-cost ---


def kernels(n: int, length: int, heads: int, seed: int, device: str) -> dict[str, Kernel]:
    """Every arm's kernel of one and the same random model: HiPPO's A and B, C Gaussian, Δ log-uniform in [0.001, 0.1].

    A kernel is given a dtype and returns a function without arguments that computes K [heads, length]. What a trained
    model holds is computed beforehand: Λ, p, B and C̃ for S4, and A, B and C for the dense arms.
    """
    if n % 2 or n < 2:
        raise UserError(f"--at n={n}: the state is held as conjugate pairs; give an even number")
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(heads, n, dtype=torch.float64, generator=generator)
    low, high = math.log(1e-3), math.log(1e-1)
    step = (low + (high - low) * torch.rand(heads, dtype=torch.float64, generator=generator)).exp()
    a, b = hippo_legs(n)
    a, b = a.expand(heads, n, n).contiguous(), b.expand(heads, n).contiguous()
    full, half = nplr(n), n // 2
    lam, p, inputs = (part[half:].expand(heads, half).to(device) for part in full[:3])
    outputs = (c.to(full.basis.dtype) @ full.basis[:, half:]).to(device)
    a, b, c, step = a.to(device), b.to(device), c.to(device), step.to(device)
    truncated = truncate(lam, p, outputs, step, length)

    def structured(dtype: torch.dtype) -> Callable[[], Tensor]:
        wide = torch.complex64 if dtype == torch.float32 else torch.complex128
        model = [part.to(wide).contiguous() for part in (lam, p, inputs, truncated)]
        return lambda: dplr_kernel(model[0], model[1], model[2], model[3], step.to(dtype), length)

    def unstructured(method: dense.Dense, dtype: torch.dtype) -> Callable[[], Tensor]:
        model = [part.to(dtype) for part in (a, b, c, step)]
        return lambda: method(model[0], model[1], model[2], model[3], length)

    return {
        "s4": structured,
        **{name: partial(unstructured, method) for name, method in dense.METHODS.items()},
    }


def state_size(trial: Trial) -> int:
    """The size `state`. Raises UserError unless it is even: states are held as conjugate pairs."""
    state = int(trial.size["state"])
    if state < 2 or state % 2:
        raise UserError(f"--size state={state}: the state is held as conjugate pairs; give an even number")
    return state


def relative_error(kernel: Tensor, reference: Tensor) -> float:
    """Largest deviation over the largest value, at most WORST_ERROR."""
    error = float((kernel.double() - reference).abs().max() / reference.abs().max())
    return error if error < WORST_ERROR else WORST_ERROR


@measure("kernel-cost")
@torch.no_grad()
def kernel_cost(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """One round: seconds of each arm's kernel, its error against the dense recurrence in float64, its peak memory.

    Denormal numbers are flushed to zero for every arm: powers of Ā are full of them, and they are slow, which is no
    property of the dense methods.
    """
    first = trials[0]
    n, length = int(first.point["n"]), int(first.point["length"])
    dtype = {"float32": torch.float32, "float64": torch.float64}.get(first.dtype)
    if dtype is None:
        raise UserError(f"--size dtype={first.dtype}: the kernels run in float32 or float64")
    made = kernels(n, length, int(first.size["heads"]), first.seed, first.device)
    steps = {trial.arm: made[trial.arm](dtype) for trial in trials}
    torch.set_flush_denormal(True)
    try:
        seconds = first.rounds(steps)
        reference = made["dense-recurrence"](torch.float64)()
        return [
            {"seconds": seconds[trial.arm], **_error_and_memory(trial, made[trial.arm], dtype, reference)}
            for trial in trials
        ]
    finally:
        torch.set_flush_denormal(False)


def _error_and_memory(trial: Trial, made: Kernel, dtype: torch.dtype, reference: Tensor) -> dict[str, float]:
    step = made(dtype)
    with trial.memory() as used:
        kernel = step()
    return {
        "error": relative_error(made(torch.float64)(), reference),
        "error_as_timed": relative_error(kernel, reference),
        "peak_bytes": max(float(used.peak_bytes), LEAST_BYTES),
    }


def log_slope(series: Mapping[Any, float]) -> float:
    """Least-squares slope of log value on log setting; not a number below three settings."""
    if len(series) < 3:
        return math.nan
    x = torch.tensor([float(value) for value in series], dtype=torch.float64).log()
    y = torch.tensor(list(series.values()), dtype=torch.float64).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@derive("kernel-cost")
def kernel_slopes(seed: Table) -> dict[str, float]:
    """Growth of time: with the state at the length, and with the length at the state, that most points share.

    Raises LookupError where an arm lacks a point that another one has.
    """
    names = {
        "s4": "s4",
        "recurrence": "dense-recurrence",
        "doubling": "dense-doubling",
        "baby": "dense-baby-giant",
    }
    slopes = {}
    for along, beside in (("n", "length"), ("length", "n")):
        points = {(row.point["n"], row.point["length"]): row.point for row in seed}
        shared = [point[beside] for point in points.values()]
        fixed = {beside: max(shared, key=shared.count)} if shared else {}
        wanted = {point[along] for point in points.values() if fixed.items() <= point.items()}
        for name, arm in names.items():
            series = seed.series("seconds", along=along, arm=arm, **fixed)
            if wanted - set(series):
                raise LookupError(f"{arm} lacks {along} = {sorted(wanted - set(series))} at {fixed}")
            slopes[f"{along}_slope_{name}"] = log_slope(series)
            if along == "n":
                (smaller, before), (larger, after) = sorted(series.items())[-2:]
                slopes[f"last_slope_{name}"] = math.log(after / before) / math.log(larger / smaller)
    return slopes


# --- hippo-init ---


@measure("hippo-init")
def hippo_init(trial: Trial) -> dict[str, float]:
    """Normalised squared error of the best linear readout of u(t − delay) from a frozen state. Float64."""
    size, band = trial.size, float(trial.point["band"])
    length, delay = int(size["length"]), int(size["delay"])
    if not 0 <= delay < length:
        raise UserError(f"--size delay={delay}: it must be less than length={length}")
    generator = torch.Generator().manual_seed(trial.seed)
    train, validation, test = (
        band_limited_noise(int(size[name]), length, band, generator)
        for name in ("train", "validation", "test")
    )
    a, b = system(trial.arm, state_size(trial), torch.Generator().manual_seed(trial.seed))
    recalled = delay_recall(
        a, b, train, validation, test, delay=delay, steps=[float(s) for s in size["step_sizes"]]
    )
    return {"nmse": recalled.test, "step_size": recalled.step}


@measure("hippo-init-trained")
def hippo_init_trained(trial: Trial) -> dict[str, float]:
    """Test accuracy on digits read pixel by pixel, everything trained. The seed's twelfth is the test set."""
    size = trial.size
    index = trial.seed % BLOCKS
    share = slice(index * DIGITS // BLOCKS, (index + 1) * DIGITS // BLOCKS)
    task = digits(int(size["side"]), test_share=share, permuted=trial.point["order"] == "permuted")
    learned = learn(
        trial.arm,
        task,
        features=int(size["features"]),
        layers=int(size["layers"]),
        state_size=state_size(trial),
        steps=int(size["steps"]),
        batch=int(size["batch"]),
        learning_rate=float(size["learning_rate"]),
        seed=trial.seed,
        device=trial.device,
    )
    return {"accuracy": learned.score, "train_loss": learned.loss}


# --- constant-generation ---


def generator_model(arm: str, *, features: int, layers: int, state: int, context: int) -> SequenceModel:
    """A stack with room for `context` tokens and one more; both arms have as many parameters as the Transformer."""

    def stack(block: Callable[[], Block], *, positions: bool = False) -> SequenceModel:
        blocks = [block() for _ in range(layers)]
        return SequenceModel(
            features,
            blocks,
            inputs=features,
            outputs=features,
            tokens=True,
            positions=positions,
            readout="all",
        )

    def attention() -> Block:
        heads = max(features // 64, 1)
        return Block(features, Attention(features, heads, capacity=context + 1), hidden=4 * features)

    if arm == "transformer":
        return stack(attention, positions=True)

    def recurrent(hidden: int, length: int) -> Block:
        return Block(features, S4(features, length=length, state_size=state), hidden=hidden)

    hidden = match_parameters(lambda width: recurrent(width, 1), count_parameters(attention()))
    return stack(lambda: recurrent(hidden, context))


@measure("constant-generation")
@torch.inference_mode()
def constant_generation(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """One round: seconds a token of a batch that already holds `context` tokens, and the bytes each sequence carries.

    Weights and the contents of states are random: neither changes what a token costs. Every step starts from the same
    state, so that the context stays at the point's.
    """
    first = trials[0]
    size, context, batch = first.size, int(first.point["context"]), int(first.size["batch"])
    torch.manual_seed(first.seed)
    tokens = torch.zeros(batch, dtype=torch.long, device=first.device)
    steps: dict[str, Callable[[], Any]] = {}
    models: dict[str, SequenceModel] = {}
    for trial in trials:
        with torch.device(first.device):
            model = generator_model(
                trial.arm,
                features=int(size["features"]),
                layers=int(size["layers"]),
                state=state_size(trial),
                context=context,
            )
            state = [_filled(held, context) for held in model.init_state(batch)]
        models[trial.arm] = model
        steps[trial.arm] = partial(model.step, tokens, state, context)
    seconds = first.rounds(steps)
    return [
        {
            "seconds_per_token": seconds[trial.arm] / batch,
            "state_bytes": float(models[trial.arm].state_bytes(length=context + 1)),
            "parameters": float(count_parameters(models[trial.arm])),
        }
        for trial in trials
    ]


def _filled(state: Any, context: int) -> Any:
    """A state as after `context` tokens, with random contents."""
    if hasattr(state, "hidden"):
        state.hidden.copy_(torch.randn_like(state.hidden))
        return state
    for part in (state.keys, state.values):
        part.normal_()
    return state._replace(length=context)


# --- long-range-learning ---


@measure("long-range-learning")
def long_range_learning(trial: Trial) -> dict[str, float]:
    """Accuracy on fresh sequences whose label their first tokens decided, after the same budget for every arm."""
    size, tuning = trial.size, bool(trial.size.get("tuning"))
    learned = learn(
        trial.arm,
        majority_task(int(trial.point["length"]), counted=int(size["counted"])),
        features=int(size["features"]),
        layers=int(size["layers"]),
        state_size=state_size(trial),
        steps=int(size["steps"]),
        batch=int(size["batch"]),
        learning_rate=float(trial.tuned("learning_rate")),
        seed=trial.seed,
        device=trial.device,
        split="validation" if tuning else "test",
        tested=int(size["tested"]),
    )
    return {"accuracy": learned.score, "train_loss": learned.loss, "parameters": float(learned.parameters)}
