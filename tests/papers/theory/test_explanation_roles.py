"""explanation-roles: the synthetic task, retrieval and its mixture, and readers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from claimbench.errors import UserError
from claimbench.papers.theory.explanation_roles import (
    Points,
    Problem,
    Readers,
    Reading,
    Retriever,
    Shape,
    SyntheticTask,
    Training,
    draw_problem,
    explain,
    find_at_random,
    find_by_tokens,
    find_oracle,
    index_trees,
    into_sets,
    marginal,
    nearest,
    nearest_neighbours,
    oracle,
    set_log_probabilities,
    true_labels,
)
from claimbench.papers.theory.explanation_roles.baselines import count_features
from claimbench.papers.theory.explanation_roles.learning import Find, pack, targets
from claimbench.papers.theory.explanation_roles.readers import Reader, reader_loss
from claimbench.papers.theory.explanation_roles.retrieval import bags_of_explanations, bags_of_queries
from claimbench.papers.theory.explanation_roles.synthetic import balanced, occurs_in

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = SyntheticTask(tasks=12, points=10, length=12, integers=30)


def small(seed: int = 0, **changes: object) -> Problem:
    task = SyntheticTask(**{**vars(SMALL), **changes})  # type: ignore[arg-type]
    return draw_problem(task, seed=seed, validation=240, test=480)


# ---- the task ----


@pytest.mark.parametrize(
    "task",
    [
        SyntheticTask(tasks=50),
        SMALL,
        SyntheticTask(tasks=6, points=7, length=12, integers=9, weak=0.9),
        SyntheticTask(tasks=20, hidden_index=True, disjoint=True, smooth=True),
    ],
    ids=["paper", "quick", "crowded", "knobs"],
)
def test_the_rule_is_right_everywhere_and_labels_are_balanced(task: SyntheticTask) -> None:
    problem = draw_problem(task, seed=1, validation=400, test=2000)
    for points in (problem.train, problem.validation, problem.test):
        rules = problem.rules[points.place]
        assert (true_labels(points.sequences, rules) == points.labels).all()
        counts = (points.sequences[:, 2:, None] == rules[:, None, :]).sum(axis=1)
        assert (counts[:, 0] != counts[:, 1]).all()
        assert (counts[:, 2] != counts[:, 3]).all()
        agree = (counts[:, 0] > counts[:, 1]) == (counts[:, 2] > counts[:, 3])
        assert (agree == points.agrees).all()
        each = np.unique(points.place, return_counts=True)[1]
        ones = np.bincount(points.place, points.labels)[np.unique(points.place)]
        assert (abs(ones - each / 2) <= 0.5).all()
        assert points.sequences[:, 2:].min() >= 1
        assert points.sequences[:, 2:].max() <= task.integers
        assert set(np.unique(points.sequences[:, 1])) == {1, 2}
    assert (np.sort(problem.rules, axis=1)[:, 1:] != np.sort(problem.rules, axis=1)[:, :-1]).all()


def test_counts_are_as_the_paper_draws_them() -> None:
    """20 places: 18 slots. One pair has c1 uniform in 1 .. 14 and c2 uniform below min(c1, 15 - c1); expected
    values are sums.
    """
    problem = draw_problem(SyntheticTask(tasks=200, points=100), seed=0, validation=200, test=200)
    points = problem.train
    counts = (points.sequences[:, 2:, None] == problem.rules[points.place][:, None, :]).sum(axis=1)
    pairs = counts.reshape(-1, 2, 2)
    large, least = pairs.max(axis=2), pairs.min(axis=2)
    assert counts.sum(axis=1).max() <= 18
    early = {(a, b): 1 / 14 / min(a, 15 - a) for a in range(1, 15) for b in range(min(a, 15 - a))}
    expected = np.zeros(2)
    for (a, b), chance in early.items():
        left = 18 - a - b
        late = sum(c + d for c in range(1, left) for d in [(min(c, left - c) - 1) / 2]) / (left - 1)
        expected += chance * np.array([(a + b + late) / 2, a + b + late])
    totals = large + least
    assert totals.mean() == pytest.approx(expected[0], abs=4 * totals.std() / math.sqrt(totals.size))
    assert totals.sum(axis=1).mean() == pytest.approx(expected[1], abs=4 * 4 / math.sqrt(len(points)))


def test_what_is_asked_says_nothing_of_the_label() -> None:
    problem = draw_problem(SyntheticTask(tasks=500), seed=2, validation=500, test=20000)
    asked, labels = problem.test.sequences[:, 1] == 1, problem.test.labels
    table = np.array([[(labels[asked == a] == b).sum() for b in (0, 1)] for a in (False, True)])
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 10.8  # chi-square with 1 degree: 0.1 %


@pytest.mark.parametrize("weak", [0.5, 0.9, 1.0])
def test_the_weak_pair_knows_training_labels_as_often_as_asked_and_test_labels_by_chance(weak: float) -> None:
    problem = small(weak=weak)

    def by_the_other_pair(points: Points) -> float:
        swapped = points.sequences.copy()
        swapped[:, 1] = 3 - swapped[:, 1]
        return float((true_labels(swapped, problem.rules[points.place]) == points.labels).mean())

    assert by_the_other_pair(problem.train) == pytest.approx(weak)
    assert by_the_other_pair(problem.test) == pytest.approx(0.5)


def test_no_test_sequence_is_a_training_one() -> None:
    """As few integers and as many points as make repetitions common."""
    task = SyntheticTask(tasks=2, points=4000, length=10, integers=8)
    problem = draw_problem(task, seed=3, validation=400, test=2000)
    seen = {tuple(row) for row in problem.train.sequences.tolist()}
    for points in (problem.validation, problem.test):
        assert not any(tuple(row) in seen for row in points.sequences.tolist())
        assert (true_labels(points.sequences, problem.rules[points.place]) == points.labels).all()
    assert occurs_in(problem.train.sequences[:3], problem.train.sequences).all()
    part = problem.test.take(slice(3, 5))
    assert (part.sequences == problem.test.sequences[3:5]).all()
    assert len(part) == 2


def test_knobs_of_tasks() -> None:
    hidden = small(hidden_index=True)
    assert (hidden.train.sequences[:, 0] == 1).all()
    assert len(np.unique(hidden.train.explanations[:, 0])) == 12
    apart = small(disjoint=True)
    assert not set(apart.train.place) & set(apart.test.place)
    smooth = small(smooth=True)
    order = np.argsort(smooth.numbers)
    assert (np.diff(smooth.rules[order, 0]) >= 0).all()
    assert balanced(50, 7, 0.5, np.random.default_rng(0)).sum(axis=1).mean() == pytest.approx(3.5, abs=0.25)


def test_explanations_of_each_kind() -> None:
    problem = small()
    points = problem.train
    assert (points.explanations[:, 0] == points.sequences[:, 0]).all()
    assert (points.explanations[:, 1:] == problem.rules[points.place]).all()
    assert np.array_equal(np.flatnonzero(SMALL.decoded()), np.arange(1, 31))
    pieces = small(kind="recomposable")
    for place in range(12):
        own = pieces.train.explanations[pieces.train.place == place, 1:]
        assert (np.count_nonzero(own, axis=1) == 2).all()
        assert (own.max(axis=0) == pieces.rules[place]).all()
        assert not (own[:, :2] > 0).all(axis=1).any()  # no explanation decides a pair alone
    causal = small(causal_only=True).train
    rules = small(causal_only=True).rules[causal.place]
    asked = np.where(causal.sequences[:, [1]] == 1, rules[:, :2], rules[:, 2:])
    assert (causal.explanations[:, 1:3] == asked).all()
    assert (causal.explanations[:, 3:] == 0).all()
    for translation, expected in (("reflect", 31 - rules), ("shift", rules + 5)):
        found = small(translation=translation).train.explanations[:, 1:]
        assert (found == expected).all()


@pytest.mark.parametrize("eps", [1, 3])
@pytest.mark.parametrize("together", [1, 4])
def test_the_mean_of_noisy_explanations_errs_as_the_formula_says(eps: int, together: int) -> None:
    """Variance eps (eps + 1) / (3 J). The squared error's spread is at most sqrt(2) of its mean, four
    standard errors allowed.
    """
    task = SyntheticTask(tasks=5, kind="evidential", eps=eps)
    rng, draws = np.random.default_rng(0), 20_000
    rules = np.tile([20, 40, 60, 80], (draws * together, 1))
    told = explain(
        task, np.ones(len(rules), int), rules, np.ones(len(rules), bool), np.zeros(len(rules), int), rng
    )[:, 1:]
    mean = told.reshape(draws, together, 4).mean(axis=1)
    found = ((mean - rules[:draws]) ** 2).mean()
    assert found == pytest.approx(eps * (eps + 1) / (3 * together), rel=4 * math.sqrt(2 / (4 * draws)))
    assert task.code(told).min() >= 1
    assert task.code(told).max() < task.codes
    assert (task.decoded()[task.code(told)] == told).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "none"}, "kind"),
        ({"translation": "latin"}, "translation"),
        ({"length": 5}, "length = 5"),
        ({"integers": 5}, "integers = 5"),
        ({"points": 1}, "points = 1"),
        ({"tasks": 2000}, "tasks = 2000"),
        ({"weak": 1.5}, "weak"),
        ({"eps": -1}, "eps"),
        ({"kind": "evidential", "causal_only": True}, "causal_only"),
    ],
)
def test_impossible_tasks_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SyntheticTask(**{**vars(SMALL), **changes})  # type: ignore[arg-type]


# ---- retrieval ----


def test_search_is_exact_and_never_returns_ones_own() -> None:
    rng = np.random.default_rng(0)
    queries, pool = rng.standard_normal((300, 8)), rng.standard_normal((70, 8))
    own = rng.integers(-1, 70, size=300)
    found = nearest(queries, pool, 5, own=own)
    for query, mine, rows in zip(queries, own, found, strict=True):
        order = [row for row in np.argsort(-(pool @ query)) if row != mine]
        assert rows.tolist() == order[:5]
    with pytest.raises(UserError, match="70 explanations"):
        nearest(queries, pool, 70, own=own)


def test_the_oracle_returns_the_querys_task_and_never_ones_own() -> None:
    problem = small()
    train = problem.train
    own = np.arange(len(train))
    found = oracle(train.place, train.place, 9, np.random.default_rng(0), own=own)
    assert (train.place[found] == train.place[:, None]).all()
    assert (found != own[:, None]).all()
    assert all(len(set(row)) == 9 for row in found.tolist())  # all nine others, each once
    again = oracle(train.place, train.place, 12, np.random.default_rng(0), own=own)
    assert (again[:, 9:] == again[:, :3]).all()
    apart = small(disjoint=True)
    given = find_oracle(0)(apart, apart.test, None, 2)
    number, told = apart.numbers[apart.test.place], apart.numbers[apart.train.place[given[:, 0]]]
    nearest_number = np.abs(number[:, None] - apart.numbers[:12]).min(axis=1)
    assert (np.abs(number - told) == nearest_number).all()
    with pytest.raises(UserError, match="no other explanation"):
        oracle(np.array([0]), np.array([0]), 1, np.random.default_rng(0), own=np.array([0]))


@pytest.mark.parametrize("find", [find_oracle(1), find_at_random(1), find_by_tokens])
def test_training_queries_never_get_their_own_explanation(find: Find) -> None:
    problem = small()
    own = np.arange(len(problem.train))
    found = find(problem, problem.train, own, 4)
    assert found.shape == (len(own), 4)
    assert (found != own[:, None]).all()
    test = find(problem, problem.test, None, 4)
    assert test.min() >= 0
    assert test.max() < len(own)


def test_bags_count_equal_tokens() -> None:
    problem = small()
    queries = bags_of_queries(problem.test.sequences, problem)
    pool = bags_of_explanations(problem.train.explanations, problem)
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    query, told = problem.test.sequences[0], problem.train.explanations[5]
    shared = sum((query[2:] == integer).sum() for integer in told[1:]) + (query[0] == told[0])
    counts = np.unique(query[2:], return_counts=True)[1]
    assert (queries @ pool.T)[0, 5] == pytest.approx(
        shared / math.sqrt((counts**2).sum() + 2) / math.sqrt(5), rel=1e-5
    )
    veiled = small(hidden_index=True)
    assert (bags_of_queries(veiled.test.sequences, veiled)[:, -12:] == 0).all()


def test_the_mixture_is_a_distribution_and_sets_may_change_places() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(6, 4, 3, generator=generator)
    sets = set_log_probabilities(similarity)
    assert torch.allclose(sets.exp().sum(-1), torch.ones(6))
    assert torch.allclose(
        sets.exp(), similarity.mean(-1).exp() / similarity.mean(-1).exp().sum(-1, keepdim=True)
    )
    logits = torch.randn(6, 4, 2, generator=generator)
    found = marginal(logits, sets)
    assert torch.allclose(found.exp(), torch.einsum("bk,bky->by", sets.exp(), logits.softmax(-1)), atol=1e-6)
    shuffled = torch.randperm(4, generator=generator)
    assert torch.allclose(marginal(logits[:, shuffled], sets[:, shuffled]), found, atol=1e-6)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    one = marginal(logits[:, :1], set_log_probabilities(similarity[:, :1]))
    assert torch.allclose(
        nn.functional.nll_loss(one, labels), nn.functional.cross_entropy(logits[:, 0], labels)
    )
    assert into_sets(np.arange(12).reshape(1, 12), 3).tolist() == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    ]


# ---- readers ----

READINGS = {
    "nothing": Reading(),
    "explanations": Reading("explanations", sets=2, each=3),
    "mean": Reading("explanations", sets=2, each=3, pooling="mean"),
    "integers": Reading("explanations", sets=2, each=3, pooling="integers"),
    "examples": Reading("examples", each=4),
    "auxiliary": Reading(auxiliary=0.5),
    "learnt": Reading("explanations", sets=3, learnt=True),
}


def packed_of(reading: Reading, problem: Problem) -> torch.Tensor:
    found = find_by_tokens(problem, problem.test, None, reading.sets * reading.each)
    return torch.from_numpy(pack(problem, problem.test, reading, found))


def reader_of(reading: Reading, problem: Problem, architecture: str) -> Reader:
    torch.manual_seed(0)
    features = 30 + 2 + 12 if reading.learnt else 0
    shape = Shape(architecture, hidden=16, layers=1, heads=2)  # type: ignore[arg-type]
    return Reader(problem.task, reading, shape, features=features)


@pytest.mark.parametrize("architecture", ["histogram", "transformer"])
@pytest.mark.parametrize("name", READINGS)
def test_readers_give_probabilities_whatever_they_read(name: str, architecture: str) -> None:
    problem, reading = small(), READINGS[name]
    reader, packed = reader_of(reading, problem, architecture), packed_of(reading, problem)
    found = reader(packed[:20])
    assert found.shape == (20, reader.outputs)
    assert torch.allclose(found[:, :2].exp().sum(-1), torch.ones(20), atol=1e-5)
    assert torch.allclose(reader(packed[5:9]), found[5:9], atol=1e-5)  # rows do not see each other
    changed = packed[:20].clone()
    changed[:, 2:12] = changed[:, [3, *range(4, 12), 2]]
    moved = (reader(changed) - found).abs().max()
    if architecture == "histogram":
        assert moved < 1e-5  # counts have no order
    else:
        assert moved > 1e-4


@pytest.mark.parametrize("architecture", ["histogram", "transformer"])
def test_sets_may_change_places_and_what_is_read_matters(architecture: str) -> None:
    problem, reading = small(), READINGS["explanations"]
    reader, packed = reader_of(reading, problem, architecture), packed_of(reading, problem)[::16]
    start, width = 13, reading.each * 4
    swapped = packed.clone()
    swapped[:, start : start + width] = packed[:, start + width :]
    swapped[:, start + width :] = packed[:, start : start + width]
    assert torch.allclose(reader(swapped), reader(packed), atol=1e-5)
    other = packed.clone()
    other[:, start:] = packed[:, start:].roll(1, 0)
    assert (reader(other) - reader(packed)).abs().max() > 1e-4


def test_gradients_reach_the_retriever_where_it_learns() -> None:
    problem, reading = small(), READINGS["learnt"]
    reader, packed = reader_of(reading, problem, "histogram"), packed_of(reading, problem)
    wanted = torch.from_numpy(targets(problem, problem.test))
    reader_loss(problem.task, 0.0)(reader(packed), wanted).backward()
    assert reader.retriever is not None
    gradient = reader.retriever.map.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    fixed = reader_of(READINGS["explanations"], problem, "histogram")
    assert not any(name.startswith("retriever") for name, _ in fixed.named_parameters())
    retriever = Retriever(5)
    features = torch.randn(7, 5)
    assert torch.allclose(
        retriever(features, features.flip(0)[:, None, None].expand(-1, 2, 1, -1)).exp(),
        torch.full((7, 2), 0.5),
    )


def test_the_retrievers_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    retriever = Retriever(4).double()
    queries, told = (torch.randn(*shape, generator=generator).double() for shape in ((3, 4), (3, 2, 2, 4)))
    assert torch.autograd.gradcheck(
        lambda weights: torch.func.functional_call(retriever, {"map": weights}, (queries, told)),
        (torch.randn(4, 4, generator=generator).double().requires_grad_(),),
    )


def test_the_auxiliary_loss_asks_for_the_points_own_explanation() -> None:
    problem = small()
    task = problem.task
    wanted = torch.from_numpy(targets(problem, problem.test))
    told = nn.functional.one_hot(wanted[:, 1:], task.codes).float().flatten(1) * 100
    outputs = torch.cat([torch.full((len(wanted), 2), 0.5).log(), told], dim=1)
    assert float(reader_loss(task, 2.0)(outputs, wanted)) == pytest.approx(math.log(2), abs=1e-5)
    silent = torch.cat([outputs[:, :2], torch.zeros_like(told)], dim=1)
    assert float(reader_loss(task, 2.0)(silent, wanted)) == pytest.approx(
        math.log(2) + 2 * math.log(task.codes), rel=1e-5
    )


def test_readers_trained_together_are_those_trained_alone() -> None:
    problems = [small(seed) for seed in (0, 1)]
    training = Training(steps=4, batch=16)
    shape, reading = Shape(hidden=16), Reading("explanations", sets=2, learnt=True)
    together = Readers(problems, reading, seeds=[5, 6], shape=shape)  # type: ignore[arg-type]
    losses = together.train(None, training)
    own = [np.arange(120)] * 2
    for rows in together.retrieved("train", None, own):
        assert rows.shape == (120, 2)
        assert (rows != own[0][:, None]).all()
    alone = Readers(problems[1:], reading, seeds=[6], shape=shape)  # type: ignore[arg-type]
    assert alone.train(None, training)[0] == pytest.approx(losses[1], rel=1e-4)
    assert alone.accuracy("test") == pytest.approx([together.accuracy("test")[1]], abs=0.01)


def test_a_reader_of_explanations_learns_what_one_without_cannot() -> None:
    problem = draw_problem(
        SyntheticTask(tasks=60, points=10, length=10, integers=12), seed=0, validation=60, test=600
    )
    accuracy = {}
    for name, reading, find in (
        ("with", Reading("explanations"), find_oracle(0)),
        ("without", Reading(), None),
    ):
        readers = Readers([problem], reading, seeds=[0], shape=Shape(hidden=64))
        readers.train(find, Training(steps=200, batch=64, learning_rate=0.01))
        (accuracy[name],) = readers.accuracy("test", find)
    assert accuracy["with"] > 0.85
    assert accuracy["without"] < accuracy["with"] - 0.1


def test_the_retriever_learns_which_token_tells_relevance() -> None:
    """From labels alone: sets of more than one task are mixed, and those of the query's own predict better."""
    task = SyntheticTask(tasks=40, points=6, length=12, integers=20)
    problem = draw_problem(task, seed=0, validation=40, test=400)
    readers = Readers([problem], Reading("explanations", sets=4, each=3, learnt=True), seeds=[0])

    def relevant() -> float:
        (found,) = readers.retrieved("test", None)
        return float((problem.train.place[found[:, 0]] == problem.test.place).mean())

    before = relevant()
    fixed = find_by_tokens(problem, problem.test, None, 1)[:, 0]
    start = (problem.train.place[fixed] == problem.test.place).mean()
    assert before == pytest.approx(start, abs=0.05)  # near enough: many similarities are equal up to rounding
    readers.train(None, Training(steps=200, batch=50, learning_rate=0.01, refresh=20))
    assert relevant() > before + 0.04


def test_learners_on_counts() -> None:
    """With few tasks they are learnt; a query's neighbours are of its own task, whatever the counts."""
    problem = draw_problem(
        SyntheticTask(tasks=2, points=200, length=12, integers=10), seed=0, validation=20, test=400
    )
    train, test = (count_features(points, problem) for points in (problem.train, problem.test))
    assert (train[:, :-2].sum(axis=1) == 10).all()
    for learner in (index_trees, nearest_neighbours):
        assert (learner(train, problem.train.labels, test) == problem.test.labels).mean() > 0.8
    features = np.array([[5.0, 0, 1, 0], [0, 5, 1, 1], [0, 5, 2, 0]])
    assert nearest_neighbours(features, np.array([0, 1, 1]), np.array([[0.0, 5, 1, 0]])).tolist() == [0]
