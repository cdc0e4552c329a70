"""What was measured as one self-contained page: no script, no request, readable on a phone, in dark and in light.

The template escapes every name by itself; what it shows of a set is `claimbench.views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from claimbench import __version__
from claimbench.errors import UserError
from claimbench.paths import write_atomically
from claimbench.plots import stylesheet
from claimbench.report import ReportRow
from claimbench.views import SIGNS, STATES, ClaimView, claim_view


def render(rows: Sequence[ReportRow]) -> str:
    """The page of these rows. Papers stand in the rows' order, and each paper's claims together."""
    views = [claim_view(row, f"set-{row.set.uid}") for row in rows]
    papers: dict[str, list[ClaimView]] = {}
    for view in views:
        papers.setdefault(view.row.paper.id, []).append(view)
    counts = [(state, sum(view.state == state for view in views)) for state in STATES]
    return (
        environment()
        .get_template("report.html")
        .render(
            papers=list(papers.values()),
            counts=[(state, count, SIGNS[state]) for state, count in counts if count],
            plot_css=Markup(stylesheet()),
            made=datetime.now(UTC).strftime("%Y-%m-%d"),
            version=__version__,
            web=web_address,
        )
    )


def write(rows: Sequence[ReportRow], path: Path) -> None:
    """Write the page. Raises UserError if the file cannot be written."""
    try:
        write_atomically(path, render(rows).encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"--html: {path} cannot be written: {error.strerror}") from None


@cache
def environment() -> Environment:
    loader = PackageLoader("claimbench", "templates")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def web_address(text: str) -> str:
    """The address if it is one that a browser may follow; a paper's file could hold anything."""
    return text if text.startswith(("https://", "http://")) else ""
