"""The command line. It starts in under 0.4 s: whatever a command needs is imported inside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimbench.community import cli as digest
from claimbench.errors import UserError, mistakes_in_one_line
from claimbench.feed import cli as feed
from claimbench.web.cli import serve
from claimbench.work.cli import plan, run, work
from claimbench.work.options import AsJson, Jobs, LedgerAt, Shelves, Targets, find_shelf, print_json

if TYPE_CHECKING:
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
app.command("run", epilog="Example:  claimbench run evopress --model path/to/my-model --until-decided")(run)
app.command(
    "plan", epilog="Example:  claimbench plan regmix --scale full --ledger postgresql://me@server/bench"
)(plan)
app.command("work", epilog="Example:  claimbench work --shard 1/8 --ledger postgresql://me@server/bench")(
    work
)
app.command("serve", epilog="Example:  claimbench serve --open")(serve)


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

    found = find_shelf(shelf)
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

    found = find_shelf(shelf)
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
        print_json(
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
    entry = find_shelf(shelf).entry(paper)
    if as_json:
        print_json(entry.load().model_dump(mode="json", exclude={"folder"}))
        return
    from claimbench.report import print_paper

    print_paper(entry.load(), ledger)


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

    rows = reports.report(targets or [], scale=scale, history=history, ledger=ledger, shelf=find_shelf(shelf))
    if html is not None:
        from claimbench.html import write

        write(rows, html)
        print(f"{html}: {len(rows)} sets", file=sys.stderr)
    if as_json:
        print_json([row.to_json() for row in rows])
    elif markdown:
        print(reports.markdown(rows))
    elif html is None:
        reports.print_rows(rows)


@app.command(epilog="Example:  claimbench recheck evopress")
def recheck(
    targets: Targets = None,
    everything: Annotated[bool, typer.Option("--all", help="Every paper on the shelf.")] = False,
    jobs: Jobs = None,
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
            shelf=find_shelf(shelf),
            on_step=display.step,
        )
    if as_json:
        print_json(answers)
        return
    for answer in answers:
        print(f"{answer['paper']}/{answer['claim']} ({answer['scale']}): {answer['state']}")
        for line in answer.get("differing", [])[:5]:
            print(f"    {line}")
    if not answers:
        print("nothing was measured yet on this machine; use claimbench run")


@app.command(epilog="Example:  claimbench rebuild --ledger postgresql://me@server/bench")
def rebuild(ledger: LedgerAt = None, shelf: Shelves = None, as_json: AsJson = False) -> None:
    """Make everything that the ledger keeps ready anew from its trials: counts, verdicts, leaderboards' numbers."""
    from claimbench import verdicts
    from claimbench.ledger import Ledger

    with Ledger(ledger) as store:
        done = verdicts.rebuild(store, find_shelf(shelf))
    if as_json:
        print_json(done)
    else:
        print(
            f"{done['sets']} sets counted, {done['judged']} judged anew, {done['kept']} verdicts stand as they were"
        )


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

    files = publishing.publish(targets or [], to=to, own=own, ledger=ledger, shelf=find_shelf(shelf))
    if as_json:
        print_json([str(path) for path in files])
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
        print_json(summary)
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
        print_json({"id": made.id, "folder": made.folder, "test": made.test, "steps": made.steps()})
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

    found = checks.doctor(shelf=find_shelf(shelf), ledger=ledger)
    if as_json:
        print_json(found)
    else:
        checks.print_findings(found)


if __name__ == "__main__":
    main()
