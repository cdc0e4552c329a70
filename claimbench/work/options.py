"""Options that several commands share, and how all of them print JSON, find the shelf and ask about foreign code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimbench import flags

if TYPE_CHECKING:
    from claimbench.session import Outcome
    from claimbench.shelf import Shelf

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Shelves = Annotated[
    list[Path] | None,
    typer.Option(
        "--shelf", metavar="DIR", help="A further folder of papers (repeatable; also CLAIMBENCH_SHELF)."
    ),
]
LedgerAt = Annotated[
    str | None, typer.Option("--ledger", metavar="URL", help="A path or a database URL (default: your own).")
]
Targets = Annotated[list[str] | None, typer.Argument(metavar="PAPER[/CLAIM]...", show_default=False)]
Jobs = Annotated[int | None, typer.Option(help="Trials at once (default: one a core).")]
Trust = Annotated[bool, typer.Option("--trust", help="Trust the code of added shelves without asking.")]

# what is planned: `run` and `plan` take the same
Group = Annotated[str | None, typer.Option(help="Every paper of this group.")]
Everything = Annotated[bool, typer.Option("--all", help="Every paper on the shelf.")]
Scale = Annotated[str, typer.Option(help="smoke, quick, full or paper.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Sizes = Annotated[list[str] | None, typer.Option(metavar="K=V", help="A size of your own (own setting).")]
At = Annotated[
    list[str] | None, typer.Option(metavar="K=V[,V]", help="Only these values of a swept variable.")
]
Arms = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these arms (repeatable).")]
Subjects = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Replace a subject by name, path or hub id."),
]
Model = Annotated[
    str | None, typer.Option(help="Your model, for every claim that takes one; others are skipped.")
]
Data = Annotated[
    str | None, typer.Option(help="Your data, for every claim that takes some; others are skipped.")
]
TimeLimit = Annotated[str | None, typer.Option(metavar="TIME", help="Limit a trial: 90, 90s, 5m, 1h.")]
MemoryLimit = Annotated[str | None, typer.Option(metavar="SIZE", help="Limit a trial: 4GiB, 500MB.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="A replication on new seeds, shown beside the first.")]
UntilDecided = Annotated[bool, typer.Option("--until-decided", help="Go on to the planned later looks.")]
Development = Annotated[bool, typer.Option("--development", help="Seeds below 1000: never published.")]


def planning(
    *,
    size: list[str] | None,
    at: list[str] | None,
    subject: list[str] | None,
    time_limit: str | None,
    memory_limit: str | None,
    shelf: list[Path] | None,
    **others: Any,
) -> dict[str, Any]:
    """The words of the command line as `claimbench.bench.plan` takes them."""
    return {
        **others,
        "sizes": dict(flags.pairs("--size", size)),
        "at": {k: v.split(",") for k, v in flags.pairs("--at", at)},
        "subjects": dict(flags.pairs("--subject", subject)),
        "time_limit": flags.seconds(time_limit),
        "memory_limit": flags.size(memory_limit),
        "shelf": find_shelf(shelf),
    }


def find_shelf(extra: list[Path] | None) -> Shelf:
    from claimbench.shelf import Shelf

    return Shelf.find(extra or [])


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_outcomes(outcomes: list[Outcome], as_json: bool) -> None:
    from claimbench.report import outcome_json, print_outcomes

    if as_json:
        print_json([outcome_json(outcome) for outcome in outcomes])
    else:
        print_outcomes(outcomes)


def ask_trust(root: Path) -> bool:
    """Whether a shelf's code may run; without a terminal to ask at it may not."""
    if not sys.stdin.isatty():
        return False
    return typer.confirm(
        f"{root} is a shelf from outside; its code will run with your rights. Trust it?",
        default=False,
        err=True,
    )
