"""Generate hard satisfiability problems in English, or measure how hard given ones are:

python -m claimbench.papers.theory.nl_satisfiability generate --n 8 --count 100 > hard.jsonl
python -m claimbench.papers.theory.nl_satisfiability hardness hard.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from claimbench.errors import UserError, mistakes_in_one_line, nearest
from claimbench.papers.theory.nl_satisfiability.formulas import clauses_of
from claimbench.papers.theory.nl_satisfiability.fragments import GroundedRules, RelativeClauses, SentenceRules
from claimbench.papers.theory.nl_satisfiability.hardness import hardness as hardness_of
from claimbench.papers.theory.nl_satisfiability.samples import hard_sample
from claimbench.papers.theory.nl_satisfiability.solvers import effort

FRAGMENTS = ("grounded", "sentences", "relative", "dimacs")

app = typer.Typer(add_completion=False, help=__doc__)


def _known(fragment: str, without: str = "") -> str:
    possible = [name for name in FRAGMENTS if name != without]
    if fragment not in possible:
        raise UserError(f'--fragment: no fragment "{fragment}"{nearest(fragment, possible)}')
    return fragment


@app.command()
def generate(
    n: Annotated[int, typer.Option(help="variables, 3 to 14; more with --clauses")] = 8,
    count: Annotated[int, typer.Option(help="problems, half of them satisfiable")] = 100,
    clauses: Annotated[
        str, typer.Option(help="how many, such as 36-46; default: around the half-way point")
    ] = "",
    fragment: Annotated[str, typer.Option(help="grounded, sentences or dimacs")] = "grounded",
    seed: Annotated[int, typer.Option(help="of all that is random")] = 0,
) -> None:
    """Hard problems as JSON lines: text, label, n, m and effort. Labels are balanced for each number of clauses."""
    _known(fragment, "relative")
    window = None
    if clauses:
        low, _, high = clauses.partition("-")
        if not low.isdigit() or not (high or low).isdigit():
            raise UserError(f"--clauses {clauses}: give a range such as 36-46")
        window = list(range(int(low), int(high or low) + 1))
    elif n > 14:
        raise UserError(
            f"--n {n}: the half-way point is measured up to 14 variables; give --clauses, about 4.27 n"
        )
    sample = hard_sample(n, count, np.random.default_rng(seed), window)
    for formula, label in zip(sample.formulas, sample.labels.tolist(), strict=True):
        problem = clauses_of(formula)
        found = {"text": _text(problem, n, fragment), "label": label, "n": n, "m": len(problem)}
        print(json.dumps({**found, "effort": effort(problem, n)}))


def _text(problem: list[list[int]], n: int, fragment: str) -> str:
    if fragment == "dimacs":
        return "\n".join(
            [f"p cnf {n} {len(problem)}", *(" ".join(map(str, [*clause, 0])) for clause in problem)]
        )
    return (GroundedRules() if fragment == "grounded" else SentenceRules()).write(problem)


@app.command()
def hardness(
    file: Annotated[
        Path, typer.Argument(help="theories: a line each, JSON lines with text or context, or a DIMACS file")
    ],
    fragment: Annotated[str, typer.Option(help="grounded, sentences, relative or dimacs")] = "grounded",
    words: Annotated[str, typer.Option(help="your own words for variables, with commas (grounded)")] = "",
    count: Annotated[int, typer.Option(help="random problems to compare with")] = 100,
    seed: Annotated[int, typer.Option(help="of these")] = 0,
) -> None:
    """Each problem's label, size, effort and rank among the hardest random ones of its size."""
    problems = [_read(text, _known(fragment), words) for text in _texts(file)]
    if not problems:
        raise UserError(f"{file}: holds no theory")
    print("label  variables  clauses  alpha  effort    rank")
    found = hardness_of(problems, count=count, seed=seed)
    for one in found:
        label = "sat" if one.satisfiable else "unsat"
        print(
            f"{label:5}  {one.variables:9}  {one.clauses:7}  {one.alpha:5.2f}  {one.effort:6.0f}  {one.rank:6.2f}"
        )
    share, rank = np.mean([[one.satisfiable, one.rank] for one in found], axis=0)
    print(f"{len(found)} problems, {share:.0%} satisfiable, mean rank {rank:.2f}")
    print("rank 0.5: as hard as random problems at the half-way point")


def _texts(file: Path) -> list[str]:
    try:
        content = file.read_text()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    if any(line.startswith("p cnf") for line in content.splitlines()):
        return [content]
    texts = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        if line.lstrip().startswith("{"):
            try:
                record = json.loads(line)
                texts.append(str(record["text"] if "text" in record else record["context"]))
            except (ValueError, KeyError):
                raise UserError(f"{file}:{number}: no JSON with text or context") from None
        else:
            texts.append(line.strip())
    return texts


def _read(text: str, fragment: str, words: str) -> list[list[int]]:
    if fragment == "dimacs" or text.startswith(("p cnf", "c ")):
        try:
            numbers = [
                int(part)
                for line in text.splitlines()
                if not line.startswith(("c", "p", "%"))
                for part in line.split()
            ]
        except ValueError as error:
            raise UserError(f"DIMACS: {error}") from None
        clauses: list[list[int]] = [[]]
        for number in numbers:
            if number:
                clauses[-1].append(number)
            else:
                clauses.append([])
        return [clause for clause in clauses if clause]
    if fragment == "relative":
        language = RelativeClauses()
        theory = language.read(text)
        return theory.expand(len(language.trades), max((who for who, _ in theory.facts), default=1))
    if fragment == "sentences":
        return SentenceRules().read(text)
    own = tuple(word.strip() for word in words.split(",") if word.strip())
    return (GroundedRules(own) if own else GroundedRules()).read(text)


def main() -> None:
    """Exit code 2 and one line for the user's mistakes."""
    with mistakes_in_one_line():
        app()


if __name__ == "__main__":
    main()
