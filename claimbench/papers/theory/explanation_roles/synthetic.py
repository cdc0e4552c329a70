"""The synthetic task of arXiv 2102.02201 (Hase & Bansal 2021, section 4), in which other points' explanations
say what a query lacks.

A sequence s holds a task's number in s[0], which pair decides in s[1], and integers. Each task owns four
different integers (m, n, r, d); the label is 1[#m > #n] where s[1] = 1 and 1[#r > #d] where s[1] = 2, counts
being within s. Nothing in s says what m, n, r, d are: one has to remember them for every task, or to read an
explanation (number, m, n, r, d).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int

from claimbench.errors import UserError

Kind = Literal["missing_info", "evidential", "recomposable"]
Translation = Literal["none", "reflect", "shift"]
SHIFT = 5  # what `shift` adds to every integer
HEAD = 2  # s[0] and s[1]
TRIES = 200  # to find a sequence that training does not hold
ABSENT = 0  # stands in an explanation where it is silent


@dataclass(frozen=True)
class SyntheticTask:
    """What is drawn. Defaults are the paper's; `quick` scales have shorter sequences of fewer integers.

    tasks, points: of training. length: of a sequence, s[0] and s[1] included. integers: 1 .. integers may
    occur. weak: the share of training points in which the pair that does not decide agrees with the one that
    does (0.5 elsewhere). kind, eps: of explanations; eps is the noise of evidential ones. translation: of the
    integers of explanations. causal_only: explanations hold the deciding pair alone. hidden_index: s[0] is 1
    everywhere. smooth: tasks with near numbers have near integers. disjoint: validation and test have tasks
    of their own.
    """

    tasks: int = 500
    points: int = 10
    length: int = 20
    integers: int = 100
    weak: float = 0.5
    kind: Kind = "missing_info"
    eps: int = 1
    translation: Translation = "none"
    causal_only: bool = False
    hidden_index: bool = False
    smooth: bool = False
    disjoint: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, Kind), ("translation", self.translation, Translation)):
            if value not in get_args(known):
                raise UserError(f'{name} = "{value}": there are {", ".join(get_args(known))}')
        if self.length < HEAD + 8:
            raise UserError(f"length = {self.length}: at least {HEAD + 8}, so that both pairs have room")
        if self.integers < 8:
            raise UserError(f"integers = {self.integers}: at least 8, four of them a task's own")
        if self.tasks < 1 or self.points < 2:
            raise UserError(
                f"tasks = {self.tasks}, points = {self.points}: at least 1 task and 2 points of each"
            )
        if self.tasks * (1 + self.disjoint) > self.integers**2:
            raise UserError(f"tasks = {self.tasks}: there are {self.integers**2} numbers; raise integers")
        if not 0 <= self.weak <= 1:
            raise UserError(f"weak = {self.weak:g} is a share: between 0 and 1")
        if self.causal_only and self.kind != "missing_info":
            raise UserError(f'causal_only goes with kind = "missing_info", not "{self.kind}"')
        if self.eps < 0:
            raise UserError(f"eps = {self.eps}: 0 or more")

    @property
    def known(self) -> int:
        """Tasks of all splits."""
        return self.tasks * (1 + self.disjoint)

    @property
    def codes(self) -> int:
        """How many `code` can give: ABSENT and every value that an explanation's integers can take."""
        return 1 + self.integers + 2 * self._lowered + (SHIFT if self.translation == "shift" else 0)

    @property
    def _lowered(self) -> int:
        return self.eps if self.kind == "evidential" else 0

    def code(self, explained: Int[np.ndarray, "... 4"]) -> Int[np.ndarray, "... 4"]:
        """Integers of explanations as numbers from 1 on, whatever their noise; ABSENT stays 0."""
        return explained + self._lowered if self._lowered else explained

    def decoded(self) -> Int[np.ndarray, " codes"]:
        """For every code the integer that is written so, before any translation; ABSENT's is 0."""
        return np.arange(self.codes) - self._lowered * (np.arange(self.codes) > 0)


@dataclass(frozen=True)
class Points:
    """place: which task of the problem, 0 .. known - 1. sequences: s. explanations: (number, m, n, r, d) as
    it is written.
    """

    place: Int[np.ndarray, " points"]
    sequences: Int[np.ndarray, "points length"]
    labels: Int[np.ndarray, " points"]
    explanations: Int[np.ndarray, "points 5"]
    agrees: Bool[np.ndarray, " points"]  # whether the pair that does not decide says the same

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: slice | Int[np.ndarray, " part"]) -> Points:
        """Some of the points."""
        return Points(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Problem:
    """numbers: s[0] of each task. rules: its (m, n, r, d)."""

    task: SyntheticTask
    numbers: Int[np.ndarray, " known"]
    rules: Int[np.ndarray, "known 4"]
    train: Points
    validation: Points
    test: Points


def draw_problem(task: SyntheticTask, *, seed: int | list[int], validation: int, test: int) -> Problem:
    """A problem with task.tasks x task.points training points and about as many others as asked, whole
    numbers a task.

        problem = draw_problem(SyntheticTask(tasks=100, length=12, integers=30), seed=0, validation=1000, test=2000)
        problem.train.sequences, problem.train.explanations, problem.train.labels

    Within a task half of the labels are 1, half of the points ask for the first pair, in half of them the
    deciding pair is the one that was given its room first, and a share `weak` has pairs that agree; an odd
    half is rounded up or down by chance. No sequence of validation or test occurs in training.
    """
    rng = np.random.default_rng(seed)
    numbers = rng.choice(task.integers**2, size=task.known, replace=False) + 1
    rules = draw_rules(task, rng)
    if task.smooth:
        numbers = np.sort(numbers)
        rules = rules[np.lexsort(rules.T[::-1])]
        if task.disjoint:  # neighbours of a test task are training tasks
            mixed = rng.permutation(task.known)
            numbers, rules = numbers[mixed], rules[mixed]
    own = np.arange(task.tasks)
    others = own + task.tasks if task.disjoint else own
    train = _draw_points(task, numbers, rules, own, task.points, task.weak, rng)
    each = [max(1, round(count / task.tasks)) for count in (validation, test)]
    parts = [_unseen(task, numbers, rules, others, count, train, rng) for count in each]
    return Problem(task, numbers, rules, train, *parts)


def draw_rules(task: SyntheticTask, rng: np.random.Generator) -> Int[np.ndarray, "known 4"]:
    """Four different integers for each task; no two tasks have the same four in the same order."""
    rules = np.empty((0, 4), dtype=np.int64)
    while len(rules) < task.known:
        drawn = rng.random((task.known, task.integers)).argsort(axis=1)[:, :4] + 1
        together = np.concatenate([rules, drawn])
        first = np.sort(np.unique(together, axis=0, return_index=True)[1])
        rules = together[first][: task.known]
    return rules


def true_labels(
    sequences: Int[np.ndarray, "points length"], rules: Int[np.ndarray, "points 4"]
) -> Int[np.ndarray, " points"]:
    """The labels by the rule, from sequences and each point's own (m, n, r, d)."""
    counts = (sequences[:, HEAD:, None] == rules[:, None, :]).sum(axis=1)
    first, second = np.where(sequences[:, [1]] == 1, counts[:, :2], counts[:, 2:]).T
    return (first > second).astype(np.int64)


def balanced(
    rows: int, columns: int, share: float, rng: np.random.Generator
) -> Bool[np.ndarray, "rows columns"]:
    """Truth values in random order, of which each row holds `share`; a fraction is rounded by chance."""
    ones = np.floor(columns * share + rng.random((rows, 1)))
    return rng.permuted(np.arange(columns) < ones, axis=1)


def _unseen(
    task: SyntheticTask,
    numbers: np.ndarray,
    rules: np.ndarray,
    places: np.ndarray,
    count: int,
    train: Points,
    rng: np.random.Generator,
) -> Points:
    """Points whose sequences are not among the training points'; those that are give way to others of their
    task.
    """
    points = _draw_points(task, numbers, rules, places, count, 0.5, rng)
    for _ in range(TRIES):
        again = np.flatnonzero(occurs_in(points.sequences, train.sequences))
        if not len(again):
            return points
        other = _fill(
            task,
            numbers,
            rules,
            points.place[again],
            points.labels[again].astype(bool),
            points.sequences[again, 1] == 1,
            rng.random(len(again)) < 0.5,
            points.agrees[again],
            rng,
        )
        points.sequences[again] = other
    raise UserError(
        f"length = {task.length}, integers = {task.integers}: training holds nearly every sequence; raise one of them"
    )


def occurs_in(
    queries: Int[np.ndarray, "queries length"], pool: Int[np.ndarray, "pool length"]
) -> Bool[np.ndarray, " queries"]:
    """Which rows stand in the pool as well."""
    every = np.concatenate([pool, queries])
    kinds = np.unique(every, axis=0, return_inverse=True)[1].reshape(-1)
    return np.isin(kinds[len(pool) :], kinds[: len(pool)])


def _draw_points(
    task: SyntheticTask,
    numbers: np.ndarray,
    rules: np.ndarray,
    places: np.ndarray,
    count: int,
    weak: float,
    rng: np.random.Generator,
) -> Points:
    labels, first_asked, roomy, agrees = (
        balanced(len(places), count, share, rng).ravel() for share in (0.5, 0.5, 0.5, weak)
    )
    place = np.repeat(places, count)
    sequences = _fill(task, numbers, rules, place, labels, first_asked, roomy, agrees, rng)
    piece = np.tile(np.arange(count) % 2, len(places))
    explanations = explain(task, numbers[place], rules[place], first_asked, piece, rng)
    return Points(place, sequences, labels.astype(np.int64), explanations, agrees)


def _counts(slots: np.ndarray, spare: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A larger and a smaller count: with room = slots - spare, the first uniform in 1 .. room - 1, the second
    below both the first and what is then left of the room.
    """
    room = slots - spare
    more = rng.integers(1, room)
    return more, rng.integers(0, np.minimum(more, room - more))


def _fill(
    task: SyntheticTask,
    numbers: np.ndarray,
    rules: np.ndarray,
    place: np.ndarray,
    labels: np.ndarray,
    first_asked: np.ndarray,
    roomy: np.ndarray,
    agrees: np.ndarray,
    rng: np.random.Generator,
) -> Int[np.ndarray, "points length"]:
    """Sequences with these labels. roomy: the pair (m, n) was given its room first, and tends to occur more
    often.
    """
    points, slots = len(place), task.length - HEAD
    early = _counts(np.full(points, slots), 3, rng)
    late = _counts(slots - early[0] - early[1], 0, rng)
    pairs = [np.where(roomy, a, b) for a, b in zip((*early, *late), (*late, *early), strict=True)]
    first_true = np.where(first_asked, labels, labels == agrees)  # whether #m > #n
    second_true = np.where(first_asked, labels == agrees, labels)
    more_first, less_first, more_second, less_second = pairs
    counts = np.stack(
        [
            np.where(first_true, more_first, less_first),
            np.where(first_true, less_first, more_first),
            np.where(second_true, more_second, less_second),
            np.where(second_true, less_second, more_second),
        ],
        axis=1,
    )
    rank = rng.random((points, slots)).argsort(axis=1).argsort(axis=1)  # a slot's place in a random order
    taken = (rank[:, :, None] >= counts.cumsum(axis=1)[:, None, :]).sum(axis=2)  # which of the four; 4: none
    filler = rng.integers(1, task.integers - 3, size=(points, slots))
    for own in np.sort(rules[place], axis=1).T:  # each of the task's integers is stepped over
        filler += filler >= own[:, None]
    integers = np.take_along_axis(np.column_stack([rules[place], np.zeros(points, int)]), taken, axis=1)
    sequences = np.empty((points, task.length), dtype=np.int64)
    sequences[:, 0] = 1 if task.hidden_index else numbers[place]
    sequences[:, 1] = np.where(first_asked, 1, 2)
    sequences[:, HEAD:] = np.where(taken == 4, filler, integers)
    return sequences


def explain(
    task: SyntheticTask,
    numbers: Int[np.ndarray, " points"],
    rules: Int[np.ndarray, "points 4"],
    first_asked: Bool[np.ndarray, " points"],
    piece: Int[np.ndarray, " points"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "points 5"]:
    """(number, m, n, r, d) as the task's kind writes it; 0 where an explanation is silent.

    evidential: each integer plus noise, uniform in -eps .. eps. recomposable: piece 0 holds m and r, piece 1
    n and d, so that each pair needs both. causal_only: the deciding pair, in the first two places.
    """
    told = rules.copy()
    if task.kind == "evidential":
        told += rng.integers(-task.eps, task.eps + 1, size=told.shape)
    elif task.kind == "recomposable":
        told[(np.arange(4) % 2)[None, :] != piece[:, None]] = ABSENT
    if task.causal_only:
        told = np.where(first_asked[:, None], told, told[:, [2, 3, 0, 1]])
        told[:, 2:] = ABSENT
    silent = (told == ABSENT) & (task.kind != "evidential")
    if task.translation == "reflect":
        told = task.integers + 1 - told
    elif task.translation == "shift":
        told = told + SHIFT
    return np.column_stack([numbers, np.where(silent, ABSENT, told)])
