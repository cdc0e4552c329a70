"""Rashomon ratio and set of a table: `python -m claimbench.papers.theory.rashomon TABLE [--depth 7] [--theta 0.05]`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from claimbench.errors import UserError, mistakes_in_one_line
from claimbench.papers.theory.rashomon.depth_two import depth_two_class, describe, sub_class_size
from claimbench.papers.theory.rashomon.learners import agreement
from claimbench.papers.theory.rashomon.problems import MOST_ROWS, Problem, load_problem, problem_of
from claimbench.papers.theory.rashomon.splits import all_splits
from claimbench.papers.theory.rashomon.volume import Sampling, rashomon_ratio


def _problem(table: str, seed: int) -> Problem:
    """A subject (name, path or address), else a problem by name such as `digits-3-8`."""
    from claimbench.subjects import open_subject, resolve_subject

    try:
        found = load_problem(table, seed)
    except UserError:
        found = problem_of(open_subject(resolve_subject("table", table)))
    rows = np.random.default_rng(seed).permutation(len(found.y))[:MOST_ROWS]
    return found.take(np.sort(rows))


def ratio(
    table: Annotated[
        str, typer.Argument(help="CSV or Parquet (#target=NAME chooses the class), or a name such as wine")
    ],
    depth: Annotated[int, typer.Option(help="of the trees whose ratio is estimated")] = 7,
    theta: Annotated[float, typer.Option(help="slack in accuracy, 0 to 1")] = 0.05,
    passes: Annotated[int, typer.Option(help="of the estimator; more are surer")] = 8,
    thresholds: Annotated[int, typer.Option(help="quantiles a column at depth 2")] = 4,
    most: Annotated[int, typer.Option(help="trees of the set to print")] = 10,
    seed: Annotated[int, typer.Option(help="of all that is random")] = 0,
    learners: Annotated[bool, typer.Option(help="also tune five learners and compare them")] = True,
) -> None:
    """The share of trees almost as good as the best, what it promises, and the best simple ones."""
    problem = _problem(table, seed)
    rows = len(problem.y)
    print(f"{rows} rows, {problem.X.shape[1]} columns, {len(problem.classes)} classes")
    found = rashomon_ratio(
        problem.X,
        problem.y,
        depth=depth,
        theta=theta,
        sampling=Sampling(passes=passes),
        seed=seed,
        splits=all_splits(problem.X),
    )
    told = f"10^{found.log10:.1f}" if np.isfinite(found.log10) else "smaller than sampling can tell"
    print(
        f"trees of depth {depth}: ratio {told}; best known {found.best / rows:.3f} error, "
        f"in the set up to {found.budget / rows:.3f}; {found.support:.0%} of passes met the set"
    )
    trees = depth_two_class(problem.X, problem.y, thresholds)
    share = trees.ratio(theta)
    print(
        f"trees of depth 2 on {len(trees.splits)} splits: {trees.members(theta):,} of {len(trees):,} "
        f"are in the set, ratio {share:.3g}; {sub_class_size(share, 0.1):,} random ones hold one with 90 %"
    )
    for tree, errors in zip(*trees.rashomon_set(theta, most), strict=True):
        print(f"  {errors / rows:.3f}  {describe(tree, trees.splits, problem.names, problem.classes)}")
    if learners:
        ended = agreement(*problem.halves(0.7, np.random.default_rng(seed)), seed)
        print(
            f"five learners: spread {ended.spread:.3f}, gap {ended.gap:.3f}, {ended.lift:+.3f} over the majority"
        )
        for name, accuracy in ended.test.items():
            print(f"  {accuracy:.3f}  {name}")


def main() -> None:
    """Exit code 2 and one line for the user's mistakes."""
    with mistakes_in_one_line():
        typer.run(ratio)


if __name__ == "__main__":
    main()
