"""Papers that readers submitted: asked for at arXiv by their ids, listed, and the submissions answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from claimbench.community.papers import settle_submissions, submissions
from claimbench.feed.entry import Source, Window
from claimbench.feed.fetch import SourceError
from claimbench.feed.settings import DEFAULT_SOURCES, SUBMITTED, Settings, SourceSettings
from claimbench.feed.sources.arxiv import Arxiv
from claimbench.feed.store import PageStore, Pull


def asked_source(settings: Settings) -> SourceSettings:
    """Where submitted papers are asked for: the first arXiv among the sources, else arXiv itself."""
    return next(source for source in [*settings.source, *DEFAULT_SOURCES] if source.kind == "arxiv")


def pull_submitted(
    store: PageStore,
    source: Source,
    settings: Settings,
    owner: str,
    day: date,
    on_page: Callable[[Pull], None],
) -> list[Pull]:
    """Ask for what waits, a page at a time. source: of `asked_source`. Returns one Pull, or none if nothing waits.

    A page's papers are listed before their submissions are closed: one that is killed in between is closed the next
    time, since it is listed. Where arXiv does not answer, what is left waits.
    """
    assert isinstance(source, Arxiv)
    settle_submissions(store)
    waiting = submissions(store)
    if not waiting:
        return []
    run = store.begin_pull(SUBMITTED, Window(day, day))
    try:
        for page in source.papers(waiting):
            run = store.save_page(run, page, settings.group_of, owner)
            settle_submissions(store, {problem.entry: problem.reason for problem in page.problems})
            on_page(run)
    except SourceError as error:
        return [store.end_pull(run, str(error))]
    return [store.end_pull(run)]
