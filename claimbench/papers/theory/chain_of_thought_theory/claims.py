"""How the claims on chains of thought (arXiv 2305.15408) are measured. What is claimed and how it is judged stands in
paper.toml.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from claimbench.errors import UserError
from claimbench.papers.theory.chain_of_thought_theory.derivations import (
    Derivations,
    corrupted,
    shortened,
)
from claimbench.papers.theory.chain_of_thought_theory.lengths import (
    TASKS,
    cache_bytes,
    leading,
    longest,
    longest_direct,
)
from claimbench.papers.theory.chain_of_thought_theory.tasks import Draw, different, drawing
from claimbench.trial import NotApplicable, Table, Trial, derive, measure

if TYPE_CHECKING:
    from claimbench.papers.theory.chain_of_thought_theory.learning import MakeModel

# Buffers of the published training instructions, less the end token and one of padding: with and without derivation.
BUFFERS = {
    ("arithmetic", 4): (41, 17),
    ("arithmetic", 5): (61, 21),
    ("arithmetic", 6): (85, 25),
    ("equations", 3): (89, 44),
    ("equations", 4): (179, 71),
    ("equations", 5): (314, 104),
    ("subsequences", 50): (103, 52),
    ("subsequences", 80): (163, 82),
    ("subsequences", 100): (203, 102),
    ("edits", 12): (210, 29),
    ("edits", 16): (342, 37),
    ("edits", 20): (506, 45),
}


def draw_of(trial: Trial, **sizes: Any) -> Draw:
    """How the trial's task is drawn."""
    options = {**trial.size, **sizes}
    kept = {name: int(options[name]) for name in ("prime", "number_range", "letters") if name in options}
    return drawing(str(trial.point["task"]), int(trial.point["n"]), **kept)


def seeded(trial: Trial, *purpose: int) -> np.random.Generator:
    """Random numbers of this seed and point, the same for every arm."""
    name = f"{trial.point.get('task', '')}{trial.point.get('n', '')}"
    return np.random.default_rng([trial.seed, *map(ord, name), *purpose])


# ---- claim 1: hand-made transformers ----


@measure("constant-size")
def constant_size(trial: Trial) -> dict[str, float]:
    """Run the arm's program on the seed's problems: written out token by token, or in parallel rounds without."""
    from claimbench.papers.theory.chain_of_thought_theory.exactness import fewest_bits, program_for, write
    from claimbench.papers.theory.chain_of_thought_theory.machine import HandMade

    task, n = str(trial.point["task"]), int(trial.point["n"])
    given = different(draw_of(trial), int(trial.size["problems"]), seeded(trial))
    time = longest(task, n) + 2
    if trial.arm != "derivation":
        return without_derivation(trial, given)
    program = program_for(task, given.words, time)
    machine = HandMade(program)
    written = write(machine, task, given, time)
    bits = fewest_bits(program, written.ids, given.prompt, given.end)
    return {
        "solved": written.right / len(given),
        "wrong": float(len(given) - written.right),
        "layers": float(machine.depth),
        "heads": float(machine.heads),
        "width": float(machine.width),
        "units": float(machine.hidden),
        "tokens": float(time - 1),
        "bits": float(bits),
        "weight": math.log2(machine.largest_weight),
    }


def without_derivation(trial: Trial, given: Derivations) -> dict[str, float]:
    """One look-up of each cell in a round: as many rounds as the hand-made transformer has layers, or all needed."""
    from claimbench.papers.theory.chain_of_thought_theory.exactness import program_for, rounds_right

    task, doubling = str(trial.point["task"]), trial.arm == "doubling"
    if doubling and task == "arithmetic":
        raise NotApplicable("doubling is a way to join stretches of a table; an expression has none")
    runs = [rounds_right(task, given, row, doubling=doubling) for row in range(len(given))]
    settled = [count for _, count in runs]
    layers = len(program_for(task, given.words, 8).layers) if trial.arm == "one-pass" else max(settled)
    n = int(trial.point["n"])
    cells = {"arithmetic": 4 * n, "subsequences": n, "edits": n * n}[task]
    return {
        "solved": float(np.mean([count <= layers for count in settled])),
        "wrong": 0.0,
        "layers": float(layers),
        "heads": 1.0,
        "width": float(cells * n if doubling else cells),
        "units": 0.0,
        "tokens": float(given.direct().length.max()),
        "bits": 0.0,
        "weight": 0.0,
    }


@derive("cot-constant-size")
def growth(seed: Table) -> dict[str, float]:
    """How the transformers' sizes, bits and weights grow with n, and the depth that is needed without derivations."""
    tasks = list(dict.fromkeys(str(row.point["task"]) for row in seed))
    sizes = {
        (task, name): list(seed.series(name, along="n", arm="derivation", task=task).values())
        for task in tasks
        for name in ("layers", "heads", "width", "units", "tokens", "bits", "weight")
    }

    def per_doubling(name: str) -> float:
        return max(slope(np.log2(sizes[task, "tokens"]), sizes[task, name]) for task in tasks)

    def depth(arm: str, task: str) -> float:
        found = seed.series("layers", along="n", arm=arm, task=task)
        return slope(np.log(list(found)), np.log(list(found.values())))

    tables = ("subsequences", "edits")
    return {
        "growth": max(
            max(sizes[task, name]) - min(sizes[task, name])
            for task in tasks
            for name in ("layers", "heads", "width", "units")
        ),
        "bits_slope": per_doubling("bits"),
        "weight_slope": per_doubling("weight"),
        "depth_slope": min(depth("unrolled", task) for task in tables),
        "arithmetic_slope": depth("unrolled", "arithmetic"),
        "doubling_slope": max(depth("doubling", task) for task in tables),
    }


def slope(x: Any, y: Any) -> float:
    """Of the least-squares line."""
    return float(np.polyfit(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1)[0])


# ---- claim 2: tokens ----


@measure("token-cost")
def token_cost(trial: Trial) -> dict[str, float]:
    """Tokens of random problems with or without derivations, beside the closed forms."""
    task, n = str(trial.point["task"]), int(trial.point["n"])
    bound = longest(task, n)
    count = min(int(trial.size["samples"]), max(8, int(trial.size["most_tokens"]) // bound))
    draw = draw_of(trial, number_range=max(250, 2 * n + 50), prime=11, letters=8)
    found = draw(count, seeded(trial))
    if trial.arm == "direct":
        found, bound = found.direct(), longest_direct(task, n)
    lengths = found.length
    return {
        "tokens": float(lengths.mean()),
        "longest": float(lengths.max()),
        "shortest": float(lengths.min()),
        "excess": float(max(0, lengths.max() - bound)),
        "short": float(bound - lengths.max()),
        "cache": float(cache_bytes(int(lengths.max()))),
    }


@derive("cot-token-cost")
def powers(seed: Table) -> dict[str, float]:
    """Powers of n at the largest and smallest sizes, and distances from closed forms and published buffers."""
    means = {task: seed.series("tokens", along="n", arm="derivation", task=task) for task in TASKS}
    most = {task: seed.series("longest", along="n", arm="derivation", task=task) for task in TASKS}
    least = {task: seed.series("shortest", along="n", arm="derivation", task=task) for task in TASKS}

    def power(task: str, place: int) -> float:
        pairs = list(pairwise(means[task].items()))
        (n, tokens), (larger, more) = pairs[place]
        return math.log(more / tokens) / math.log(larger / n)

    def gap(task: str) -> float:
        n, tokens = list(most[task].items())[-1]
        exponent, factor = leading(task)
        return abs(tokens / (factor * n**exponent) - 1)

    published = [
        abs(seed.value("longest", arm=arm, task=task, n=n) - buffers[k])
        for (task, n), buffers in BUFFERS.items()
        if n in most[task]
        for k, arm in enumerate(("derivation", "direct"))
    ]
    fitted = {n: tokens for n, tokens in means["equations"].items() if n <= 10}
    return {
        "always": max(
            abs(tokens - longest(task, n))
            for task in ("equations", "subsequences")
            for found in (most[task], least[task])
            for n, tokens in found.items()
        ),
        **{f"{task}_power": power(task, -1) for task in TASKS},
        "equations_fit": slope(np.log(list(fitted)), np.log(list(fitted.values()))),
        "arithmetic_early": power("arithmetic", 0),
        "edits_early": power("edits", 0),
        "factor_gap": max(gap(task) for task in TASKS if task != "arithmetic"),
        "published_gap": max(published, default=0.0),
    }


# ---- claims 3 and 4: trained models ----

FIRST_NUMBER = "0"


def split_of(trial: Trial) -> tuple[Derivations, Derivations]:
    """This seed's training and test problems, no problem in both: the same for every arm.

    Raises UserError where the user's problem has too few different prompts.
    """
    train, tests = int(trial.size["train"]), int(trial.size["tests"])
    if "problem" in trial.subject:
        from claimbench.papers.theory.chain_of_thought_theory.recurrence import own_derivations

        whole = own_derivations(trial.subject["problem"], 2 * (train + tests), seeded(trial)).unique()
        if len(whole) < train + tests:
            raise UserError(
                f"problem: {len(whole)} different prompts in {2 * (train + tests)} draws; "
                f"give fewer, such as --size train={len(whole) * 3 // 4} --size tests={len(whole) // 4}"
            )
        whole = whole.take(slice(train + tests))
    else:
        whole = different(draw_of(trial, **point_sizes(trial)), train + tests, seeded(trial))
    return whole.take(slice(tests, None)), whole.take(slice(tests))


def point_sizes(trial: Trial) -> dict[str, Any]:
    """Sizes of problems that a point sets for itself, such as the range of its numbers."""
    return {name: trial.point[name] for name in ("prime", "number_range", "letters") if name in trial.point}


def trial_make(trial: Trial, *, layers: int, times_width: int = 1) -> MakeModel:
    """A builder of the arm's model, or of the user's."""
    if "architecture" in trial.subject:
        made: MakeModel = trial.subject["architecture"]
        return made
    from claimbench.blocks.tiny_transformer import TinyTransformer

    def make(vocabulary: int, context: int) -> Any:
        return TinyTransformer(
            vocabulary=vocabulary,
            layers=layers,
            width=int(trial.size["width"]) * times_width,
            heads=int(trial.size["heads"]),
            context=context,
            mlp="gelu",
            positions="learned",
            tied=False,
        )

    return make


@measure("beats-direct")
def beats_direct(trials: list[Trial]) -> list[dict[str, float] | Exception]:
    """Train the arm's model on each seed's problems, with, without or with an empty derivation; test on fresh ones."""
    from claimbench.papers.theory.chain_of_thought_theory import learning

    first = trials[0]
    text, _, variant = first.arm.partition("-")
    splits = [tuple(_text_of(part, text) for part in split_of(trial)) for trial in trials]
    make = trial_make(
        first,
        layers=int(first.size["deep" if variant == "deep" else "layers"]),
        times_width=2 if variant == "wide" else 1,
    )
    options: dict[str, Any] = {
        "steps": int(first.size["steps"]) * (int(first.size["longer"]) if variant == "longer" else 1),
        "batch": int(first.size["batch"]),
        "learning_rate": float(first.size["learning_rate"]) * {"slow": 1 / 3, "fast": 3.0}.get(variant, 1.0),
        "device": first.device,
    }
    models: list[Any]
    if "architecture" in first.subject:  # which may not be one that can be stacked
        models = [
            learning.train(train, make, seed=trial.seed, **options)
            for trial, (train, _) in zip(trials, splits, strict=True)
        ]
    else:
        seeds = [trial.seed for trial in trials]
        models = learning.train_together([train for train, _ in splits], make, seeds=seeds, **options)
    results: list[dict[str, float] | Exception] = []
    for model, (train, test) in zip(models, splits, strict=True):
        if isinstance(model, Exception):
            results.append(model)
            continue
        found = learning.answered(model, test, device=first.device)
        results.append(
            {
                "accuracy": found.free,
                "forced": found.forced,
                "majority": learning.majority(train, test),
                "tokens": float(max(train.length.max(), test.length.max()) + 1),
                "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
            }
        )
    return results


def _text_of(given: Derivations, text: str) -> Derivations:
    match text:
        case "direct":
            return given.direct()
        case "filler":
            return given.filler()
        case _:
            return given


@derive("cot-beats-direct")
def gaps(seed: Table) -> dict[str, float]:
    """What derivations gain over the best other arm at each task's largest size, and by how much that is more than at
    its smallest; the least of the tasks.
    """
    tasks = list(dict.fromkeys(str(row.point["task"]) for row in seed))
    found = {task: _gaps(seed.where(task=task)) for task in tasks}
    return {
        "gap": min(gap[-1] for gap, _ in found.values()),
        "right": min(right[-1] for _, right in found.values()),
        "widening": min(gap[-1] - gap[0] for gap, _ in found.values()),
    }


def _gaps(seed: Table) -> tuple[list[float], list[float]]:
    """By size: the lead of derivations over the best other arm, and their accuracy."""
    gap, right = [], []
    for n in sorted({int(row.point["n"]) for row in seed}):
        accuracy = {row.arm: row.metrics["accuracy"] for row in seed.where(n=n)}
        right.append(accuracy.pop("derivation"))
        gap.append(right[-1] - max(accuracy.values()))
    return gap, right


@measure("robust-to-noise")
def robust_to_noise(trial: Trial) -> dict[str, float]:
    """Train on derivations of which a share of the numbers, or of the steps, is spoilt; test on clean problems."""
    from claimbench.papers.theory.chain_of_thought_theory import learning

    train, test = split_of(trial)
    generator, rate = seeded(trial, 7), float(trial.point["rate"])
    if trial.arm == "wrong-numbers":
        train = corrupted(train, rate, generator, train.words.index(FIRST_NUMBER))
    elif trial.arm == "missing-steps":
        train = shortened(train, rate, generator)
    elif trial.arm == "direct":
        train, test = train.direct(), test.direct()
    longest_text = int(max(train.length.max(), test.length.max())) + 1
    model = learning.train(
        train,
        trial_make(trial, layers=int(trial.size["layers"])),
        steps=int(trial.size["steps"]),
        batch=int(trial.size["batch"]),
        learning_rate=float(trial.size["learning_rate"]),
        context=longest_text,
        seed=trial.seed,
        device=trial.device,
    )
    found = learning.answered(model, test, device=trial.device)
    return {"accuracy": found.free, "forced": found.forced}
