"""The real server in a process of its own: it says where it is, answers, and leaves at Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import typer
from feeds import Server, arxiv_handler
from postgres import Server as Postgres
from starlette.testclient import TestClient
from toy import MakePaper
from typer.testing import CliRunner

from claimbench import bench
from claimbench.errors import UserError
from claimbench.ledger import Ledger
from claimbench.publish import publish
from claimbench.shelf import Shelf
from claimbench.web.cli import serve as command
from claimbench.web.serve import Options, application, bind, serve, url

PROGRAM = """
import sys, typer
from claimbench.web.cli import serve
if __name__ == "__main__":
    typer.run(serve)
"""


@contextmanager
def running(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), "--port", "0", "--words-only", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"http://\S+", line):
                yield process, found[0]
                break
        else:
            pytest.fail(f"it did not start: {said}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def answer(address: str) -> httpx2.Response:
    deadline = time.monotonic() + 30
    while True:
        try:
            return httpx2.get(address, timeout=10)
        except httpx2.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def published_toy(folder: Path) -> Path:
    """The file of results of the shelf's paper `toy`."""
    shelf = Shelf([folder / "shelf"])
    with Ledger(folder / "measured.sqlite") as ledger:
        bench.run("toy", shelf=shelf, ledger=ledger, may_trust=lambda root: True, jobs=1)
        (path,) = publish("toy", to=folder / "results", ledger=ledger, shelf=shelf)
    return path


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_answers_pulls_once_and_leaves_at_ctrl_c(
    tmp_path: Path, workers: str, source: Callable[..., Server], make_paper: MakePaper
) -> None:
    make_paper()
    more: list[str] = []
    if workers == "1":
        measured = str(published_toy(tmp_path))
        more = ["--import", measured, measured]  # as a shell expands *.jsonl
    server = source(arxiv_handler({}))
    if workers == "2":
        config = tmp_path / "page.toml"
        config.write_text(
            '[pull]\nfirst_days = 1\n[[source]]\nname = "arxiv"\nkind = "arxiv"\nevery = 0\n'
            f'url = "{server.url}/q"\ncategories = ["cs.LG"]\n'
        )
        more = ["--schedule", "00:00", "--config", str(config)]
    shelf = str(tmp_path / "shelf")
    with running(tmp_path, "--shelf", shelf, "--workers", workers, *more) as (process, address):
        found = answer(f"{address}paper/toy.json")
        assert found.status_code == 200
        judged = [claim for claim in found.json()["claims"] if claim["state"] != "no verdict"]
        assert bool(judged) == (workers == "1")
        assert httpx2.get(address, headers={"host": "evil.example"}).status_code == 421
        ends = time.monotonic() + 20
        while workers == "2" and not server.asked and time.monotonic() < ends:
            time.sleep(0.05)
        time.sleep(0.3)  # the line is said when the answer is kept, and a second process would ask
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(15) == 0
        assert rest.rstrip().endswith("claimbench: stopped")
        assert "Traceback" not in rest
        assert rest.count("schedule: arxiv 0 new") == len(server.asked) == int(workers) - 1  # one of the two
    with pytest.raises(httpx2.TransportError):
        httpx2.get(address)


def test_a_list_on_a_server_is_searched_there(
    tmp_path: Path,
    postgres_url: str,
    postgres_database: str,
    postgres_server: Postgres,
    make_paper: MakePaper,
) -> None:
    make_paper("zebrafish")
    options = Options(
        ledger=str(tmp_path / "l.sqlite"),
        store=postgres_url,
        shelf=(str(tmp_path / "shelf"),),
        meaning=False,
    )
    with TestClient(application(options), base_url=url("127.0.0.1", 80)) as client:
        ends = time.monotonic() + 30
        found: list[str] = []
        while not found and time.monotonic() < ends:
            time.sleep(0.05)
            page = client.get(
                "/search.json", params={"q": "zebrafihs", "moment": str(time.monotonic())}
            ).json()
            found = [hit["card"]["key"] for hit in page["found"]]
        assert found == ["zebrafish"]
        assert [correction["instead"] for correction in page["corrections"]] == ["zebrafish"]
    there = "SELECT key FROM claimbench_search.document WHERE key = 'zebrafish'"
    assert postgres_server.execute(there, postgres_database) == [("zebrafish",)]


def test_a_taken_port_is_said_with_the_fix() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port: {port} on 127.0.0.1: address already in use.*--port"):
            bind("127.0.0.1", port)
        with pytest.raises(UserError, match="--port"):
            serve(Options(port=port))
    with pytest.raises(UserError, match="--host"):
        bind("no such host", 0)


def test_addresses_and_mistakes() -> None:
    assert url("0.0.0.0", 80) == "http://localhost:80/"
    assert url("::1", 80) == "http://[::1]:80/"
    app = typer.Typer()
    app.command()(command)
    for arguments, words in (
        (["--url", "javascript:alert(1)"], "--url"),
        (["--config", "/nowhere/page.toml"], "--config"),
        (["--shelf", "/nowhere"], "--shelf"),
        (["--import", "/nowhere.jsonl"], "nowhere.jsonl"),
        (["--schedule", "at dawn"], "--schedule"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, UserError)
        assert words in str(result.exception)
