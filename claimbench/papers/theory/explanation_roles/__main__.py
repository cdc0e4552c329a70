"""Do retrieved explanations help on your data? `python -m claimbench.papers.theory.explanation_roles
TABLE#target=LABEL`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from claimbench.errors import mistakes_in_one_line
from claimbench.papers.theory.explanation_roles.natural import (
    ARMS,
    EACH,
    FOLDS,
    ROWS,
    compare,
    difference,
    embed,
)
from claimbench.papers.theory.explanation_roles.tables import EXPLANATION, TEXT, told_of
from claimbench.subjects import open_subject, resolve_subject

ENCODER = "all-minilm-l6-v2"


def explain(
    table: Annotated[
        str,
        typer.Argument(help="CSV or Parquet with texts, labels and explanations; #target=NAME: the label"),
    ],
    text: Annotated[
        str, typer.Option(help="the column of texts; several by commas are read one after the other")
    ] = TEXT,
    explanation: Annotated[str, typer.Option(help="the column of explanations")] = EXPLANATION,
    encoder: Annotated[str, typer.Option(help="sentence encoder: a name, path or hub id")] = ENCODER,
    explanation_encoder: Annotated[str, typer.Option(help="another one for explanations")] = "",
    relevance: Annotated[
        str, typer.Option(help="file.py:function from (texts, explanations) to similarities, yours")
    ] = "",
    by: Annotated[
        str, typer.Option(help="explanation, or text: what a query is compared with")
    ] = "explanation",
    each: Annotated[int, typer.Option(help="explanations that are read for a query")] = EACH,
    reader: Annotated[str, typer.Option(help="logistic or mlp")] = "logistic",
    folds: Annotated[int, typer.Option(help="of the cross-validation")] = FOLDS,
    rows: Annotated[int, typer.Option(help="of a larger table so many are drawn")] = ROWS,
    seed: Annotated[int, typer.Option(help="of all that is random")] = 0,
) -> None:
    """Accuracy with retrieved explanations and without, with an interval, beside controls."""
    opened = open_subject(resolve_subject("table", table))
    told = told_of(opened, text=text, explanation=explanation, rows=rows, seed=seed)
    kind = "sentence-encoder"
    embedded = embed(
        told.texts,
        told.labels,
        told.explanations,
        open_subject(resolve_subject(kind, encoder)),
        explanation_encoder=open_subject(resolve_subject(kind, explanation_encoder))
        if explanation_encoder
        else None,
        relevance=open_subject(resolve_subject("callable", relevance)) if relevance else None,
    )
    found = compare(embedded, each=each, folds=folds, reader=reader, by=by, seed=seed)
    print(
        f"{len(told)} rows, {len(set(told.labels))} classes, {int(embedded.explained.sum())} explanations; "
        f"{each} are read; {reader}, {folds} folds"
    )
    print(f"{'arm':<24} {'accuracy':>8}  over no explanation")
    for arm in ARMS:
        line = f"{arm:<24} {found[arm].accuracy:>8.3f}"
        if arm != "no-explanation":
            gain = difference(found[arm], found["no-explanation"], embedded.groups)
            line += f"  {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        print(line)


def main() -> None:
    """Exit code 2 and one line for the user's mistakes."""
    with mistakes_in_one_line():
        typer.run(explain)


if __name__ == "__main__":
    main()
