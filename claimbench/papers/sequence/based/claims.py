"""How the claims of arXiv 2402.18668 are measured.

Your own mixer takes Based's place by `--mixer file.py:make` (a function of features and state_bytes), your own keys and
values come by `--pairs file.py:function` (a function that returns (key, value) pairs), your own model by `--model`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from claimbench.blocks.byte_lm import windows
from claimbench.blocks.mixers import make_mixer
from claimbench.blocks.mixers.attention import Attention
from claimbench.blocks.mixers.feature_maps import EluPlusOne, FeatureMap, Performer
from claimbench.blocks.mixers.window import window_attention
from claimbench.blocks.sequence_model import count_parameters, match_parameters
from claimbench.errors import UserError
from claimbench.papers.sequence.based import attention_rows as rows
from claimbench.papers.sequence.based.arms import based_bytes, matched
from claimbench.papers.sequence.based.language import bytes_of, language_mixers, losses, train
from claimbench.papers.sequence.based.layer import taylor_attention
from claimbench.papers.sequence.based.learning import learn, two_layers
from claimbench.papers.sequence.based.maps import RotatedElu, Uniform
from claimbench.papers.sequence.based.model import LanguageModel, based_mixers
from claimbench.papers.sequence.based.taylor import Taylor
from claimbench.tasks.recall import Recall, recall_of
from claimbench.trial import BLOCKS, Table, Trial, derive, measure

SCANNED_AT_ONCE = 2  # models: a scan's tensors hold a state for every token
FRONTIERS = ("mamba", "linear_elu", "sliding_window")
WITHIN = 0.01  # a bin counts for Based if it is at most one accuracy point below

# --- state-size-recall ---


def recall_task(trial: Trial) -> Recall:
    """The task of the trial's sizes, over your own keys and values if the subject `pairs` is given."""
    size = trial.size
    length, pairs, noise = int(size["length"]), int(size["pairs"]), bool(size["random_non_queries"])
    try:
        if "pairs" in trial.subject:
            bindings: Iterable[tuple[str, str]] = trial.subject["pairs"]()
            return recall_of(bindings, length=length, pairs=pairs, random_non_queries=noise)[0]
        return Recall(int(size["vocabulary"]), length, pairs, random_non_queries=noise)
    except ValueError as error:
        raise UserError(f"--size length, pairs or vocabulary: {error}") from None


def recall_mixer(trial: Trial) -> Callable[[], Any]:
    """A builder of the arm's mixer: Based at the point's dials, your own in its place, a baseline of as many bytes."""
    features = int(trial.size["features"])
    key_width, window = int(trial.point["key_width"]), int(trial.point["window"])
    state_bytes = based_bytes(features, key_width, window)
    if trial.arm != "based":
        return matched(trial.arm, features=features, state_bytes=state_bytes)
    if "mixer" in trial.subject:
        return partial(trial.subject["mixer"], features=features, state_bytes=state_bytes)
    return partial(make_mixer, "based", features, key_width=key_width, window=window)


@measure("state-size-recall")
def state_size_recall(trials: Sequence[Trial]) -> list[dict[str, float] | FloatingPointError]:
    """Accuracy on fresh sequences and state bytes at their end, of [convolution, mixer]. Trials of one arm.

    Trials whose mixers have the same sizes (attention at all points) are trained once a seed.
    """
    alike: dict[tuple[Any, ...], dict[int, list[int]]] = {}
    for index, trial in enumerate(trials):
        dials = () if trial.arm == "attention" else tuple(sorted(trial.point.items()))
        key = (trial.arm, dials, trial.tuned("learning_rate"))
        alike.setdefault(key, {}).setdefault(trial.seed, []).append(index)
    results: dict[int, dict[str, float] | FloatingPointError] = {}
    for (_, _, learning_rate), by_seed in alike.items():
        first = trials[next(iter(by_seed.values()))[0]]
        task, make, size = recall_task(first), recall_mixer(first), first.size
        build = two_layers(make, task, features=int(size["features"]), convolution=bool(size["convolution"]))
        learned = learn(
            build,
            task,
            seeds=list(by_seed),
            steps=int(size["steps"]),
            batch=int(size["batch"]),
            learning_rate=float(learning_rate),
            split="validation" if first.tuning else "test",
            tested=int(size["tested"]),
            at_once=SCANNED_AT_ONCE if first.arm == "mamba" and first.device == "cpu" else None,
            device=first.device,
        )
        state_bytes = float(make().state_bytes(1, task.length))
        for places, accuracy, loss in zip(by_seed.values(), learned.accuracy, learned.loss, strict=True):
            outcome: dict[str, float] | FloatingPointError = (
                {"accuracy": accuracy, "train_loss": loss, "state_bytes": state_bytes}
                if np.isfinite(loss)
                else FloatingPointError(f"training diverged at learning rate {learning_rate}")
            )
            results.update(dict.fromkeys(places, outcome))
    return [results[index] for index in range(len(trials))]


@derive("state-size-recall")
def frontier(seed: Table) -> dict[str, float]:
    """Kendall's τ of accuracy and state bytes within Based, and for each fixed-state baseline: the bins (points of
    matched bytes) in which Based is at most a point below, and the mean advantage over the log of the bytes.

    Not a number where an arm was not asked for, or Based at fewer than two points.
    """
    own = sorted(seed.where(arm="based"), key=lambda row: row.metrics["state_bytes"])
    found = {"tau": math.nan, "bins_least": math.nan}
    found |= {f"{name}_{arm}": math.nan for name in ("bins", "area") for arm in FRONTIERS}
    if len(own) < 2:
        return found
    size = np.log([row.metrics["state_bytes"] for row in own])
    accuracy = np.array([row.metrics["accuracy"] for row in own])
    found["tau"] = float(kendalltau(size, accuracy).statistic) if np.ptp(accuracy) > 0 else 0.0
    bins = []
    for arm in sorted({row.arm for row in seed} - {"based", "attention"}):
        advantage = accuracy - np.array([seed.value("accuracy", arm=arm, **row.point) for row in own])
        bins.append(float((advantage >= -WITHIN).sum()))
        name = arm.replace("-", "_")
        found |= {
            f"bins_{name}": bins[-1],
            f"area_{name}": float(np.trapezoid(advantage, size) / np.ptp(size)),
        }
    return {**found, "bins_least": min(bins)} if bins else found


# --- dial-to-attention ---


def attention_map(arm: str, width: int, seed: int) -> FeatureMap:
    """The arm's feature map for vectors of `width` numbers, in float64."""
    paper = 1 + width + width * width  # the paper's own count of Taylor features: more than it needs
    maps: dict[str, Callable[[], FeatureMap]] = {
        "taylor": lambda: Taylor(width),
        "elu": lambda: EluPlusOne(width),
        "elu-wide": lambda: RotatedElu(width, paper, seed=seed),
        "performer": lambda: Performer(width, paper, seed=seed),
        "performer-wide": lambda: Performer(width, 2 * paper, seed=seed),
        "uniform": lambda: Uniform(width),
    }
    return maps[arm]().double()


@measure("dial-to-attention")
@torch.no_grad()
def dial_to_attention(trial: Trial) -> dict[str, float]:
    """Relative error of attention rows on a model's own queries and keys at `width` numbers, scores at most `largest`.

    `dial_error` is against softmax of the scores before their projection to `width`.
    """
    size, width, length = trial.size, int(trial.point["width"]), int(trial.size["length"])
    folder = trial.shared(
        rows.capture,
        model=trial.subject.ref("model"),
        text=trial.subject.ref("text"),
        length=length,
        layers=int(size["layers"]),
        share=trial.block(range(BLOCKS))[0],
    )
    q, k, v = rows.load(folder)
    if width > min(q.shape[-1], length):
        raise UserError(
            f"--at width={width}: the model's heads have {q.shape[-1]} numbers; give at most that"
        )
    near = rows.project(q, k, width, float(trial.point["largest"]))
    exact = rows.softmax_rows(near.scores)
    feature_map = attention_map(trial.arm, width, trial.seed)
    approximate, scale = rows.best_scaled(feature_map, near.q, near.k, exact)
    later = slice(length // 2, None)  # the rows on which no scale was chosen
    full = rows.softmax_rows(near.full)
    wanted = rows.softmax_rows(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5) @ v
    window = {
        name: rows.relative_error(window_attention(q[None], k[None], v[None], size)[0], wanted)
        for name, size in (("whole", length), ("half", length // 2), ("eighth", length // 8))
    }
    return {
        "error": rows.relative_error(approximate[:, later], exact[:, later]),
        "dial_error": rows.relative_error(approximate[:, later], full[:, later]),
        "top_recall": rows.top_recall(approximate[:, later], exact[:, later]),
        "features": float(feature_map.dimension),
        "scale": scale,
        "natural_logit": near.natural,
        **{f"window_error_{name}": error for name, error in window.items()},
    }


@derive("dial-to-attention")
def width_slope(seed: Table) -> dict[str, float]:
    """How the Taylor map's error against unprojected scores falls with the width, where most widths were measured:
    least squares on logarithms. Not a number below three widths.
    """
    own = seed.where(arm="taylor")
    largest = [row.point["largest"] for row in own]
    series = own.series("dial_error", along="width", largest=max(largest, key=largest.count, default=None))
    if len(series) < 3:
        return {"width_slope": math.nan}
    return {"width_slope": float(np.polyfit(np.log(list(series)), np.log(list(series.values())), 1)[0])}


# --- throughput ---

PAPER = {"features": 1792, "layers": 36, "heads": 16, "key_width": 16, "window": 256}
"""The 1.3B model's official configuration."""
CROSSOVER = {"features": 1024, "heads": 16, "key_width": 16}


def numbers(state: Any) -> int:
    """How many numbers the tensors of a state hold."""
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(numbers(part) for part in state) if isinstance(state, tuple | list) else 0


def paper_state(arm: str, context: int) -> int:
    """Numbers a sequence carries after `context` tokens at the 1.3B model's widths, of the tensors themselves."""
    features, heads = PAPER["features"], PAPER["heads"]
    with torch.device("meta"):
        if arm == "attention":
            layer = Attention(features, heads, capacity=context)
            return PAPER["layers"] * numbers(layer.init_state(1))
        mixers = based_mixers(
            PAPER["layers"],
            features,
            heads,
            key_width=PAPER["key_width"],
            window=PAPER["window"],
            merged=False,
        )
        return sum(numbers(mixer.init_state(1)) for mixer in mixers)


def crossover(*, merged: bool) -> float:
    """The context at which one attention layer's cache holds as many numbers as one linear-attention layer's state."""
    features, heads = CROSSOVER["features"], CROSSOVER["heads"]
    with torch.device("meta"):
        linear = taylor_attention(features, heads, key_width=CROSSOVER["key_width"], merged=merged)
        token = Attention(features, heads, capacity=1)
        return numbers(linear.init_state(1)) / numbers(token.init_state(1))


def generator(arm: str, size: dict[str, Any], context: int) -> LanguageModel:
    """A small stack with random weights: Based, or the same one with full attention and a cache in every layer."""
    features, heads, layers = int(size["features"]), int(size["heads"]), int(size["layers"])
    mixers = (
        [Attention(features, heads, capacity=context + 1) for _ in range(layers)]
        if arm == "attention"
        else based_mixers(
            layers, features, heads, key_width=int(size["key_width"]), window=int(size["window"])
        )
    )
    return LanguageModel(int(size["vocabulary"]), features, mixers)


def filled(state: Any, context: int) -> Any:
    """A state as after `context` tokens, with random contents."""
    if hasattr(state, "_replace"):
        contents = {name: filled(part, context) for name, part in state._asdict().items() if name != "length"}
        return state._replace(**contents, **({"length": context} if hasattr(state, "length") else {}))
    return state.uniform_() if isinstance(state, torch.Tensor) else state  # positive: sums of keys stay so


@measure("throughput")
@torch.inference_mode()
def throughput(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """One round: seconds a token of a batch that already holds `context` tokens, and what its states hold."""
    first = trials[0]
    context, batch = int(first.point["context"]), int(first.point["batch"])
    torch.manual_seed(first.seed)
    tokens = torch.zeros(batch, dtype=torch.long, device=first.device)
    models: dict[str, LanguageModel] = {}
    steps: dict[str, Callable[[], Any]] = {}
    for trial in trials:
        with torch.device(first.device):
            model = generator(trial.arm, dict(trial.size), context).eval()
            states = [filled(state, context) for state in model.init_state(batch)]
        models[trial.arm], steps[trial.arm] = model, partial(model.step, tokens, states)
    seconds = first.rounds(steps)
    return [
        {
            "seconds_per_token": seconds[trial.arm] / batch,
            "state_bytes": float(models[trial.arm].state_bytes(length=context)),
            "paper_numbers": float(paper_state(trial.arm, context)),
            "crossover": crossover(merged=False),
            "crossover_merged": crossover(merged=True),
        }
        for trial in trials
    ]


@derive("throughput")
def gain(seed: Table) -> dict[str, float]:
    """How the ratio of attention's time to Based's grows with batch · context: least squares on logarithms.

    Not a number where either arm was not asked for, or at fewer than two sizes.
    """
    if {row.arm for row in seed} != {"based", "attention"}:
        return {"gain_growth": math.nan}
    points = {(row.point["batch"], row.point["context"]): row.point for row in seed}
    ratios = {
        point["batch"] * point["context"]: seed.value("seconds_per_token", arm="attention", **point)
        / seed.value("seconds_per_token", arm="based", **point)
        for point in points.values()
    }
    if len(ratios) < 2:
        return {"gain_growth": math.nan}
    return {"gain_growth": float(np.polyfit(np.log(list(ratios)), np.log(list(ratios.values())), 1)[0])}


# --- lm-recall-gap ---


@measure("lm-recall-gap")
def lm_recall_gap(trial: Trial) -> dict[str, float]:
    """Loss on AR hits and elsewhere, after equally many steps on equal text, at Based's number of parameters."""
    size, context = trial.size, int(trial.size["context"])
    options = {
        name: int(size[name]) for name in ("features", "layers", "heads", "key_width", "window", "state")
    }

    def build(arm: str, inner: int) -> LanguageModel:
        mixers = language_mixers(arm, context=context, **options)
        return LanguageModel(257, options["features"], mixers, inner=inner)

    torch.manual_seed(trial.seed)
    inner = 2 * options["features"]
    if trial.arm != "based":
        with torch.device("meta"):
            target = count_parameters(build("based", inner))
            inner = match_parameters(lambda width: build(trial.arm, width), target)
    model = build(trial.arm, inner).to(trial.device)
    text = trial.subject["text"]
    train(
        model,
        bytes_of(text.train),
        steps=int(size["steps"]),
        batch=int(size["batch"]),
        context=context,
        learning_rate=float(trial.tuned("learning_rate")),
        seed=trial.seed,
        device=trial.device,
    )
    held = bytes_of(text.validation if trial.tuning else text.test)
    share = trial.block(range(len(held) - context - 1))
    starts = torch.linspace(share[0], share[-1], int(size["tested"])).long()
    found = losses(model, windows(held, starts, context + 1).to(trial.device), int(size["gram"]))
    return {
        "hit_loss": found.hits,
        "hit_accuracy": found.accuracy,
        "other_loss": found.others,
        "loss": found.all,
        "parameters": float(count_parameters(model)),
    }
