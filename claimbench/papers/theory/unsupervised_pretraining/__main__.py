"""Is pretraining worth it here? `python -m claimbench.papers.theory.unsupervised_pretraining TABLE [--encoder ...]`."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float

from claimbench.errors import UserError, mistakes_in_one_line
from claimbench.papers.theory.unsupervised_pretraining.classifiers import LEARNERS
from claimbench.papers.theory.unsupervised_pretraining.rows import (
    checked_features,
    raw_columns,
    targets,
    texts_of,
    words,
)
from claimbench.papers.theory.unsupervised_pretraining.two_stage import BUDGETS, compare, fit_factors


def open_features(
    table: Any, encoder: str, features: str, text: str, sentence_encoder: str
) -> tuple[Float[np.ndarray, "rows features"], Float[np.ndarray, "rows columns"], str]:
    """Frozen features, raw inputs, and where the features come from."""
    from claimbench.subjects import open_subject, resolve_subject

    if sum(map(bool, (encoder, features, text))) > 1:
        raise UserError("--encoder, --features, --text: give one of them")
    if text:
        texts = texts_of(table, text)
        model = open_subject(resolve_subject("sentence-encoder", sentence_encoder))
        return np.asarray(model.encode(texts), dtype=np.float64), words(texts), sentence_encoder
    raw = raw_columns(table)
    if features:
        found = checked_features(table.matrix(features), len(raw))
        others = [name for name in table.numeric_names if not name.startswith(features)]
        rest = [table[name][:, None] for name in others]
        return found, np.nan_to_num(np.column_stack(rest)) if rest else found, f"columns {features}..."
    if encoder:
        function = open_subject(resolve_subject("callable", encoder))
        return checked_features(function(raw), len(raw)), raw, encoder.rpartition("/")[2]
    return fit_factors(raw)(raw), raw, "factors of the unlabelled rows"


def main(
    table: Annotated[str, typer.Argument(help="CSV or Parquet (#target=NAME chooses the target), or a name")],
    encoder: Annotated[
        str, typer.Option(help="file.py:function from rows to features; without it factors are fitted")
    ] = "",
    features: Annotated[str, typer.Option(help="prefix of the columns that hold frozen features")] = "",
    text: Annotated[
        str, typer.Option(help="a column of texts, which a sentence encoder turns to features")
    ] = "",
    sentence_encoder: Annotated[str, typer.Option(help="its name, path or hub id")] = "all-minilm-l6-v2",
    baseline: Annotated[
        str,
        typer.Option(help="file.py:function from (X, y, X_test) to predictions: your own end-to-end learner"),
    ] = "",
    budgets: Annotated[str, typer.Option(help="numbers of labels, by commas")] = ",".join(map(str, BUDGETS)),
    repeats: Annotated[int, typer.Option(help="draws of labelled and test rows")] = 5,
    learners: Annotated[str, typer.Option(help="baselines, by commas")] = ",".join(LEARNERS),
    seed: Annotated[int, typer.Option(help="of all that is random")] = 0,
) -> None:
    """Test risk with frozen features and without, by the number of labels, and the ratio."""
    from claimbench.subjects import open_subject, resolve_subject

    opened = open_subject(resolve_subject("table", table))
    y, task = targets(opened)
    frozen, raw, source = open_features(opened, encoder, features, text, sentence_encoder)
    try:
        numbers = [int(number) for number in budgets.split(",")]
    except ValueError:
        raise UserError(f'--budgets "{budgets}": write whole numbers by commas, such as 20,100') from None
    found = compare(
        frozen,
        raw,
        y,
        task=task,
        budgets=numbers,
        repeats=repeats,
        learners=[name.strip() for name in learners.split(",")],
        own=open_subject(resolve_subject("callable", baseline)) if baseline else None,
        seed=seed,
    )
    risk = "error rate" if task == "classification" else "squared error over variance"
    print(f"{len(y)} rows, {raw.shape[1]} raw columns, {frozen.shape[1]} features: {source}; {risk}")
    print(f"{'labels':<16}" + "".join(f"{number:>9}" for number in numbers))
    for curve in (found.two_stage, *found.supervised):
        print(f"{curve.name:<16}" + "".join(f"{value:>9.3f}" for value in curve.mean))
    print(f"{'best / two-stage':<16}" + "".join(f"{value:>9.2f}" for value in found.advantage))


if __name__ == "__main__":
    with mistakes_in_one_line():
        typer.run(main)
