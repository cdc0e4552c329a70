"""Pulling from a server of this machine: resuming after a kill, windows, failures of one source, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from feeds import RSS, Answer, Handler, Server, arxiv_entry, arxiv_handler, daily_item, daily_page
from typer.testing import CliRunner

from claimbench.errors import UserError
from claimbench.feed.cli import app
from claimbench.feed.entry import Page, Window
from claimbench.feed.pull import pull
from claimbench.feed.settings import load_settings
from claimbench.feed.store import PageStore

Serve = Callable[[Handler], Server]
FIRST, LAST = date(2025, 1, 1), date(2025, 1, 3)
PAPERS = {
    "20250101": [arxiv_entry(f"2501.0000{n}v1") for n in range(5)],
    "20250102": [
        arxiv_entry("2501.00010v1"),
        arxiv_entry("2501.00011v1", title=""),
        arxiv_entry("2501.00012v1"),
    ],
    "20250103": [arxiv_entry("2501.00000v2"), arxiv_entry("2501.00020v1")],
}
RUN = "import sys; from claimbench.feed.cli import app; app(sys.argv[1:])"


def config(folder: Path, server: Server, more: str = "") -> Path:
    path = folder / "page.toml"
    path.write_text(
        f'[fetch]\nbackoff = 0\nattempts = 3\n{more}\n[[source]]\nname = "arxiv"\nkind = "arxiv"\nevery = 0\n'
        f'page_size = 2\nurl = "{server.url}/q"\ncategories = ["cs.LG"]\n'
    )
    return path


def starts(server: Server) -> list[tuple[str, str]]:
    """The pages that were asked for: day and start."""
    found = []
    for path in server.asked:
        day = path.split("submittedDate%3A%5B")[1][:8]
        found.append((day, path.split("start=")[1].split("&")[0]))
    return found


ALL = [
    ("20250101", "0"),
    ("20250101", "2"),
    ("20250101", "4"),
    ("20250102", "0"),
    ("20250102", "2"),
    ("20250103", "0"),
]


def listed(store: PageStore) -> list[tuple[str, int]]:
    """What came from outside: the command line lists the built-in shelf, too."""
    return sorted((found.arxiv, found.version) for found in store.newest() if found.described != "shelf")


WANTED = [
    ("2501.00000", 2),
    *((f"2501.0000{n}", 1) for n in range(1, 5)),
    ("2501.00010", 1),
    ("2501.00012", 1),
    ("2501.00020", 1),
]


def test_a_pull_reads_every_page_and_again_changes_nothing(tmp_path: Path, serve: Serve) -> None:
    server = serve(arxiv_handler(PAPERS))
    settings = load_settings(config(tmp_path, server))
    with PageStore(tmp_path / "p.sqlite") as store:
        (run,) = pull(store, settings, since=FIRST, until=LAST)
        assert starts(server) == ALL
        assert listed(store) == WANTED
        assert run.counts == {"pages": 6, "entries": 9, "added": 8, "changed": 1, "problems": 1}
        assert [(p["source"], p["entry"], p["reason"]) for p in store.problems()] == [
            ("arxiv", "http://arxiv.org/abs/2501.00011v1", "it has no title")
        ]
        before = store.newest(), store.problems()
        (again,) = pull(store, settings, since=FIRST, until=LAST)
        assert (again.state, again.counts["added"], again.counts["changed"]) == ("done", 0, 0)
        assert (store.newest(), store.problems()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("at", [1, 4])
def test_a_killed_pull_goes_on_where_it_was(tmp_path: Path, serve: Serve, at: int) -> None:
    """A real process, killed while it waits for page `at`: nothing before is asked for or counted again."""
    reached, killed = threading.Event(), threading.Event()
    answer = arxiv_handler(PAPERS)

    def handle(path: str, query: dict[str, str]) -> Answer:
        if len(server.asked) == at + 1 and not killed.is_set():
            reached.set()
            killed.wait(20)
        return answer(path, query)

    server = serve(handle)
    where, place = config(tmp_path, server), tmp_path / "p.sqlite"
    command = [sys.executable, "-c", RUN, "pull", "--config", str(where), "--store", str(place)]
    command += ["--since", str(FIRST), "--until", str(LAST)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert reached.wait(30), child.communicate()
        with PageStore(place) as store:
            assert store.pulls()[0].counts["pages"] == at
            with pytest.raises(UserError, match="another pull is under way"):
                pull(store, load_settings(where), since=FIRST, until=LAST)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        killed.set()
    with PageStore(place) as store:
        assert store.pulls()[0].state == "running"
        (run,) = pull(store, load_settings(where), since=FIRST, until=LAST)
        assert listed(store) == WANTED
    assert starts(server) == [*ALL[: at + 1], *ALL[at:]]
    assert run.counts == {"pages": 6, "entries": 9, "added": 8, "changed": 1, "problems": 1}


def test_a_source_that_fails_keeps_its_pages_and_resumes(tmp_path: Path, serve: Serve) -> None:
    answer, broken = arxiv_handler(PAPERS), threading.Event()
    broken.set()

    def handle(path: str, query: dict[str, str]) -> Answer:
        if broken.is_set() and len(server.asked) > 2:
            return 503, {}, b""
        return answer(path, query)

    server = serve(handle)
    (tmp_path / "lab.xml").write_text(RSS)
    where = config(tmp_path, server)
    where.write_text(where.read_text() + '[[source]]\nname = "lab"\nkind = "rss"\npath = "lab.xml"\n')
    with PageStore(tmp_path / "p.sqlite") as store:
        failed, lab = pull(store, load_settings(where), since=FIRST, until=LAST)
        assert (failed.state, lab.state) == ("failed", "done")
        assert "HTTP 503, 3 times" in failed.reason
        assert (failed.counts["pages"], failed.cursor) == (2, "2025-01-01 4")
        broken.clear()
        asked = len(server.asked)
        done, _ = pull(store, load_settings(where), since=FIRST, until=LAST)
        assert done.state == "done"
        assert starts(server)[asked:] == ALL[2:]
        assert [key for key in listed(store) if key[0]] == sorted([*WANTED, ("2501.00007", 2)])


def test_empty_pages_are_asked_for_again(tmp_path: Path, serve: Serve) -> None:
    answer = arxiv_handler(PAPERS)

    def handle(path: str, query: dict[str, str]) -> Answer:
        status, headers, body = answer(path, query)
        if len(server.asked) % 2:  # every other answer is empty, with the total still there
            start, end = body.index(b"<entry>"), body.rindex(b"</entry>") + len(b"</entry>")
            body = body[:start] + body[end:]
        return status, headers, body

    server = serve(handle)
    with PageStore(tmp_path / "p.sqlite") as store:
        (run,) = pull(store, load_settings(config(tmp_path, server)), since=FIRST, until=LAST)
        assert run.state == "done"
        assert listed(store) == WANTED


def test_without_days_a_pull_goes_on_from_the_last_and_finishes_what_was_cut_short(
    tmp_path: Path, serve: Serve
) -> None:
    server = serve(arxiv_handler({}))
    settings = load_settings(config(tmp_path, server, "[pull]\nfirst_days = 3\noverlap_days = 1"))
    today = datetime.now(UTC).date()
    with PageStore(tmp_path / "p.sqlite") as store:
        assert [run.window for run in pull(store, settings)] == [Window(today - timedelta(2), today)]
        assert [run.window for run in pull(store, settings)] == [Window(today - timedelta(1), today)]
    with PageStore(tmp_path / "q.sqlite") as store:
        cut = Window(today - timedelta(9), today - timedelta(5))
        run = store.begin_pull("arxiv", cut)
        store.save_page(run, Page([], cursor=f"{today - timedelta(6)} 0"), lambda categories: "")
        asked = len(server.asked)
        windows = [run.window for run in pull(store, settings)]
        assert windows == [cut, Window(today - timedelta(6), today)]
        assert starts(server)[asked][0] == f"{today - timedelta(6):%Y%m%d}"


def test_days_that_cannot_be_are_said(tmp_path: Path, serve: Serve) -> None:
    settings = load_settings(config(tmp_path, serve(arxiv_handler({}))))
    with (
        PageStore(tmp_path / "p.sqlite") as store,
        pytest.raises(UserError, match="--since: 2999-01-01 lies after"),
    ):
        pull(store, settings, since=date(2999, 1, 1))


def test_the_command_line(tmp_path: Path, serve: Serve) -> None:
    def handle(path: str, query: dict[str, str]) -> Answer:
        if path == "/daily":
            found = (
                [daily_item("2501.00001", upvotes=9), {"paper": 3}] if query["date"] == "2025-01-02" else []
            )
            return 200, {}, daily_page(found)
        return arxiv_handler(PAPERS)(path, query)

    server = serve(handle)
    where = config(tmp_path, server)
    where.write_text(
        f'{where.read_text()}[[source]]\nname = "daily"\nkind = "daily"\nurl = "{server.url}/daily"\nevery = 0\n'
    )
    places = ["--config", str(where), "--store", str(tmp_path / "p.sqlite")]
    runner = CliRunner()
    days = ["--since", str(FIRST), "--until", str(LAST)]
    pulled = runner.invoke(app, ["pull", *places, *days, "--json"], catch_exceptions=False)
    assert pulled.exit_code == 0
    answer = json.loads(pulled.stdout)
    assert [(p["source"], p["window"], p["state"]) for p in answer["pulls"]] == [
        ("arxiv", "2025-01-01..2025-01-03", "done"),
        ("daily", "2025-01-01..2025-01-03", "done"),
    ]
    assert answer["shelf"]["papers"] > 0
    again = runner.invoke(app, ["pull", *places, *days], catch_exceptions=False)
    assert "arxiv: 2025-01-01..2025-01-03: 0 new, 0 changed of 9 entries, 1 malformed" in again.stdout
    ranked = runner.invoke(
        app, ["list", *places, "--trending", "week", "--on", str(LAST), "--json"], catch_exceptions=False
    )
    assert json.loads(ranked.stdout)[0]["key"] == "arxiv:2501.00001"
    said = runner.invoke(app, ["sources", *places, "--problems"], catch_exceptions=False)
    assert "item 2 of 2025-01-02: its paper is no object" in said.stdout
    assert "http://arxiv.org/abs/2501.00011v1: it has no title" in said.stdout
    with pytest.raises(UserError, match='--since: "soon" is no day; write it as 2025-01-31'):
        runner.invoke(app, ["pull", *places, "--since", "soon"], catch_exceptions=False)


def test_a_pull_that_fails_exits_with_1(tmp_path: Path, serve: Serve) -> None:
    where = config(tmp_path, serve(lambda path, query: (403, {}, b"")))
    failed = CliRunner().invoke(app, ["pull", "--config", str(where), "--store", str(tmp_path / "p.sqlite")])
    assert failed.exit_code == 1
    assert "failed: " in failed.stdout
    assert "HTTP 403" in failed.stdout


def test_nothing_heavy_is_imported_at_the_start() -> None:
    code = (
        "import sys; import claimbench.feed.cli; "
        "print([m for m in ('sqlalchemy', 'pydantic', 'httpx2', 'feedparser', 'numpy', 'torch') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
