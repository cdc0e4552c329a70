"""Where papers come from, one small class each: arXiv's API, a community list, any RSS or Atom feed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claimbench.feed.entry import Source
    from claimbench.feed.settings import SourceSettings

Get = Callable[..., bytes]
"""`get(url, accept=None) -> bytes`: what `claimbench.feed.fetch.Fetcher.get` does."""


def make_source(settings: SourceSettings, get: Get, folder: Path, limit: int) -> Source:
    """The source that settings describe. folder: what a relative path is relative to. limit: bytes of a file."""
    if settings.kind == "arxiv":
        from claimbench.feed.sources.arxiv import Arxiv

        return Arxiv(settings, get)
    if settings.kind == "daily":
        from claimbench.feed.sources.daily import Daily

        return Daily(settings, get)
    from claimbench.feed.sources.rss import Rss

    return Rss(settings, get, folder, limit)
