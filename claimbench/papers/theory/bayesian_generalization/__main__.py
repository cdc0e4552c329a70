"""`python -m claimbench.papers.theory.bayesian_generalization IMAGES`: describe the concepts of images of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from claimbench.errors import mistakes_in_one_line
from claimbench.papers.theory.bayesian_generalization.describe import STAY, THRESHOLD, describe_concepts
from claimbench.papers.theory.bayesian_generalization.setup import opened_encoder
from claimbench.subjects import open_subject, resolve_subject


def describe(
    images: Annotated[str, typer.Argument(help="`digits`, a folder of class folders, or an .npz file.")],
    encoder: Annotated[
        str,
        typer.Option(help="file.py:function that returns (features, head); without it a network is trained."),
    ] = "",
    ordering: Annotated[str, typer.Option(help="roa, likelihood, posterior, weight-activation, ...")] = "roa",
    threshold: Annotated[float, typer.Option(help="Share of the unmasked accuracy to reach.")] = THRESHOLD,
    stay: Annotated[int, typer.Option(help="For how many further attributes it must stay reached.")] = STAY,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Each class, the fewest attributes first: how many recognise it, its accuracy, entropies and first channels."""
    found = open_subject(resolve_subject("images", images))
    features, head = (
        (None, None) if not encoder else opened_encoder(resolve_subject("callable", encoder), device)
    )
    concepts = describe_concepts(
        features,
        head,
        found.pixels,
        found.labels,
        names=found.classes,
        ordering=ordering,
        threshold=threshold,
        stay=stay,
        device=device,
    )
    print(
        f"{'concept':<20} {'attributes':>10} {'accuracy':>8} {'P(.|c) bits':>11} {'visual bits':>11}  channels"
    )
    for concept in concepts:
        first = ", ".join(map(str, concept.attributes[:6])) + (", ..." if concept.complexity > 6 else "")
        print(
            f"{concept.name:<20.20} {concept.complexity:>10} {concept.accuracy:>8.3f} "
            f"{concept.entropy:>11.2f} {concept.visual:>11.2f}  {first}"
        )


def main() -> None:
    """Exit code 2 and one line for the user's mistakes."""
    with mistakes_in_one_line():
        typer.run(describe)


if __name__ == "__main__":
    main()
