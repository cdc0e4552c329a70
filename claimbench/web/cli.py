"""The command `claimbench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from claimbench.errors import UserError


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is open to everybody who reaches it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    ledger: Annotated[
        str | None,
        typer.Option("--ledger", metavar="URL", help="A path or a database URL (default: your own)."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="URL", envvar="CLAIMBENCH_PAGE", help="Listings (default: your own)."
        ),
    ] = None,
    shelf: Annotated[
        list[Path] | None,
        typer.Option(
            "--shelf", metavar="DIR", help="A further folder of papers (repeatable; also CLAIMBENCH_SHELF)."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings (default: your page.toml).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    address: Annotated[
        str, typer.Option("--url", metavar="URL", help="How readers reach the page, behind a proxy.")
    ] = "",
    browse: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    show_own: Annotated[
        bool, typer.Option("--show-own", help="Also show sets on your own subjects and settings.")
    ] = False,
    words_only: Annotated[
        bool, typer.Option("--words-only", help="Search by words alone: no encoder is loaded.")
    ] = False,
    schedule: Annotated[
        str,
        typer.Option(metavar="TIME", help="Pull all sources and send digests daily, at this time of UTC."),
    ] = "",
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE...", help="Published results to read first."),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", show_default=False)] = None,
) -> None:
    """Show the shelf and the ledger as a web page. It only reads; no trial is ever started from it.

    FILE: further published results, so that --import takes what a shell makes of results/*/*.jsonl.
    """
    if address and (urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname):
        raise UserError(f'--url: "{address}" is no web address; write it as https://papers.example.org')
    try:
        from claimbench.web.serve import Options
        from claimbench.web.serve import serve as answer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in (
            "starlette",
            "uvicorn",
            "httptools",
            "itsdangerous",
            "markdown_it",
        ):
            raise
        raise UserError(f"serve: {error.name} is not installed; pip install 'claimbench[page]'") from None
    options = Options(
        host=host,
        port=port,
        ledger=ledger,
        store=store,
        shelf=tuple(str(folder.expanduser().resolve()) for folder in shelf or []),
        config=str(config.expanduser().resolve()) if config else None,
        workers=workers,
        address=address,
        show_own=show_own,
        meaning=not words_only,
        schedule=schedule,
    )
    answer(options, imports=[*(imports or []), *(more or [])], browse=browse)
