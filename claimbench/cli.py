"""The command line. It starts in under 0.4 s: whatever a command needs is imported inside it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimbench import flags
from claimbench.community import cli as digest
from claimbench.errors import UserError, mistakes_in_one_line
from claimbench.feed import cli as feed
from claimbench.web.cli import serve

if TYPE_CHECKING:
    from claimbench.session import Outcome
    from claimbench.shelf import Shelf

app = typer.Typer(
    name="claimbench",
    help="Does the paper's claim hold on your model, your data, your machine?",
    epilog="Example:  claimbench run exact-permutations/sign-separation",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(feed.app, name="feed")
app.add_typer(digest.app, name="digest")
app.command("serve", epilog="Example:  claimbench serve --open")(serve)

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


def main() -> None:
    """The console script: exit code 2 and one line for the user's mistakes, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text stream; paths may not be UTF-8
    try:
        with mistakes_in_one_line():
            app()
    except SystemExit as leaving:  # Typer turns Ctrl-C into an exit with the shell's code for it
        if leaving.code == 130:
            print(
                "\nclaimbench: interrupted; finished trials are kept, the same command goes on from here",
                file=sys.stderr,
            )
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left (`| head`)


def _shelf(extra: list[Path] | None) -> Shelf:
    from claimbench.shelf import Shelf

    return Shelf.find(extra or [])


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _warn_broken(shelf: Shelf) -> None:
    for line in shelf.broken:
        print(f"claimbench: skipped: {line}", file=sys.stderr)


@app.command("list", epilog="Example:  claimbench list --group sequence")
def list_papers(
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    as_json: AsJson = False,
    shelf: Shelves = None,
) -> None:
    """List the papers on the shelf."""
    from claimbench.errors import nearest

    found = _shelf(shelf)
    papers = sorted(found.entries.values(), key=lambda e: (e.group, e.id))
    if group is not None:
        groups = {entry.group for entry in papers}
        if group not in groups:
            raise UserError(f'--group: no group "{group}" on the shelf{nearest(group, groups)}')
        papers = [entry for entry in papers if entry.group == group]
    _warn_broken(found)
    _show_entries(papers, as_json)


@app.command(epilog="Example:  claimbench search state space group:sequence year:2020-2024")
def search(
    words: Annotated[
        list[str],
        typer.Argument(help="Words, and filters: group:NAME, year:2020-2024, verdict:holds, author:NAME."),
    ],
    meaning: Annotated[
        bool, typer.Option("--meaning", help="Also by meaning: loads the encoder, or asks a running one.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Papers to show.")] = 50,
    ledger: LedgerAt = None,
    as_json: AsJson = False,
    shelf: Shelves = None,
) -> None:
    """Search the shelf's papers by words, and by meaning if asked; similar papers follow where they are known."""
    from claimbench.search.query import joined, parse
    from claimbench.search.shelf import search_shelf

    found = _shelf(shelf)
    query = joined(words)
    verdicts: dict[str, list[str]] | None = None
    if parse(query).verdicts:
        from claimbench.report import report as rows_of

        verdicts = {}
        for row in rows_of(ledger=ledger, shelf=found):
            if row.verdict is not None:
                verdicts.setdefault(row.paper.id, []).append(row.verdict.state)
    results = search_shelf(found, query, limit=limit, meaning=meaning, verdicts=verdicts)
    _warn_broken(found)
    ways = {entry.id: way for entry, way in results.papers}
    if as_json:
        _show_entries([entry for entry, _ in results.papers], as_json, ways)
        return
    for word, others in results.corrections.items():
        print(f'"{word}" stands nowhere; did you mean {" or ".join(others)}?', file=sys.stderr)
    if not any(way == "words" for way in ways.values()) and not meaning:
        closest = "these hold some of them" if ways else "try fewer words"
        print(f'no paper holds all of "{query}"; {closest}', file=sys.stderr)
    _show_entries([entry for entry, way in results.papers if way != "similar"], as_json)
    similar = [entry for entry, way in results.papers if way == "similar"]
    if similar:
        print("\nsimilar in meaning to the first of them:")
        _show_entries(similar, as_json)
    if results.more:
        print(f"only the first {limit} are shown; --limit shows more", file=sys.stderr)


def _show_entries(papers: list[Any], as_json: bool, ways: dict[str, str] | None = None) -> None:
    if as_json:
        keys = ("id", "group", "title", "year", "authors", "arxiv", "summary", "topics", "claims")
        _print_json(
            [
                {key: getattr(entry, key) for key in keys} | ({"found": ways[entry.id]} if ways else {})
                for entry in papers
            ]
        )
        return
    width = max((len(entry.id) for entry in papers), default=0)
    group = ""
    for entry in papers:
        if entry.group != group:
            group = entry.group
            print(f"\n{group}" if entry is not papers[0] else group)
        claims = f"{len(entry.claims)} claim{'s' if len(entry.claims) != 1 else ''}"
        print(f"  {entry.id:<{width}}  {entry.year}  {claims:>9}  {entry.title}")


@app.command(epilog="Example:  claimbench show s4")
def show(
    paper: Annotated[str, typer.Argument()],
    as_json: AsJson = False,
    shelf: Shelves = None,
    ledger: LedgerAt = None,
) -> None:
    """Show a paper: what it claims, what was measured, and how to run it."""
    entry = _shelf(shelf).entry(paper)
    if as_json:
        _print_json(entry.load().model_dump(mode="json", exclude={"folder"}))
        return
    from claimbench.report import print_paper

    print_paper(entry.load(), ledger)


@app.command(epilog="Example:  claimbench run evopress --model path/to/my-model --until-decided")
def run(
    targets: Targets = None,
    group: Annotated[str | None, typer.Option(help="Every paper of this group.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every paper on the shelf.")] = False,
    scale: Annotated[str, typer.Option(help="smoke, quick, full or paper.")] = "quick",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    size: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A size of your own (own setting).")
    ] = None,
    at: Annotated[
        list[str] | None, typer.Option(metavar="K=V[,V]", help="Only these values of a swept variable.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these arms (repeatable).")
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Replace a subject by name, path or hub id."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Your model, for every claim that takes one; others are skipped.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Your data, for every claim that takes some; others are skipped.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Trials at once (default: one a core).")] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="TIME", help="Limit a trial: 90, 90s, 5m, 1h.")
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Limit a trial: 4GiB, 500MB.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="A replication on new seeds, shown beside the first.")
    ] = False,
    fresh_setup: Annotated[bool, typer.Option("--fresh-setup", help="Build shared set-up again.")] = False,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Go on to the planned later looks.")
    ] = False,
    development: Annotated[
        bool, typer.Option("--development", help="Seeds below 1000: never published.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and what it could see.")
    ] = False,
    fail_on: Annotated[
        str, typer.Option(metavar="STATES", help="Exit 3 at these verdicts: fails,undecided.")
    ] = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="Trust the code of added shelves without asking.")
    ] = False,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Measure claims and judge them. What is finished is kept: the same command goes on where it stopped."""
    states = flags.states(fail_on)
    from claimbench import bench

    options: dict[str, Any] = {
        "group": group,
        "everything": everything,
        "scale": scale,
        "device": device,
        "sizes": dict(flags.pairs("--size", size)),
        "at": {k: v.split(",") for k, v in flags.pairs("--at", at)},
        "arms": arm or [],
        "subjects": dict(flags.pairs("--subject", subject)),
        "model": model,
        "data": data,
        "time_limit": flags.seconds(time_limit),
        "memory_limit": flags.size(memory_limit),
        "development": development,
        "shelf": _shelf(shelf),
    }
    if dry_run:
        from claimbench.dry import describe, print_description

        plans, skipped = bench.plan(targets or [], **options)
        described = describe(plans, skipped, ledger=ledger, jobs=jobs)
        _print_json(described) if as_json else print_description(described)
        return
    options.update(
        jobs=jobs, fresh=fresh, fresh_setup=fresh_setup, until_decided=until_decided, ledger=ledger
    )
    options["may_trust"] = (lambda root: True) if trust else _ask_trust
    from claimbench.progress import Display

    with Display(quiet=as_json) as display:
        outcomes = bench.run(targets or [], on_step=display.step, **options)
    _show_outcomes(outcomes, as_json, ledger)
    if states & {o.verdict.state for o in outcomes if o.verdict is not None}:
        raise typer.Exit(3)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


def _show_outcomes(outcomes: list[Outcome], as_json: bool, ledger: str | None) -> None:
    from claimbench.report import outcome_json, print_outcomes

    if as_json:
        _print_json([outcome_json(outcome) for outcome in outcomes])
    else:
        print_outcomes(outcomes)


@app.command(epilog="Example:  claimbench report s4 --markdown")
def report(
    targets: Targets = None,
    scale: Annotated[str | None, typer.Option(help="Only this scale.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained page.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Every set, not only the latest of each plan.")
    ] = False,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Show what was measured: every claim's latest verdicts, from the ledger."""
    from claimbench import report as reports

    rows = reports.report(targets or [], scale=scale, history=history, ledger=ledger, shelf=_shelf(shelf))
    if html is not None:
        from claimbench.html import write

        write(rows, html)
        print(f"{html}: {len(rows)} sets", file=sys.stderr)
    if as_json:
        _print_json([row.to_json() for row in rows])
    elif markdown:
        print(reports.markdown(rows))
    elif html is None:
        reports.print_rows(rows)


@app.command(epilog="Example:  claimbench recheck evopress")
def recheck(
    targets: Targets = None,
    everything: Annotated[bool, typer.Option("--all", help="Every paper on the shelf.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Trials at once (default: one a core).")] = None,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """After a change of code: run one seed a cell again and carry verdicts forward where the numbers agree exactly."""
    from claimbench import bench
    from claimbench.progress import Display

    with Display(quiet=as_json) as display:
        answers = bench.recheck(
            targets or [],
            everything=everything,
            jobs=jobs,
            ledger=ledger,
            shelf=_shelf(shelf),
            on_step=display.step,
        )
    if as_json:
        _print_json(answers)
        return
    for answer in answers:
        print(f"{answer['paper']}/{answer['claim']} ({answer['scale']}): {answer['state']}")
        for line in answer.get("differing", [])[:5]:
            print(f"    {line}")
    if not answers:
        print("nothing was measured yet on this machine; use claimbench run")


@app.command(epilog="Example:  claimbench publish s4 --to results")
def publish(
    targets: Targets = None,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")] = Path("results"),
    own: Annotated[bool, typer.Option("--own", help="Also sets on your own sizes or subjects.")] = False,
    ledger: LedgerAt = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Write measured sets to files that others can import: an allow-list, no paths, host names or private names."""
    from claimbench import publish as publishing

    files = publishing.publish(targets or [], to=to, own=own, ledger=ledger, shelf=_shelf(shelf))
    if as_json:
        _print_json([str(path) for path in files])
    else:
        for path in files:
            print(path)
        if not files:
            print("nothing to publish: no finished set of these claims on seeds 1000 and up", file=sys.stderr)


@app.command("import", epilog="Example:  claimbench import results/theory/*.jsonl")
def import_results(
    files: Annotated[list[Path], typer.Argument(help="Published files.")],
    ledger: LedgerAt = None,
    as_json: AsJson = False,
) -> None:
    """Read published files into the ledger. A damaged line is named and skipped."""
    from claimbench import publish as publishing

    summary = publishing.import_results(files, ledger=ledger)
    if as_json:
        _print_json(summary)
    else:
        for line in summary["damaged"]:
            print(f"claimbench: skipped: {line}", file=sys.stderr)
        print(
            f"{summary['sets']} sets and {summary['trials']} trials imported, {summary['known']} were known"
        )


@app.command(epilog="Example:  claimbench new sequence/my-paper --shelf papers")
def new(
    name: Annotated[str, typer.Argument(metavar="GROUP/PAPER")],
    shelf: Annotated[
        Path | None,
        typer.Option(
            "--shelf",
            metavar="DIR",
            help="Your folder of papers (default: the built-in shelf of a checkout).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a paper's folder that runs at once, with tests that pass: an example to replace by your own."""
    from claimbench import new as making

    made = making.new(name, shelf=shelf)
    if as_json:
        _print_json({"id": made.id, "folder": made.folder, "test": made.test, "steps": made.steps()})
        return
    print(f"{made.folder} is a paper that runs, with a small example in it. Next:")
    for step in made.steps():
        print(f"    {step}")
    print(
        "Then replace the example: what is claimed in paper.toml, how it is measured in claims.py, the method beside."
    )


@app.command(epilog="Example:  claimbench doctor")
def doctor(as_json: AsJson = False, shelf: Shelves = None, ledger: LedgerAt = None) -> None:
    """What this machine can run, which extras are missing, and whether the meters work here."""
    from claimbench import doctor as checks

    found = checks.doctor(shelf=_shelf(shelf), ledger=ledger)
    if as_json:
        _print_json(found)
    else:
        checks.print_findings(found)


def _ask_trust(root: Path) -> bool:
    if not sys.stdin.isatty():
        return False
    return typer.confirm(
        f"{root} is a shelf from outside; its code will run with your rights. Trust it?",
        default=False,
        err=True,
    )


if __name__ == "__main__":
    main()
