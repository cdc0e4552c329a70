"""Random 3SAT in English (arXiv 2112.09054): brute force, a second solver, round trips, symmetries, balance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claimbench.errors import UserError
from claimbench.papers.theory import nl_satisfiability as nl
from claimbench.papers.theory.nl_satisfiability import predictors
from claimbench.papers.theory.nl_satisfiability.formulas import (
    alpha,
    clause_counts,
    distinct,
    joined,
    occurring,
    renamed,
)
from claimbench.papers.theory.nl_satisfiability.labels import clauses_until_unsatisfiable
from claimbench.papers.theory.nl_satisfiability.samples import hard_window, mixed, without
from claimbench.papers.theory.nl_satisfiability.solvers import satisfiable_by_solver

RNG = np.random.default_rng
CLAUSES = st.lists(
    st.lists(st.integers(1, 12), min_size=3, max_size=3, unique=True).flatmap(
        lambda names: st.tuples(*(st.sampled_from((name, -name)) for name in names))
    ),
    min_size=1,
    max_size=12,
)


def models(clauses: list[list[int]], n: int) -> int:
    """Satisfying assignments, one by one."""
    return sum(
        all(any((literal > 0) == values[abs(literal) - 1] for literal in clause) for clause in clauses)
        for values in itertools.product((False, True), repeat=n)
    )


# ---- formulas ----


def test_clauses_have_three_different_variables_uniformly() -> None:
    formulas = nl.random_formulas(5, 40, 500, RNG(0))
    variables = np.abs(formulas).reshape(-1, 3)
    assert (np.sort(variables, axis=1)[:, :-1] != np.sort(variables, axis=1)[:, 1:]).all()
    ordered = np.bincount(variables @ [36, 6, 1], minlength=216)
    counts = ordered[ordered > 0]
    assert len(counts) == 60  # ordered triples of 5
    # Chi-square with 59 degrees of freedom: mean 59, standard deviation sqrt(118).
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 59 + 5 * math.sqrt(118)
    assert abs((formulas > 0).mean() - 0.5) < 4 * math.sqrt(0.25 / formulas.size)


def test_two_sat_and_what_lies_between() -> None:
    between = nl.random_formulas(6, 50, 400, RNG(1), share_of_three=0.3)
    lengths = (between != 0).sum(axis=-1)
    assert set(np.unique(lengths)) == {2, 3}
    assert abs((lengths == 3).mean() - 0.3) < 4 * math.sqrt(0.21 / lengths.size)
    two = nl.random_formulas(6, 9, 40, RNG(2), share_of_three=0.0)
    assert [bool(models(nl.clauses_of(f), 6)) for f in two] == nl.satisfiable(two, 6).tolist()
    with pytest.raises(UserError, match="n >= 3"):
        nl.random_formulas(2, 5, 1, RNG(0))


def test_alpha_counts_all_variables_or_those_that_occur() -> None:
    formulas = joined([nl.formula_of([[1, 2, 3], [-1, 2, 5]]), nl.formula_of([[1, 2, 3]])])
    assert clause_counts(formulas).tolist() == [2, 1]
    assert occurring(formulas).tolist() == [4, 3]
    np.testing.assert_allclose(alpha(formulas, 8), [2 / 8, 1 / 8])
    np.testing.assert_allclose(alpha(formulas), [2 / 4, 1 / 3])
    assert nl.clauses_of(formulas[1]) == [[1, 2, 3]]


def test_keys_ignore_order_and_nothing_else() -> None:
    a = nl.formula_of([[1, -2, 3], [2, 4, -5]])
    b = nl.formula_of([[-5, 2, 4], [3, 1, -2]])
    other = nl.formula_of([[1, -2, 3], [2, 4, 5]])
    keys = nl.canonical_keys(np.concatenate([a, b, other]))
    assert keys[0] == keys[1] != keys[2]
    assert distinct(np.concatenate([a, b, other])).tolist() == [True, False, True]
    padded = joined([a, nl.random_formulas(5, 4, 1, RNG(0))])
    assert nl.canonical_keys(padded)[0] == keys[0]


# ---- labels ----


@pytest.mark.parametrize("n", [3, 5, 7])
def test_truth_tables_agree_with_brute_force_and_two_solvers(n: int) -> None:
    z3 = pytest.importorskip("z3", reason="z3-solver is an optional reference")
    formulas = nl.random_formulas(n, 5 * n, 40, RNG(n))
    counts = nl.satisfying_counts(formulas, n)
    assert counts.tolist() == [models(nl.clauses_of(formula), n) for formula in formulas]
    found = nl.satisfiable(formulas, n).tolist()
    assert found == (counts > 0).tolist()
    assert 0 < sum(found) < 40
    for formula, label in zip(formulas, found, strict=True):
        clauses = nl.clauses_of(formula)
        solver = z3.Solver()
        names = [z3.Bool(f"v{v}") for v in range(n + 1)]
        for clause in clauses:
            solver.add(z3.Or([names[v] if v > 0 else z3.Not(names[-v]) for v in clause]))
        assert (solver.check() == z3.sat) == label
        assert satisfiable_by_solver(clauses) == label
        assert nl.dpll_effort(clauses, n).satisfiable == nl.cdcl_effort(clauses).satisfiable == label


def test_expected_number_of_solutions() -> None:
    n, m, count = 10, 30, 4000
    counts = nl.satisfying_counts(nl.random_formulas(n, m, count, RNG(3)), n)
    assert abs(counts.mean() - 2**n * (7 / 8) ** m) < 4 * counts.std() / math.sqrt(count)


def test_more_clauses_never_make_a_formula_satisfiable() -> None:
    formulas = nl.random_formulas(6, 60, 30, RNG(4))
    until = clauses_until_unsatisfiable(formulas, 6)
    for formula, turn in zip(formulas, until.tolist(), strict=True):
        labels = [bool(nl.satisfiable(formula[None, :m], 6)[0]) for m in range(1, 61)]
        assert labels == sorted(labels, reverse=True)
        assert sum(labels) + 1 == turn


def test_crossings_of_the_brief() -> None:
    """Shares of 150 formulas at alpha 4, 5, 6 as given there, within the error of both samples."""
    given = {5: (0.86, 0.63, 0.43), 10: (0.86, 0.48, 0.22), 12: (0.82, 0.49, 0.11)}
    for n, shares in given.items():
        until = clauses_until_unsatisfiable(nl.random_formulas(n, 6 * n + 1, 600, RNG(n)), n)
        for ratio, share in zip((4, 5, 6), shares, strict=True):
            found = float((until > ratio * n).mean())
            assert abs(found - share) < 4 * math.sqrt(0.25 * (1 / 150 + 1 / 600))
    assert nl.half_point(8, RNG(0)) / 8 == pytest.approx(5.1, abs=0.2)


def test_symmetries_leave_satisfiability_unchanged() -> None:
    formulas = nl.random_formulas(7, 36, 200, RNG(5))
    moved = renamed(formulas, 7, RNG(6))
    assert (moved != formulas).any()
    np.testing.assert_array_equal(nl.satisfying_counts(moved, 7), nl.satisfying_counts(formulas, 7))


def test_answers_exclude_each_other() -> None:
    queries = nl.hard_queries(6, 30, RNG(7))
    assert sorted(query.answer for query in queries) == ["false"] * 10 + ["true"] * 10 + ["unknown"] * 10
    for query in queries:
        with_it = models([*query.clauses, [query.literal]], 6)
        against = models([*query.clauses, [-query.literal]], 6)
        assert with_it + against > 0
        expected = "true" if not against else "false" if not with_it else "unknown"
        assert query.answer == expected == nl.query_label(query.clauses, query.literal)
    theory, question = queries[0].text()
    assert nl.SentenceRules().read(theory) == query_clauses(queries[0])
    assert question.split()[1] == "is"
    with pytest.raises(UserError, match="no model"):
        nl.query_label([[1], [-1]], 1)


def query_clauses(query: nl.Query) -> list[list[int]]:
    return query.clauses


# ---- English ----


def test_a_rule_is_its_clause() -> None:
    rules = nl.GroundedRules(("a", "b", "c"))
    assert rules.write([[1, -2, 3]]) == "If no a and b then c"
    assert rules.read("If no a and b then c.") == [[1, -2, 3]]
    assert rules.read("If a then no b") == [[-1, -2]]
    people = nl.SentenceRules((("Ann", "baker"), ("Ben", "actor"), ("Clara", "poet")))
    assert people.write([[1, -2, -3]]) == "If Ann is not a baker and Ben is an actor then Clara is not a poet"
    for wrong in ("If no d then a", "no a and b", "If a and b"):
        with pytest.raises(UserError):
            rules.read(wrong)
    with pytest.raises(UserError, match="give more"):
        rules.write([[1, 2, 4]])


@settings(max_examples=40, deadline=None)
@given(CLAUSES)
def test_round_trips(clauses: list[tuple[int, ...]]) -> None:
    theory = [list(clause) for clause in clauses]
    for fragment in (nl.GroundedRules(), nl.SentenceRules()):
        assert fragment.read(fragment.write(theory)) == theory
    relative, language = (
        nl.RelativeTheory(theory, [(1 + i % 3, c) for i, c in enumerate(theory)]),
        nl.RelativeClauses(),
    )
    assert language.read(language.write(relative)) == relative


def test_relative_clauses_say_what_they_mean() -> None:
    language = nl.RelativeClauses(trades=("baker", "judge", "poet"), people=("Ann", "Ben"))
    theory = nl.RelativeTheory([[-1, 2, 3], [-1, -2, -3], [1, -2, 3]], [(2, [1, -2, 3])])
    assert language.write(theory).split(". ") == [
        "Every baker who is not a judge is a poet",
        "No baker who is a judge is a poet",
        "Everyone who is not a baker and a judge is a poet",
        "Ben is a baker or not a judge or a poet",
    ]
    expanded = theory.expand(predicates=3, individuals=2)
    assert len(expanded) == 1 + 3 * 2
    assert expanded[0] == [4, -5, 6]
    assert [-1, 2, 3] in expanded
    assert [-4, 5, 6] in expanded
    with pytest.raises(UserError, match="no sentence"):
        language.read("Somebody sings")


# ---- samples ----


def test_hard_samples_are_balanced_and_disjoint() -> None:
    sample = nl.hard_sample(6, 400, RNG(8), range(26, 36))
    assert len(sample) == 400
    for m in range(26, 36):
        inside = sample.labels[sample.clauses == m]
        assert len(inside) == 40
        assert inside.mean() == 0.5
    np.testing.assert_array_equal(sample.labels, nl.satisfiable(sample.formulas, 6))
    assert distinct(sample.formulas).all()
    train, test = sample.split(300)
    assert len(without(train, test)) == 300
    assert len(without(joined_sample(train, test), test)) == 300
    lopsided = nl.hard_sample(6, 400, RNG(8), range(20, 42), balance="global")
    assert lopsided.labels.mean() == 0.5
    few = lopsided.labels[lopsided.clauses <= 25].mean()
    assert few > 0.6  # few clauses betray the label


def joined_sample(first: nl.Sample, second: nl.Sample) -> nl.Sample:
    return nl.Sample(
        joined([first.formulas, second.formulas]), np.concatenate([first.labels, second.labels]), first.n
    )


def test_naive_samples_are_mostly_easy_to_guess() -> None:
    sample = nl.naive_sample(8, 600, RNG(9))
    assert sample.clauses.min() >= 8
    assert sample.clauses.max() <= 99
    assert abs(sample.clauses.mean() - 53.5) < 4 * 26.6 / math.sqrt(600)
    low, high = min(hard_window(8, RNG(0))), max(hard_window(8, RNG(0)))
    assert 36 <= low + 1 <= 38
    assert 45 <= high <= 48
    assert sample.labels[sample.clauses < 25].mean() > 0.9
    assert sample.labels[sample.clauses > 70].mean() < 0.1
    both = mixed(sample, nl.hard_sample(8, 600, RNG(1)), RNG(2))
    assert 590 < len(both) <= 600


def test_impossible_samples_are_refused() -> None:
    with pytest.raises(UserError, match="so rare"):
        nl.hard_sample(5, 40, RNG(0), [3])
    with pytest.raises(UserError, match="need at least"):
        nl.hard_sample(6, 10, RNG(0), range(20, 40))
    with pytest.raises(UserError, match="different formulas"):
        nl.naive_sample(3, 100, RNG(0), 1, 1)


# ---- predictors and hardness ----


def test_features_know_no_names() -> None:
    formulas = nl.random_formulas(6, 30, 50, RNG(10))
    features = nl.count_features(formulas, 6)
    np.testing.assert_array_equal(features, nl.count_features(renamed(formulas, 6, RNG(11)), 6))
    assert (features[:, 0] == 30).all()
    assert (features[:, 1:13].sum(axis=1) == 90).all()  # every literal once
    assert (features[:, 13:].sum(axis=1) == 90).all()  # three pairs a clause
    one = nl.count_features(nl.formula_of([[1, -2, 3], [1, 2, 4]]), 4)[0]
    assert one.tolist() == [2, 2, 1, 1, 1, 0, 1, 0, 0, 2, 1, 1, 1, 1, 0][: len(one)]


def test_balanced_accuracy_is_half_for_a_constant() -> None:
    true = np.array([True] * 9 + [False])
    assert nl.balanced_accuracy(np.ones(10, dtype=bool), true) == 0.5
    assert nl.balanced_accuracy(true, true) == 1.0


def test_predictors_learn_what_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "ROUNDS", 20)
    train, test = nl.naive_sample(8, 450, RNG(12)).split(300)
    for predict in nl.PREDICTORS.values():
        assert nl.balanced_accuracy(predict(train, test, 0), test.labels) > 0.8
    hard_train, hard_test = nl.hard_sample(8, 450, RNG(13)).split(300)
    predicted = nl.PREDICTORS["alpha-threshold"](hard_train, hard_test, 0)
    assert abs(nl.balanced_accuracy(predicted, hard_test.labels) - 0.5) < 0.1
    words = nl.tfidf_svm(train.theories(), train.labels, test.theories())
    assert nl.balanced_accuracy(words, test.labels) > 0.8


def test_effort_counts_branches() -> None:
    assert nl.dpll_effort([[1, 2, 3]], 3).decisions == 3  # true, true, true
    assert nl.dpll_effort([[1], [-1, 2], [-2, 3]], 3).decisions == 0  # units decide
    every = [list(signs) for signs in itertools.product((1, -1), (2, -2), (3, -3))]
    found = nl.dpll_effort(every, 3)
    assert not found.satisfiable
    # Two values for the first variable; below each, two for the second, where the third is forced both ways.
    assert (found.decisions, found.conflicts) == (6, 4)


def test_hardness_ranks_among_random_problems() -> None:
    hard = nl.hard_sample(8, 120, RNG(14))
    ranks = [one.rank for one in nl.hardness([nl.clauses_of(f) for f in hard.formulas])]
    assert abs(np.mean(ranks) - 0.5) < 4 * 0.3 * math.sqrt(1 / 120 + 1 / 100)
    easy = nl.hardness([[[1, 2, 3], [4, 5, 6], [7, 8, -1]]], variables=[8])[0]
    assert easy.satisfiable
    assert easy.alpha == 3 / 8
    with pytest.raises(UserError, match="no literals"):
        nl.hardness([[]])
