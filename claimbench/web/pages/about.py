"""How verdicts are made and how often they err: the document that the simulation writes its rates into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.requests import Request

from claimbench.web.answers import Page
from claimbench.web.site import Site

PACKAGED = Path(__file__).parents[1] / "verdicts.md"  # where the wheel has it
CHECKOUT = Path(__file__).parents[3] / "docs" / "verdicts.md"


@dataclass(frozen=True)
class AboutView:
    """text: the document in Markdown. html: the same, rendered."""

    text: str
    html: Markup


@cache
def document() -> str:
    """Without its first heading, which the page has itself."""
    path = PACKAGED if PACKAGED.is_file() else CHECKOUT
    text = path.read_text(encoding="utf-8")
    return text.partition("\n")[2].strip() if text.startswith("# ") else text


@cache
def rendered() -> Markup:
    """Markdown without raw HTML; wide tables may be scrolled, by keyboard too."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    visible = "\n".join(line for line in document().splitlines() if not line.startswith("<!--"))
    html = renderer.render(visible)
    opened = '<div class="scroll" role="region" aria-label="table" tabindex="0"><table>'
    return Markup(html.replace("<table>", opened).replace("</table>", "</table></div>"))


def about_view() -> AboutView:
    return AboutView(document(), rendered())


def handle(site: Site, request: Request) -> AboutView:
    return about_view()


PAGE = Page("/about", "page/about.html", handle)
