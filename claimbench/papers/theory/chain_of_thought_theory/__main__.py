"""Problems with their derivations as JSON lines, and whether given derivations are right:

python -m claimbench.papers.theory.chain_of_thought_theory arithmetic --operators 4 --count 1000 --out data.jsonl
python -m claimbench.papers.theory.chain_of_thought_theory own coins.py --count 1000
python -m claimbench.papers.theory.chain_of_thought_theory check data.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import typer

from claimbench.errors import UserError, mistakes_in_one_line, nearest
from claimbench.papers.theory.chain_of_thought_theory import lengths
from claimbench.papers.theory.chain_of_thought_theory.checking import (
    CHECKS,
    Checked,
    check_arithmetic,
    check_equations,
)
from claimbench.papers.theory.chain_of_thought_theory.derivations import Derivations, corrupted
from claimbench.papers.theory.chain_of_thought_theory.recurrence import Recurrence, own_derivations
from claimbench.papers.theory.chain_of_thought_theory.tasks import different, drawing

KINDS = ("derivation", "direct", "filler")

app = typer.Typer(add_completion=False, help=__doc__)

Count = Annotated[int, typer.Option(help="problems, no two alike")]
Seed = Annotated[int, typer.Option(help="of all that is random")]
Out = Annotated[str, typer.Option(help="a file; default: what is printed")]
Kind = Annotated[str, typer.Option(help="derivation, direct (left out) or filler (replaced by dots)")]
Noise = Annotated[float, typer.Option(help="share of the derivations' numbers to be made wrong")]
Prime = Annotated[int, typer.Option(help="numbers are taken modulo this")]


@app.command()
def arithmetic(
    operators: Annotated[int, typer.Option(help="in each expression")] = 4,
    count: Count = 1000,
    prime: Prime = 11,
    kind: Kind = "derivation",
    noise: Noise = 0.0,
    seed: Seed = 0,
    out: Out = "",
) -> None:
    """Expressions over a prime field, reduced step by step."""
    _write("arithmetic", operators, count, seed, out, kind, noise, prime=prime)


@app.command()
def equations(
    unknowns: Annotated[int, typer.Option(help="and as many equations")] = 3,
    count: Count = 1000,
    prime: Prime = 11,
    kind: Kind = "derivation",
    noise: Noise = 0.0,
    seed: Seed = 0,
    out: Out = "",
) -> None:
    """Linear equations over a prime field, eliminated step by step."""
    _write("equations", unknowns, count, seed, out, kind, noise, prime=prime)


@app.command()
def subsequences(
    length: Annotated[int, typer.Option(help="of each sequence")] = 50,
    count: Count = 1000,
    number_range: Annotated[int, typer.Option(help="numbers lie below this")] = 250,
    kind: Kind = "derivation",
    noise: Noise = 0.0,
    seed: Seed = 0,
    out: Out = "",
) -> None:
    """Longest increasing subsequences with the table of a dynamic programme."""
    _write("subsequences", length, count, seed, out, kind, noise, number_range=number_range)


@app.command()
def edits(
    length: Annotated[int, typer.Option(help="of the first string; the other's is near it")] = 12,
    count: Count = 1000,
    letters: Annotated[int, typer.Option(help="each pair uses 3 up to 2 more than this")] = 8,
    kind: Kind = "derivation",
    noise: Noise = 0.0,
    seed: Seed = 0,
    out: Out = "",
) -> None:
    """Edit distances with the table of a dynamic programme."""
    _write("edits", length, count, seed, out, kind, noise, letters=letters)


@app.command()
def own(
    file: Annotated[
        str,
        typer.Argument(help="FILE.py or FILE.py:NAME; NAME is a Recurrence, or a function of a generator"),
    ],
    count: Annotated[int, typer.Option(help="problems")] = 1000,
    kind: Kind = "derivation",
    seed: Seed = 0,
    out: Out = "",
) -> None:
    """A dynamic programme, or any problem with steps, of your own. Without NAME: `recurrence`.

    A file holds, say: recurrence = Recurrence(draw=..., cells=..., value=..., answer=...), imported from
    claimbench.papers.theory.chain_of_thought_theory.
    """
    from claimbench.subjects import open_subject, resolve_subject

    name = file if ".py:" in file or not file.endswith(".py") else f"{file}:recurrence"
    problem = open_subject(resolve_subject("callable", name))
    generator = np.random.default_rng(seed)
    given = own_derivations(problem, _positive(count), generator)
    _print(_of_kind(given, kind), out)
    told = f"{len(given)} problems of up to {given.length.max()} tokens, {len(given.words)} words"
    if isinstance(problem, Recurrence):
        most = max(problem.lookups(generator) for _ in range(20))
        told += f"; a cell reads up to {most} others (the theory needs a number that does not grow)"
    print(told, file=sys.stderr)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="JSON lines with text, or prompt, derivation and answer")],
    task: Annotated[str, typer.Option(help="arithmetic, equations, subsequences or edits")] = "arithmetic",
    prime: Prime = 11,
) -> None:
    """How many derivations are right in every step, how many answers are, and where the first mistakes are."""
    if task not in CHECKS:
        raise UserError(f'--task: no task "{task}"{nearest(task, CHECKS)}')
    found = [_judged(text, task, prime) for text in _texts(file)]
    if not found:
        raise UserError(f"{file}: holds no derivation")
    right, answers = (np.mean([getattr(one, part) for one in found]) for part in ("right", "answer"))
    print(f"{len(found)} derivations: {right:.2%} right in every step, {answers:.2%} right in the answer")
    wrong = [one.wrong / max(one.steps, 1) for one in found if one.wrong is not None]
    if wrong:
        print(f"{len(wrong)} have a wrong step; the first is at {np.mean(wrong):.0%} of the steps on average")


@app.command()
def cost(
    task: Annotated[str, typer.Argument(help="arithmetic, equations, subsequences or edits")],
    sizes: Annotated[str, typer.Option(help="with commas")] = "4,8,16,32,64",
    layers: Annotated[int, typer.Option(help="of the model")] = 3,
    width: Annotated[int, typer.Option(help="of the model")] = 256,
) -> None:
    """Most tokens with and without derivation, and the cache of keys and values in 16 bits."""
    if task not in lengths.TASKS:
        raise UserError(f'no task "{task}"{nearest(task, lengths.TASKS)}')
    parts = [part.strip() for part in sizes.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f"--sizes {sizes}: give whole numbers with commas, such as 4,8,16")
    print("    n  tokens  directly   times     cache/MiB")
    for n in map(int, parts):
        tokens, direct = lengths.longest(task, n), lengths.longest_direct(task, n)
        cache = lengths.cache_bytes(tokens, layers=layers, width=width) / 2**20
        print(f"{n:5}  {tokens:6}  {direct:8}  {tokens / direct:6.1f}  {cache:12.2f}")


def _write(
    task: str, n: int, count: int, seed: int, out: str, kind: str, noise: float, **options: int
) -> None:
    generator = np.random.default_rng(seed)
    given = different(drawing(task, n, **options), _positive(count), generator)
    if noise:
        given = corrupted(given, noise, generator, given.words.index("0"))
    _print(_of_kind(given, kind), out)


def _positive(count: int) -> int:
    if count < 1:
        raise UserError(f"--count {count}: at least 1")
    return count


def _of_kind(given: Derivations, kind: str) -> Derivations:
    if kind not in KINDS:
        raise UserError(f'--kind: no kind "{kind}"{nearest(kind, KINDS)}')
    return given if kind == "derivation" else given.direct() if kind == "direct" else given.filler()


def _print(given: Derivations, out: str) -> None:
    with _opened(out) as file:
        file.writelines(json.dumps(record) + "\n" for record in given.records())


@contextmanager
def _opened(out: str) -> Iterator[TextIO]:
    if not out:
        yield sys.stdout
        return
    try:
        with open(out, "w") as file:
            yield file
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None


def _texts(file: Path) -> Iterator[str]:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if "text" in record:
                yield str(record["text"])
            else:
                parts = (record["prompt"], record.get("derivation", ""), record["answer"])
                yield " ".join(str(part) for part in parts if part)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{file}:{number}: no JSON with text, or with prompt and answer") from None


def _judged(text: str, task: str, prime: int) -> Checked:
    try:
        match task:
            case "arithmetic":
                return check_arithmetic(text, prime)
            case "equations":
                return check_equations(text, prime)
            case _:
                return CHECKS[task](text)
    except ValueError:
        return Checked(1, 0, False)  # what cannot be read is not right


def main() -> None:
    """Exit code 2 and one line for the user's mistakes."""
    with mistakes_in_one_line():
        app()


if __name__ == "__main__":
    main()
