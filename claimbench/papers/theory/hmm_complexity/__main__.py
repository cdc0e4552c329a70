"""`python -m claimbench.papers.theory.hmm_complexity FEATURES.npy --samples 150`: the risk of a head by its width."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from claimbench.errors import UserError, mistakes_in_one_line
from claimbench.papers.theory.hmm_complexity.curve import DRAWS, risk_curve
from claimbench.papers.theory.hmm_complexity.problem import Task


def matrix(path: str) -> np.ndarray:
    """An .npy file's array, or a numeric CSV's without its header. Raises UserError for others."""
    try:
        if Path(path).suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return np.genfromtxt(path, delimiter=",", skip_header=1, dtype=float, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; give an .npy file or a numeric CSV with a header") from None


def curve(
    features: Annotated[
        str, typer.Argument(help="Frozen features, one independent example a row: .npy or CSV.")
    ],
    samples: Annotated[
        int, typer.Option(help="Examples that a head is fitted on; the other rows judge it.")
    ] = 150,
    sizes: Annotated[
        str, typer.Option(help="Numbers of dimensions: 10,75,150. Default: by ratios to samples.")
    ] = "",
    head: Annotated[
        str, typer.Option(help="least-squares, ridge, early-stopping, components, null.")
    ] = "least-squares",
    how: Annotated[
        str, typer.Option(help="Dimensions are random combinations or leading components.")
    ] = "random",
    targets: Annotated[
        str, typer.Option(help="Your own targets, .npy or CSV; else a synthetic linear task.")
    ] = "",
    signal: Annotated[float, typer.Option(help="Squared norm of the synthetic task's truth.")] = Task.signal,
    noise: Annotated[float, typer.Option(help="Trace of its noise covariance.")] = Task.noise,
    draws: Annotated[int, typer.Option(help="Medians are over so many draws.")] = DRAWS,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
) -> None:
    """Risk of a head on p dimensions of frozen features, what theory predicts, and the null predictor's risk."""
    try:
        wanted = [int(part) for part in sizes.split(",")] if sizes else None
    except ValueError:
        raise UserError(f'--sizes "{sizes}": whole numbers with commas, such as 10,75,150') from None
    found = risk_curve(
        matrix(features),
        samples=samples,
        sizes=wanted,
        head=head,
        how=how,
        targets=matrix(targets) if targets else None,
        task=Task(signal=signal, noise=noise),
        draws=draws,
        seed=seed,
    )
    print(f"{'p':>6} {'p/n':>6} {'risk':>10} {'theory':>10} {'null':>10}")
    for row in found:
        numbers = " ".join(f"{value:>10.4g}" for value in (row.risk, row.predicted, row.null))
        print(f"{row.features:>6} {row.features / samples:>6.2f} {numbers}")
    if not targets and head != "least-squares":
        print("theory is of the least-squares head of least norm")


def main() -> None:
    """Exit code 2 and one line for the user's mistakes."""
    with mistakes_in_one_line():
        typer.run(curve)


if __name__ == "__main__":
    main()
