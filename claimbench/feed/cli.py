"""`claimbench feed`: pull papers from the configured sources, list them, and say where they come from."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from claimbench.errors import UserError

if TYPE_CHECKING:
    from claimbench.feed.store import Pull

app = typer.Typer(
    name="feed",
    help="What is new: pull papers from public lists, and list them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings (default: your page.toml).")
]
StoreAt = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="CLAIMBENCH_PAGE",
        help="A path or a database URL (default: your own).",
    ),
]
Named = Annotated[
    list[str] | None, typer.Option("--source", metavar="NAME", help="Only this source (repeatable).")
]
Shelves = Annotated[
    list[Path] | None,
    typer.Option(
        "--shelf", metavar="DIR", help="A further folder of papers (repeatable; also CLAIMBENCH_SHELF)."
    ),
]


def _day(flag: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UserError(f'{flag}: "{text}" is no day; write it as 2025-01-31') from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


@app.command(epilog="Example:  claimbench feed pull --since 2025-01-01 --source arxiv")
def pull(
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="First day (default: since the last pull).")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Last day (default: today).")] = None,
    source: Named = None,
    config: Config = None,
    store: StoreAt = None,
    ledger: Annotated[
        str | None, typer.Option("--ledger", metavar="URL", help="Whose verdicts count (default: your own).")
    ] = None,
    shelf: Shelves = None,
    as_json: AsJson = False,
) -> None:
    """Ask the sources for new papers. What is known stays; a pull that was cut short goes on where it stopped."""
    first, last = _day("--since", since), _day("--until", until)
    from claimbench.feed.progress import Display
    from claimbench.feed.pull import pull as pull_all
    from claimbench.feed.settings import load_settings
    from claimbench.feed.shelf import sync_shelf
    from claimbench.feed.store import PageStore
    from claimbench.ledger import Ledger
    from claimbench.shelf import Shelf

    settings = load_settings(config)
    settings.find_sources(source)
    found = Shelf.find(shelf or [])
    with PageStore(store) as page, Ledger(ledger) as measured:
        synced = sync_shelf(page, found, measured)
        with Display(quiet=as_json) as display:
            pulls = pull_all(page, settings, since=first, until=last, sources=source, on_page=display.show)
    for line in found.broken:
        print(f"claimbench: skipped: {line}", file=sys.stderr)
    if as_json:
        _print_json({"shelf": synced, "pulls": [_as_json(one) for one in pulls]})
    else:
        print(f"shelf: {synced['papers']} papers, {synced['added']} new, {synced['measured']} sets judged")
        for one in pulls:
            print(_summary(one))
    if any(one.state == "failed" for one in pulls):
        raise typer.Exit(1)


def _as_json(one: Pull) -> dict[str, Any]:
    names = ("source", "window", "state", "reason", "counts", "started", "finished")
    return {name: getattr(one, name) if name != "window" else str(one.window) for name in names}


def _summary(one: Pull) -> str:
    counts = one.counts
    if one.source == "submitted":
        line = f"submitted by readers: {counts['added']} new, {counts['problems']} refused"
        return f"{line}; failed: {one.reason}" if one.state == "failed" else line
    line = f"{one.source}: {one.window}: {counts['added']} new, {counts['changed']} changed"
    line += f" of {counts['entries']} entries"
    if counts["problems"]:
        line += f", {counts['problems']} malformed (claimbench feed sources --problems)"
    return f"{line}; failed: {one.reason}" if one.state == "failed" else line


@app.command("list", epilog="Example:  claimbench feed list --trending week --topic cs.CL")
def list_papers(
    trending: Annotated[
        str | None, typer.Option(metavar="WINDOW", help="Rank by score: day, week or month.")
    ] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="DAY", help="The window's last day.")] = None,
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only this topic or category.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 25,
    config: Config = None,
    store: StoreAt = None,
    as_json: AsJson = False,
) -> None:
    """List papers: the newest, or what is trending."""
    day = _day("--on", on)
    from claimbench.feed.settings import load_settings
    from claimbench.feed.store import PageStore
    from claimbench.feed.trending import find_window, listing_json, rank

    window = find_window("--trending", trending or "month")
    with PageStore(store) as page:
        if trending is None and (day, group, topic) == (None, None, None):
            papers: list[dict[str, Any]] = [listing_json(one) for one in page.newest(limit=limit)]
        else:
            found = rank(
                page,
                load_settings(config).score,
                window=window,
                day=day,
                group=group,
                topic=topic,
                limit=limit,
            )
            papers = [
                {**listing_json(one.listing), "score": one.score, "votes": one.votes} for one in found.papers
            ]
    if as_json:
        _print_json(papers)
        return
    for paper in papers:
        score = f"{paper['score']:8.3f}  " if "score" in paper else ""
        print(f"{score}{paper['published']}  {paper['key']:<18}  {paper['title']}")
    if not papers:
        print("nothing listed; use claimbench feed pull", file=sys.stderr)


@app.command(epilog="Example:  claimbench feed sources --problems")
def sources(
    problems: Annotated[
        bool, typer.Option("--problems", help="Also the entries that were malformed and skipped.")
    ] = False,
    config: Config = None,
    store: StoreAt = None,
    as_json: AsJson = False,
) -> None:
    """Say where papers come from, and how each source's last pull ended."""
    from claimbench.feed.settings import load_settings
    from claimbench.feed.store import PageStore

    settings = load_settings(config)
    with PageStore(store) as page:
        rows = []
        for source in settings.source:
            last = page.pulls(source.name)[-1:]
            row: dict[str, Any] = {
                "name": source.name,
                "kind": source.kind,
                "from": source.address or source.path,
                "categories": source.categories,
                "last": _as_json(last[0]) if last else None,
            }
            if problems:
                row["problems"] = page.problems(source.name)
            rows.append(row)
    if as_json:
        _print_json(rows)
        return
    width = max(len(row["name"]) for row in rows) if rows else 0
    for row in rows:
        ended = f"{row['last']['state']} {row['last']['window']}" if row["last"] else "never pulled"
        print(f"{row['name']:<{width}}  {row['kind']:<5}  {ended:<30}  {row['from']}")
        for problem in row.get("problems", []):
            print(f"    {problem['entry']}: {problem['reason']}")
