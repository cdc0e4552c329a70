"""Bits that a table or images demand: `python -m claimbench.papers.theory.inductive_bias TABLE_OR_IMAGES`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from claimbench.errors import UserError, mistakes_in_one_line
from claimbench.papers.theory.inductive_bias.demand import demand_of, errors_of
from claimbench.papers.theory.inductive_bias.kernel_space import FAMILIES, NUGGET
from claimbench.papers.theory.inductive_bias.learners import SETTINGS, Shape, tuned_predictions
from claimbench.papers.theory.inductive_bias.problems import (
    Problem,
    image_arrays,
    split_problem,
    table_arrays,
)


def open_problem(data: str, rows: int, tests: int, seed: int) -> tuple[Problem, Shape | None]:
    """A split of a table, or of images (a folder, .npz, .safetensors, or `digits`) with the shape of a row."""
    from claimbench.subjects import open_subject, resolve_subject
    from claimbench.subjects.images import ARRAYS

    place = data.partition("#")[0]
    pictures = place == "digits" or place.endswith((*ARRAYS, "/")) or "#size=" in data
    opened = open_subject(resolve_subject("images" if pictures else "table", data))
    arrays = image_arrays(opened) if pictures else table_arrays(opened)
    problem = split_problem(*arrays, rows, tests, np.random.default_rng(seed))
    return problem, tuple(opened.pixels.shape[1:]) if pictures else None


def main(
    data: Annotated[
        str, typer.Argument(help="CSV or Parquet (#target=NAME chooses the target), images/, .npz, or a name")
    ],
    families: Annotated[str, typer.Option(help="model families, by commas")] = ",".join(FAMILIES),
    width: Annotated[float, typer.Option(help="of the kernels; 0: median distance of training rows")] = 0.0,
    nugget: Annotated[
        float, typer.Option(help="noise variance of a function's own, for targets with noise")
    ] = NUGGET,
    errors: Annotated[str, typer.Option(help="further mean squared errors to price, by commas")] = "",
    model: Annotated[
        str, typer.Option(help="file.py:function from (X, Y, X_test) to predictions, to price as well")
    ] = "",
    rows: Annotated[int, typer.Option(help="training rows")] = 300,
    tests: Annotated[int, typer.Option(help="test rows")] = 200,
    learners: Annotated[bool, typer.Option(help="tune learners and price what they reach")] = True,
    seed: Annotated[int, typer.Option(help="of the split and of all that is random")] = 0,
) -> None:
    """Bits that each family needs for the error of each learner: what the learner knows that the family does not."""
    from claimbench.subjects import open_subject, resolve_subject

    problem, shape = open_problem(data, rows, tests, seed)
    try:
        wanted = {f"error {float(text):g}": float(text) for text in errors.split(",") if text.strip()}
    except ValueError:
        raise UserError(f'--errors "{errors}": write numbers by commas, such as 0.05,0.02') from None
    predictions = {"mean target": np.broadcast_to(problem.Y.mean(0), problem.Y_test.shape)}
    for learner in SETTINGS if learners else ():
        if shape is not None or learner != "conv-net":
            predictions[learner] = tuned_predictions(learner, problem, seed=seed, shape=shape)
    if model:
        function = open_subject(resolve_subject("callable", model))
        predictions["your model"] = function(problem.X, problem.Y, problem.X_test)
    wanted |= errors_of(predictions, problem)
    demands = [
        demand_of(problem, name.strip(), width if width > 0 else None, nugget) for name in families.split(",")
    ]
    print(
        f"{len(problem.X)} training and {len(problem.X_test)} test rows, {problem.X.shape[1]} columns, "
        f"{problem.Y.shape[1]} outputs; width {demands[0].width:.3g}"
    )
    print(f"{'':<20} {'test error':>10}" + "".join(f" {demand.family + ' bits':>18}" for demand in demands))
    means = "".join(f" {f'error {demand.mean_error:.4f}':>18}" for demand in demands)
    print(f"{'random function':<20} {'':>10}{means}")
    for name, error in sorted(wanted.items(), key=lambda item: -item[1]):
        print(f"{name:<20} {error:>10.4f}" + "".join(f" {demand.bits(error):>18.1f}" for demand in demands))


if __name__ == "__main__":
    with mistakes_in_one_line():
        typer.run(main)
