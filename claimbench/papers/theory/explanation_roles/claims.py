"""How the claims on explanations' roles (arXiv 2102.02201) are measured. What is claimed and how it is
judged: paper.toml.

Arms of a seed see the same problem and train for as many steps; what each reads for one prediction is a
metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch._dynamo  # noqa: F401  torch.optim imports it at its first use: seconds, in every trial's fork anew
from scipy.stats import spearmanr

from claimbench.errors import NotApplicable, UserError
from claimbench.papers.theory.explanation_roles.baselines import (
    count_features,
    index_trees,
    nearest_neighbours,
)
from claimbench.papers.theory.explanation_roles.learning import (
    Find,
    Readers,
    Training,
    find_by_tokens,
    find_oracle,
)
from claimbench.papers.theory.explanation_roles.natural import Embedded, Outcome, compare, embed
from claimbench.papers.theory.explanation_roles.preconditions import gains, precondition
from claimbench.papers.theory.explanation_roles.readers import Pooling, Reading, Shape
from claimbench.papers.theory.explanation_roles.synthetic import (
    Problem,
    SyntheticTask,
    draw_problem,
    explain,
)
from claimbench.papers.theory.explanation_roles.tables import told_of
from claimbench.trial import Table, Trial, derive, measure

SETTINGS = {  # what the tuned setting is for learners without a learning rate of readers
    "index-trees": (0.03, 0.1, 0.3),  # learning rate
    "nearest-neighbours": (1, 3, 5),
}
RATES = (0.001, 0.003, 0.01)  # of readers
ADDED_DATA = 10
REFRESHES = 30  # how often a learning retriever searches anew
KNOBS = ("weak", "kind", "eps", "translation", "causal_only", "hidden_index", "smooth", "disjoint")


def task_of(trial: Trial, **changes: Any) -> SyntheticTask:
    """The synthetic task at the trial's sizes and point; `total` training points are divided among its tasks."""
    values = {**trial.size, **trial.point, **changes}
    tasks = int(values["tasks"])
    points = int(values["points"]) if "points" in values else int(values["total"]) // tasks
    return SyntheticTask(
        tasks=tasks,
        points=points,
        length=int(values["length"]),
        integers=int(values["integers"]),
        **{name: values[name] for name in KNOBS if name in values},
    )


def problem_of(trial: Trial, task: SyntheticTask, tests: str = "tests") -> Problem:
    """This seed's problem of a task: equal for all arms that ask for the same one. tests: the size's name."""
    return draw_problem(
        task, seed=[trial.seed, 0], validation=int(trial.size["validation"]), test=int(trial.size[tests])
    )


def shape_of(trial: Trial) -> Shape:
    return Shape(
        architecture=trial.size["architecture"],
        hidden=int(trial.size["hidden"]),
        layers=int(trial.size["layers"]),
        heads=int(trial.size["heads"]),
    )


def training_of(trial: Trial) -> Training:
    """The scale's steps, at the learning rate that was tuned for this arm, or at the claim's own."""
    tuned = "setting" in trial.tuned_values
    rate = RATES[int(trial.tuned("setting"))] if tuned else float(trial.size["learning_rate"])
    scale = float(trial.size["rate_scale"])
    steps = int(trial.size["steps"])
    return Training(
        steps=steps,
        batch=int(trial.size["batch"]),
        learning_rate=rate * scale,
        refresh=max(1, steps // REFRESHES),
    )


def trained_accuracy(
    trials: Sequence[Trial], problems: Sequence[Problem], reading: Reading, find: Sequence[Find] | None
) -> list[float]:
    """Accuracy of a reader of each trial: on validation points while tuning, else on test points."""
    first = trials[0]
    readers = Readers(
        problems,
        reading,
        seeds=[trial.seed for trial in trials],
        shape=shape_of(first),
        precision=float(first.size.get("precision", 1.0)),
        device=first.device,
    )
    readers.train(find, training_of(first))
    return readers.accuracy("validation" if first.tuning else "test", find)


def counted_accuracy(trial: Trial, problem: Problem) -> float:
    """The same of a learner on counts that reads nothing."""
    setting = SETTINGS[trial.arm][int(trial.tuned("setting"))]
    asked = problem.validation if trial.tuning else problem.test
    train, test = (count_features(part, problem) for part in (problem.train, asked))
    if trial.arm == "index-trees":
        guesses = index_trees(
            train, problem.train.labels, test, learning_rate=float(setting), seed=trial.seed
        )
    else:
        guesses = nearest_neighbours(train, problem.train.labels, test, neighbours=int(setting))
    return float((guesses == asked.labels).mean())


def reading_of(trial: Trial) -> tuple[Reading, bool]:
    """What an arm reads, and whether an oracle retrieves it."""
    match trial.arm:
        case "oracle-retrieval":
            return Reading("explanations", each=int(trial.size["each"])), True
        case "fixed-retrieval" | "learnt-retrieval":
            learnt = trial.arm.startswith("learnt")
            sets, searched = int(trial.size["sets"]), int(trial.size["searched"])
            return Reading("explanations", sets=sets, each=searched, learnt=learnt), False
        case "other-examples":
            return Reading("examples", each=int(trial.size["examples"])), True
        case "auxiliary-target":
            return Reading(auxiliary=float(trial.size["auxiliary"])), False
        case "no-explanation" | "no-explanation-tenfold":
            return Reading(), False
    raise UserError(f'no arm "{trial.arm}" that reads')


def found_by(trials: Sequence[Trial], oracle: bool) -> list[Find]:
    return [find_oracle(trial.seed) if oracle else find_by_tokens for trial in trials]


def measured(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """Accuracy of one arm with each seed, and the integers read for one prediction."""
    first = trials[0]
    changes = {"points": ADDED_DATA * task_of(first).points} if first.arm.endswith("tenfold") else {}
    task = task_of(first, **changes)
    problems = [problem_of(trial, task) for trial in trials]
    if first.arm in SETTINGS:
        accuracies = [counted_accuracy(*pair) for pair in zip(trials, problems, strict=True)]
        tokens = task.length
    else:
        reading, oracle = reading_of(first)
        accuracies = trained_accuracy(trials, problems, reading, found_by(trials, oracle))
        tokens = reading.tokens(task)
    return [{"accuracy": accuracy, "tokens": float(tokens)} for accuracy in accuracies]


# ---- claim 1: reading explanations and remembering them ----


@measure("retrieval-beats-memorising")
def retrieval_beats_memorising(trials: list[Trial]) -> list[dict[str, float]]:
    """Accuracy on the same tasks' other points."""
    return measured(trials)


# ---- claim 2: what is remembered by the number of tasks ----


@measure("memorising-by-number-of-tasks")
def memorising_by_number_of_tasks(trials: list[Trial]) -> list[dict[str, float]]:
    """Accuracy with the same number of training points shared among more and more tasks."""
    return measured(trials)


@derive("memorising-by-number-of-tasks")
def fall(seed: Table) -> dict[str, float]:
    """The rank correlation of accuracy without explanations with the number of tasks, and the fall from few
    to many.
    """
    accuracy = seed.series("accuracy", along="tasks", arm="no-explanation")
    tasks, values = np.array(list(accuracy)), np.array(list(accuracy.values()))
    if len(tasks) < 3:
        raise LookupError("a rank correlation needs three numbers of tasks or more")
    correlation = spearmanr(tasks, values).statistic if np.ptp(values) > 0 else 0.0
    return {
        "correlation": float(correlation),
        "drop": float(values[tasks.argmin()] - values[tasks.argmax()]),
    }


# ---- claim 3: preconditions ----


@measure("preconditions")
def preconditions(trials: list[Trial]) -> list[dict[str, float]]:
    """Accuracy with one precondition broken, with it intact, and without explanations: all arms and seeds of
    a point.
    """
    first, seeds = trials[0], sorted({trial.seed for trial in trials})
    knob = precondition(str(first.point["knob"]))
    changes: dict[str, Any] = {}
    if knob.encodes:
        changes["tasks"] = int(first.size["encoder_tasks"])
    if knob.more_data:
        changes["points"] = int(first.size["more"]) * int(first.size["points"])
    tests = "encoder_tests" if knob.encodes else "tests"
    of_seed = {trial.seed: trial for trial in trials}
    intact, broken = (
        [problem_of(of_seed[seed], task_of(of_seed[seed], **changes, **broken), tests) for seed in seeds]
        for broken in ({}, knob.changes)
    )
    found = gains(
        str(first.point["knob"]),
        intact,
        broken,
        seeds,
        encoder=first.subject["encoder"] if knob.encodes else None,
        shape=shape_of(first),
        training=training_of(first),
        device=first.device,
    )
    return [found[trial.arm][seeds.index(trial.seed)] for trial in trials]


# ---- claim 4: natural data ----


@measure("no-gain-on-natural-data")
def no_gain_on_natural_data(trials: list[Trial]) -> list[dict[str, float]]:
    """Cross-validated accuracy on the user's rows: all of them, or as many as the size says, drawn by the seed."""
    first, subject = trials[0], trials[0].subject
    if "examples" not in subject:
        raise NotApplicable(
            "needs your data: --subject examples=FILE#target=LABEL, with the columns text and explanation"
        )
    size, table = first.size, subject["examples"]
    given = {name: subject[name] for name in ("explanation_encoder", "relevance") if name in subject}
    embedded: dict[int, Embedded] = {}
    outcomes: dict[int, dict[str, Outcome]] = {}
    for seed in sorted({trial.seed for trial in trials}):
        drawn = (
            seed if len(table) > int(size["rows"]) else 0
        )  # else all seeds have the same rows: encoded once
        if drawn not in embedded:
            told = told_of(
                table,
                text=str(size["text"]),
                explanation=str(size["explanation"]),
                rows=int(size["rows"]),
                seed=drawn,
            )
            embedded[drawn] = embed(told.texts, told.labels, told.explanations, subject["encoder"], **given)
        outcomes[seed] = compare(
            embedded[drawn],
            each=int(size["each"]),
            folds=int(size["folds"]),
            reader=str(size["reader"]),
            by=str(size["by"]),
            seed=seed,
        )
    return [{"accuracy": outcomes[trial.seed][trial.arm].accuracy} for trial in trials]


# ---- claim 5: evidence that must be averaged ----

AVERAGING: dict[str, Pooling] = {
    "mean-of-integers": "integers",
    "mean-of-states": "mean",
    "side-by-side": "concatenate",
}


@measure("evidence-averages")
def evidence_averages(trials: list[Trial]) -> list[dict[str, float]]:
    """Accuracy from J noisy explanations of the query's task, and the squared error of the mean of J over its
    formula.
    """
    first = trials[0]
    task, together = task_of(first, kind="evidential"), int(first.point["read"])
    problems = [problem_of(trial, task) for trial in trials]
    reading = Reading("explanations", each=together, pooling=AVERAGING[first.arm])
    accuracies = trained_accuracy(trials, problems, reading, [find_oracle(trial.seed) for trial in trials])
    return [
        {
            "accuracy": accuracy,
            "error_ratio": error_ratio(task, together, int(trial.size["draws"]), trial.seed),
            "tokens": float(reading.tokens(task)),
        }
        for accuracy, trial in zip(accuracies, trials, strict=True)
    ]


def error_ratio(task: SyntheticTask, together: int, draws: int, seed: int) -> float:
    """Mean squared error of the mean of J evidential explanations over eps (eps + 1) / (3 J), from `draws`
    sets of J.
    """
    rows = draws * together
    rules = np.full((rows, 4), task.integers // 2)
    everywhere, nowhere = np.ones(rows, dtype=bool), np.zeros(rows, dtype=np.int64)
    told = explain(task, nowhere, rules, everywhere, nowhere, np.random.default_rng([seed, 8]))[:, 1:]
    error = told.reshape(draws, together, 4).mean(axis=1) - rules[0]
    return float((error**2).mean() / (task.eps * (task.eps + 1) / (3 * together)))


@derive("evidence-averages")
def gained(seed: Table) -> dict[str, float]:
    """What reading most explanations adds to reading one."""
    accuracy = seed.series("accuracy", along="read", arm="mean-of-integers")
    return {"gained": accuracy[max(accuracy)] - accuracy[min(accuracy)]}
