"""`claimbench digest`: look at a digest, send those that are due, read bounces."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from claimbench.errors import UserError
from claimbench.feed.cli import AsJson, Config, Shelves, StoreAt

app = typer.Typer(
    name="digest",
    help="Digests by mail: preview one, send what is due, read bounces.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example:  claimbench digest preview --every day --group sequence --html digest.html")
def preview(
    every: Annotated[str, typer.Option(metavar="SPAN", help="day or week.")] = "week",
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="Only this group (repeatable).")
    ] = None,
    search: Annotated[
        list[str] | None, typer.Option("--search", metavar="WORDS", help="Or papers with these words.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the HTML form.")
    ] = None,
    config: Config = None,
    store: StoreAt = None,
    shelf: Shelves = None,
) -> None:
    """Print what a subscriber of the last day or week would get. Nothing is stored or sent; no mail is needed."""
    if every not in ("day", "week"):
        raise UserError(f'--every: "{every}" is neither day nor week')
    span: Literal["day", "week"] = "day" if every == "day" else "week"
    from claimbench.community.preview import preview_digest
    from claimbench.community.searches import searches_of
    from claimbench.community.service import statements_of
    from claimbench.community.store import Choices
    from claimbench.feed.settings import load_settings
    from claimbench.feed.store import PageStore
    from claimbench.paths import write_atomically
    from claimbench.shelf import Shelf
    from claimbench.web.maintenance import existing_index

    settings = load_settings(config)
    choices = Choices(tuple(group or ()), tuple(search or ()), span)
    found = Shelf.find(shelf or [])
    with PageStore(store) as page:
        finds = searches_of(existing_index(page, list(found.roots)))
        text, page_text = preview_digest(page, settings, choices, statements_of(found), finds=finds)
    if html is not None:
        try:
            write_atomically(html, page_text.encode())
        except OSError as error:
            raise UserError(f"--html: {html} cannot be written: {error.strerror}") from None
    print(text)


@app.command(epilog="Example (cron, each hour):  claimbench feed pull && claimbench digest send")
def send(
    config: Config = None, store: StoreAt = None, shelf: Shelves = None, as_json: AsJson = False
) -> None:
    """Compose the digests that are due, and send every letter that is. Often is fine: none is sent twice."""
    from claimbench.community.service import open_service, statements_of
    from claimbench.feed.settings import load_settings
    from claimbench.feed.store import PageStore
    from claimbench.shelf import Shelf
    from claimbench.web.maintenance import existing_index

    settings, found = load_settings(config), Shelf.find(shelf or [])
    with PageStore(store) as page:
        index = existing_index(page, list(found.roots))
        service = open_service(page, settings, statements_of(found), index)
        composed = service.queue()
        sent = service.sender().run()
    counts = {
        "composed": composed["queued"],
        "accepted": sent.accepted,
        "later": sent.later,
        "refused": sent.refused,
        "in_doubt": sent.in_doubt,
        "trouble": sent.trouble,
    }
    if as_json:
        print(json.dumps(counts, indent=2))
    else:
        words = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if name != "trouble"]
        print(f"digests and links: {', '.join(words)}")
        if sent.trouble:
            print(f"claimbench: mail: {sent.trouble}; what waits is sent the next time", file=sys.stderr)
    if sent.trouble:
        raise typer.Exit(1)


@app.command(epilog="Example:  claimbench digest bounces /var/mail/papers")
def bounces(
    files: Annotated[list[Path], typer.Argument(help="Messages, mbox files, or folders of them.")],
    store: StoreAt = None,
    as_json: AsJson = False,
) -> None:
    """Read delivery reports and stop the addresses that letters did not reach for good."""
    from claimbench.community.bounces import read_bounces
    from claimbench.feed.store import PageStore

    for path in files:
        if not path.exists():
            raise UserError(f"FILES: no file {path}")
    with PageStore(store) as page:
        counts = read_bounces(page, files)
    if as_json:
        print(json.dumps(counts, indent=2))
    else:
        print(
            f"{counts['reports']} reports, {counts['stopped']} addresses stopped, {counts['others']} others"
        )
