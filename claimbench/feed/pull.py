"""Pulling: every source's window, page by page, each page kept before the next is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from claimbench.errors import UserError
from claimbench.feed.entry import Source, Window
from claimbench.feed.fetch import Fetcher, SourceError
from claimbench.feed.lock import pulling
from claimbench.feed.settings import PullSettings, Settings, SourceSettings
from claimbench.feed.sources import make_source
from claimbench.feed.store import PageStore, Pull
from claimbench.feed.submitted import asked_source, pull_submitted

OnPage = Callable[[Pull], None]


def pull(
    store: PageStore,
    settings: Settings,
    *,
    since: date | None = None,
    until: date | None = None,
    sources: list[str] | None = None,
    on_page: OnPage = lambda pull: None,
) -> list[Pull]:
    """Pull the named sources, or all, for the days `since` to `until` (UTC, both included).

    Without `since`, a source goes on a few days before where its last pull ended (`overlap_days`), and one that was
    cut short is finished first. Papers that readers submitted are asked for at the arXiv among the chosen sources, or
    at arXiv itself if all were chosen and none is arXiv. What is stored already stays as it is. A source that does not
    answer fails alone: its pull keeps its pages and its reason, and the next pull goes on from there. Returns one Pull
    for each window, and one for what was submitted. Raises UserError for the caller's mistakes and while another pull
    is under way, LostLock if one took over.
    """
    chosen = settings.find_sources(sources)
    today = datetime.now(UTC).date()
    last = min(until or today, today)
    if since is not None and since > last:
        raise UserError(f"--since: {since} lies after {last}, the last day to pull; give an earlier day")
    submitted = asked_source(settings)
    finished: list[Pull] = []
    with pulling(store) as owner:
        for source in chosen:
            with _open(source, settings) as opened:
                for window in _windows(
                    store, source.name, settings.pull, since, last, explicit=until is not None
                ):
                    run = store.begin_pull(source.name, window)
                    on_page(run)
                    finished.append(_run(store, opened, run, settings, owner, on_page))
                    if finished[-1].state == "failed":
                        break
                if source is submitted:
                    finished += pull_submitted(store, opened, settings, owner, today, on_page)
        if submitted not in settings.source and not sources:
            with _open(submitted, settings) as opened:
                finished += pull_submitted(store, opened, settings, owner, today, on_page)
    return finished


def _run(
    store: PageStore, source: Source, run: Pull, settings: Settings, owner: str, on_page: OnPage
) -> Pull:
    try:
        for page in source.pages(run.window, run.cursor):
            run = store.save_page(run, page, settings.group_of, owner)
            on_page(run)
    except SourceError as error:
        run = store.end_pull(run, str(error))
    else:
        run = store.end_pull(run)
    on_page(run)
    return run


def _windows(
    store: PageStore, source: str, settings: PullSettings, since: date | None, last: date, *, explicit: bool
) -> list[Window]:
    """The days to ask a source for: those named, or what was cut short and then everything since."""
    if since is not None:
        return [Window(since, last)]
    pulls = store.pulls(source)
    cut = [pull.window for pull in pulls if pull.state != "done" and pull.window.last <= last][-1:]
    covered = [*(p.window.last for p in pulls if p.state == "done"), *(window.last for window in cut)]
    if cut and (cut[0].last == last or explicit):
        return cut
    if covered:
        first = min(max(covered), last) - timedelta(settings.overlap_days)
    else:
        first = last - timedelta(settings.first_days - 1)
    return [*cut, Window(first, last)]


@contextmanager
def _open(source: SourceSettings, settings: Settings) -> Iterator[Source]:
    with Fetcher(source, settings.fetch) as fetcher:
        yield make_source(source, fetcher.get, settings.folder, settings.fetch.max_bytes)
