"""Rashomon ratios and volumes (arXiv 1908.01755): identities, brute force over trees, closed forms, TreeFARMS."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from claimbench.errors import UserError
from claimbench.papers.theory import rashomon
from claimbench.papers.theory.rashomon import learners
from claimbench.papers.theory.rashomon.bounds import least_training_losses, stump_mistakes
from claimbench.papers.theory.rashomon.curve import corner, distances
from claimbench.papers.theory.rashomon.depth_two import DepthTwo
from claimbench.papers.theory.rashomon.polynomials import average, leaves, log_share, multiply
from claimbench.papers.theory.rashomon.ridge import ridge_fit, ridge_loss
from claimbench.papers.theory.rashomon.volume import error_budget, sampled_shares

RNG = np.random.default_rng


def binary_table(rows: int = 60, columns: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    X = rng.integers(0, 2, (rows, columns)).astype(float)
    y = ((X[:, 0] + X[:, 1] > 1) ^ (rng.random(rows) < 0.15)).astype(np.int64)
    return X, y


def every_tree(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Errors of all trees of depth 2 on binary columns, one by one, in the order of their places."""
    columns = X.shape[1]
    classes = range(int(y.max()) + 1)
    errors = []
    for root, left, right in itertools.product(range(columns), repeat=3):
        inner = np.where(X[:, root] > 0, X[:, right], X[:, left]) > 0
        leaf = 2 * (X[:, root] > 0) + inner
        errors.extend(
            int((np.array(labels)[leaf] != y).sum()) for labels in itertools.product(classes, repeat=4)
        )
    return np.array(errors)


# ---- labelings of leaves ----


@pytest.mark.parametrize("classes", [2, 3])
def test_labelings_agree_with_brute_force(classes: int) -> None:
    counts = RNG(classes).integers(0, 5, (7, classes))
    counts[2] = 0
    errors = [
        sum(int(counts[leaf].sum() - counts[leaf, label]) for leaf, label in enumerate(labels))
        for labels in itertools.product(range(classes), repeat=7)
    ]
    expected = np.bincount(errors, minlength=int(counts.sum()) + 1)
    found = np.exp(rashomon.log_labelings(counts))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)
    assert found.sum() == pytest.approx(classes**7, rel=1e-12)


def test_no_underflow_where_shares_are_far_below_the_smallest_float() -> None:
    """2000 leaves with one row each: exactly one of 2^2000 labelings makes no error."""
    counts = np.tile([1, 0], (2000, 1))
    logs = rashomon.log_labelings(counts, budget=3)
    assert logs[0] == pytest.approx(0.0, abs=1e-8)
    assert logs[1] == pytest.approx(math.log(2000), abs=1e-8)


def test_products_are_convolutions_cut_at_the_budget() -> None:
    rng = RNG(0)
    nodes = leaves(rng.integers(0, 9, (12, 2)), 20)
    left, right = rng.integers(0, 12, (2, 30))
    product = multiply(nodes, nodes, left, right, 20)
    for pair in range(30):
        a, b = (nodes.dense(np.array([side[pair]]), 21)[0] for side in (left, right))
        whole = np.convolve(a, b)[:21] * np.exp(nodes.log_factor[left[pair]] + nodes.log_factor[right[pair]])
        found = product.dense(np.array([pair]), 21)[0] * np.exp(product.log_factor[pair])
        np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-15)
    both = average([product, product])
    np.testing.assert_allclose(log_share(both, 20), log_share(product, 20), rtol=1e-12, atol=1e-12)


# ---- trees of depth 2, exactly ----


@pytest.mark.parametrize("classes", [2, 3])
def test_counts_by_errors_agree_with_brute_force(classes: int) -> None:
    X, y = binary_table(40, 3)
    y = np.where((classes == 3) & (X[:, 2] > 0), 2, y)
    trees, errors = rashomon.depth_two_class(X, y), every_tree(X, y)
    assert sum(trees.counts) == len(trees) == len(errors)
    np.testing.assert_array_equal(trees.counts, np.bincount(errors, minlength=41))
    assert trees.best == errors.min()
    np.testing.assert_array_equal(trees.errors(trees.decode(np.arange(len(trees)))), errors)
    assert trees.ratio(0.1) == pytest.approx((errors <= errors.min() + 4).mean(), rel=1e-12)


def test_ratio_grows_with_theta_to_one() -> None:
    trees = rashomon.depth_two_class(*binary_table())
    ratios = [trees.ratio(theta) for theta in np.linspace(0, 1, 21)]
    assert 0 < ratios[0] < ratios[4] < 1
    assert ratios == sorted(ratios)
    assert ratios[-1] == 1.0
    worst = np.flatnonzero(trees.counts)[-1]
    assert trees.ratio((worst - trees.best) / trees.rows) == 1.0


def test_the_printed_set_is_the_set() -> None:
    X, y = binary_table()
    trees, errors = rashomon.depth_two_class(X, y), every_tree(X, y)
    members, found = trees.rashomon_set(0.05, most=10**6)
    assert len(members) == trees.members(0.05) == (errors <= trees.best + 3).sum()
    np.testing.assert_array_equal(np.sort(found), np.sort(errors[errors <= trees.best + 3]))
    np.testing.assert_array_equal(trees.errors(members), found)
    top, least = trees.rashomon_set(0.05, most=5)
    assert len(top) == 5
    np.testing.assert_array_equal(least, found[:5])


def test_words_say_what_the_tree_does() -> None:
    X, y = binary_table()
    trees = rashomon.depth_two_class(X, y)
    tree, errors = (part[0] for part in trees.rashomon_set(0.0, most=1))
    words = rashomon.describe(tree, trees.splits, list("abcd"), ["0", "1"])
    text = words.replace(" ? ", " and (").replace(" : ", ") or (")  # only to read the questions back
    assert all(part.split()[1] == ">" for part in text.replace("(", "").split(" and ")[:1])
    said = []
    for row in X:
        names = dict(zip("abcd", row, strict=True))

        def ask(expression: str, names: dict[str, float] = names) -> str:
            expression = expression.strip()
            if expression in ("0", "1"):
                return expression
            if expression.startswith("(") and expression.endswith(")") and expression.count("(") == 1:
                expression = expression[1:-1]
            question, rest = expression.split(" ? ", 1)
            depth = [
                i
                for i in range(len(rest))
                if rest[i : i + 3] == " : " and rest[:i].count("(") == rest[:i].count(")")
            ]
            yes, no = rest[: depth[0]], rest[depth[0] + 3 :]
            name, _, threshold = question.split()
            return ask(yes if names[name] > float(threshold) else no)

        said.append(int(ask(words)))
    assert int((np.array(said) != y).sum()) == errors


def test_structured_classes_are_the_best_of_their_kind() -> None:
    X, y = binary_table(50, 4, seed=2)
    trees = rashomon.depth_two_class(X, y)
    stumps = stump_mistakes(trees.splits, y).sum(axis=1)
    assert trees.least_with_one_split() == stumps.min()
    tables = [
        min(
            int((np.array(labels)[(2 * X[:, i] + X[:, j]).astype(int)] != y).sum())
            for labels in itertools.product((0, 1), repeat=4)
        )
        for i, j in itertools.product(range(4), repeat=2)
    ]
    assert trees.least_with_two_splits() == min(tables)
    assert trees.best <= trees.least_with_two_splits() <= trees.least_with_one_split()


def test_random_sub_classes_hit_as_often_as_the_hypergeometric_law_says() -> None:
    trees = rashomon.depth_two_class(*binary_table())
    draws, theta = 4000, 0.0
    first = trees.first_hits(draws, theta, RNG(1))
    for failure in (0.5, 0.1):
        size = rashomon.sub_class_size(trees.ratio(theta), failure)
        expected = hypergeom.sf(0, len(trees), trees.members(theta), size)
        assert trees.chance(size, theta) == pytest.approx(expected)
        assert abs((first <= size).mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)
        assert expected >= 1 - failure
        assert 1 - (1 - trees.ratio(theta)) ** (size - 1) < 1 - failure
    # Without repetition a sub-class as large as all but the members must still grow by one to hold one.
    assert trees.chance(len(trees) - trees.members(theta) + 1, theta) == 1.0
    assert first.max() <= len(trees) - trees.members(theta) + 1


def test_label_noise_lowers_accuracy_and_raises_the_ratio_at_depth_two() -> None:
    clean, noisy = [], []
    for seed in range(8):
        for noise, into in ((0.0, clean), (0.3, noisy)):
            problem = rashomon.load_problem(f"gaussians+noise{noise}", seed)
            trees = rashomon.depth_two_class(problem.X, problem.y)
            into.append((trees.best / trees.rows, math.log(trees.ratio(0.05))))
    assert np.mean(noisy, axis=0)[0] > np.mean(clean, axis=0)[0] + 0.1
    assert np.mean(noisy, axis=0)[1] > np.mean(clean, axis=0)[1]


def test_the_set_agrees_with_treefarms() -> None:
    """TreeFARMS enumerates sparse trees: at depth 2 its functions must be those that are found here."""
    pytest.importorskip("treefarms", reason="treefarms is an optional reference")
    import pandas as pd
    from treefarms import TREEFARMS

    X, y = binary_table(80, 4, seed=4)
    trees = rashomon.depth_two_class(X, y)
    members, _ = trees.rashomon_set(0.05, most=10**6)
    ours = {tuple(predictions(trees, tree, X)) for tree in members}
    model = TREEFARMS(
        {
            "regularization": 1e-9,
            "rashomon_bound_multiplier": 0.0,
            "rashomon_bound_adder": (math.floor(0.05 * 80 + 1e-9) + 0.5) / 80,
            "depth_budget": 3,
            "verbose": False,
            "rashomon": True,
        }
    )
    model.fit(pd.DataFrame(X.astype(int), columns=list("abcd")), pd.Series(y, name="y"))
    theirs = {
        tuple(
            int(p)
            for p in np.asarray(
                model[place].predict(pd.DataFrame(X.astype(int), columns=list("abcd")))
            ).ravel()
        )
        for place in range(model.get_tree_count())
    }
    assert theirs == ours


def predictions(trees: DepthTwo, tree: np.ndarray, X: np.ndarray) -> list[int]:
    root, left, right, low, high = tree
    split = trees.splits.goes_right
    inner = np.where(split[root], split[right], split[left]).astype(int)
    pair = np.where(split[root], high, low)
    return np.where(inner, pair % trees.classes, pair // trees.classes).tolist()


# ---- sampled ratios ----


@pytest.mark.parametrize(
    ("tilt", "candidates", "branches"), [(0.0, 1, [1, 1]), (0.3, 8, [3, 2]), (1.0, 4, [2, 1])]
)
def test_estimates_are_unbiased(tilt: float, candidates: int, branches: list[int]) -> None:
    X, y = binary_table(40, 4)
    trees = rashomon.depth_two_class(X, y)
    budget = error_budget(trees.best, 0.1, 40)
    found = sampled_shares(
        trees.splits, y, budget, branches, RNG(0), roots=3000, candidates=candidates, tilt=tilt
    )
    shares = np.exp(log_share(found, budget))
    error = shares.std() / math.sqrt(len(shares))
    assert abs(shares.mean() - trees.ratio(0.1)) < 4 * error
    assert error < 0.15 * trees.ratio(0.1)


def test_all_trees_are_in_the_set_when_theta_is_one() -> None:
    X, y = binary_table(30, 3)
    assert rashomon.rashomon_ratio(X, y, depth=4, theta=1.0).log10 == pytest.approx(0.0, abs=0.5)
    assert rashomon.structure_ratio(X, y, depth=4, theta=1.0, structures=5).log10 == pytest.approx(
        0.0, abs=1e-9
    )


def test_both_estimators_agree_and_grow_with_theta() -> None:
    problem = rashomon.load_problem("iris")
    sampling = rashomon.Sampling(passes=30, tilts=(0.0, 0.03))
    ratios = [
        rashomon.rashomon_ratio(problem.X, problem.y, depth=3, theta=theta, sampling=sampling)
        for theta in (0.05, 0.2, 0.5)
    ]
    plain = rashomon.structure_ratio(problem.X, problem.y, depth=3, theta=0.2, structures=4000)
    quotient = 10 ** (ratios[1].log10 - plain.log10)
    assert abs(quotient - 1) < 4 * math.hypot(ratios[1].standard_error * quotient, plain.standard_error)
    assert ratios[1].standard_error < 0.2
    assert ratios[0].log10 < ratios[1].log10 < ratios[2].log10 <= 0
    assert ratios[0].best == plain.best


def test_depth_zero_and_impossible_requests() -> None:
    X, y = binary_table(30, 3)
    y = np.arange(30) // 20  # 20 rows of the one class and 10 of the other
    found = rashomon.rashomon_ratio(X, y, depth=0, theta=0.0)
    assert found.best == 10
    assert found.log10 == pytest.approx(math.log10(0.5))  # one of two constants is the best
    with pytest.raises(UserError, match="theta = 2"):
        rashomon.rashomon_ratio(X, y, theta=2)
    with pytest.raises(UserError, match="more than"):
        rashomon.rashomon_ratio(X, y, sampling=rashomon.Sampling(branches=(9,) * 7))
    with pytest.raises(UserError, match="no column"):
        rashomon.all_splits(np.ones((5, 2)))


def test_splits_are_drawn_by_column_first() -> None:
    X = np.column_stack([np.arange(10.0), np.arange(10) % 2])
    splits = rashomon.all_splits(X)
    assert splits.weights.sum() == pytest.approx(1)
    drawn = np.bincount(splits.draw((20000,), RNG(0)), minlength=len(splits)) / 20000
    np.testing.assert_allclose(drawn, splits.weights, atol=4 * math.sqrt(0.25 / 20000))
    missing = rashomon.all_splits(np.array([[0.0], [1.0], [np.nan]]))
    assert missing.goes_right[:, 2].tolist() == [False]
    assert len(rashomon.quantile_splits(X, 3)) == 4


# ---- ridge regression ----


def problem_of_ridge(p: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(p)
    X = rng.standard_normal((50, p)) @ rng.standard_normal((p, p))
    return X, rng.standard_normal(50)


def test_the_ellipsoid_is_the_set() -> None:
    (X, y), theta, C = problem_of_ridge(), 2.0, 0.7
    best = ridge_fit(X, y, C)
    least = ridge_loss(X, y, best[None], C)[0]
    directions = RNG(0).standard_normal((200, 3))
    around = ridge_loss(X, y, best + 1e-3 * directions, C)
    assert (around > least).all()
    # Along a direction d the boundary is at sqrt(theta / d'(X'X + C)d).
    steps = np.sqrt(theta / np.einsum("ip,pq,iq->i", directions, X.T @ X + C * np.eye(3), directions))
    np.testing.assert_allclose(
        ridge_loss(X, y, best + steps[:, None] * directions, C), least + theta, rtol=1e-10
    )
    assert rashomon.log_rashomon_volume(X, 0.0) == -math.inf


@pytest.mark.parametrize("p", [1, 2, 4])
def test_volume_agrees_with_sampling_and_with_one_dimension(p: int) -> None:
    X, y = problem_of_ridge(p)
    closed = rashomon.log_rashomon_volume(X, 1.5, 0.5)
    assert rashomon.sampled_log_volume(X, y, 1.5, 300_000, RNG(0), 0.5) == pytest.approx(closed, abs=0.02)
    if p == 1:
        assert math.exp(closed) == pytest.approx(2 * math.sqrt(1.5 / (np.square(X).sum() + 0.5)))


def test_volume_is_invariant_to_rotation_and_scales_with_theta() -> None:
    X, _ = problem_of_ridge(4)
    rotation = np.linalg.qr(RNG(1).standard_normal((4, 4)))[0]
    closed = rashomon.log_rashomon_volume(X, 1.0)
    assert rashomon.log_rashomon_volume(X @ rotation, 1.0) == pytest.approx(closed)
    assert rashomon.log_rashomon_volume(X, 3.0) - closed == pytest.approx(2 * math.log(3))
    assert rashomon.log_rashomon_ratio(X, 1.0, 2.0) == pytest.approx(closed - math.log(math.pi**2 / 2 * 2**4))
    with pytest.raises(UserError, match="unbounded"):
        rashomon.log_rashomon_volume(np.ones((5, 2)), 1.0, 0.0)


# ---- the other theorem, the curve, problems, learners ----


def test_the_bracket_holds_and_reads_as_the_theorem() -> None:
    low, high = rashomon.simple_class_interval(0.1, 0.05, 100, 1000, eps=0.1)
    assert low == pytest.approx(0.1 - math.sqrt((math.log(100) + math.log(20)) / 2000))
    assert high == pytest.approx(0.15 + math.sqrt(math.log(10) / 2000))
    mistakes = RNG(0).random((3, 40)) < np.array([[0.2], [0.5], [0.9]])
    losses = least_training_losses(mistakes, 2000, 50, RNG(1))
    np.testing.assert_allclose(losses, mistakes.mean(axis=1).min(), atol=5 * math.sqrt(0.25 / 2000))


def test_the_corner_is_the_farthest_point_from_the_chord() -> None:
    x = np.array([0.0, -0.1, -0.2, -5.0, -10.0])  # the ratio falls late
    y = np.array([0.5, 0.3, 0.1, 0.05, 0.0])  # the risk falls early
    assert corner(x, y) == 2
    a, b = np.array([0.0, 0.5]), np.array([-10.0, 0.0])
    scale = np.array([10, 0.5])
    chord = (b - a) / scale
    for place in range(5):
        offset = (np.array([x[place], y[place]]) - a) / scale
        expected = abs(chord[0] * offset[1] - chord[1] * offset[0]) / np.hypot(*chord)
        assert distances(x, y)[place] == pytest.approx(expected)
    line = np.linspace(1, 0, 5)
    np.testing.assert_allclose(distances(line, line), 0, atol=1e-12)


def test_problems_are_what_their_names_say() -> None:
    clean, noisy = (rashomon.load_problem(name) for name in ("breast-cancer", "breast-cancer+noise0.2"))
    np.testing.assert_array_equal(clean.X, noisy.X)
    assert abs((clean.y != noisy.y).mean() - 0.2) < 4 * math.sqrt(0.16 / 569)
    assert noisy.parent == clean.parent == "breast-cancer"
    assert len(np.unique(rashomon.load_problem("diabetes+binned").X)) == 4
    assert rashomon.load_problem("wine+is1").y.sum() == 71
    assert rashomon.load_problem("digits-3-8").parent == "digits"
    xor = rashomon.load_problem("xor")
    assert (xor.y == (xor.X[:, 0] * xor.X[:, 1] > 0)).all()
    train, test = clean.halves(0.7, RNG(0))
    assert len(train.y) + len(test.y) == 569
    assert train.y.mean() == pytest.approx(clean.y.mean(), abs=0.005)
    for wrong in ("wien", "wine+noise", "wine+odd", "digits-3"):
        with pytest.raises(UserError):
            rashomon.load_problem(wrong)


def test_learners_reach_what_is_known_of_wine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "FOREST", 12)
    train, test = rashomon.load_problem("wine+is0").halves(0.6, RNG(0))
    found = rashomon.agreement(train, test)
    assert min(found.test.values()) > 0.85
    assert found.spread == max(found.test.values()) - min(found.test.values())
    assert found.lift > 0.2
