"""A sender that is killed at its n-th step, for each n, by itself: `python killed.py ORDERS.json`, run by a test.

A step is the moment after a line to the server, an answer from it, or a commit: between two of them nothing is changed
that outlives the process. For each n a copy of the page
is sent from by a process that kills itself there (SIGKILL); another process sends ten minutes later, and
composes and sends on the next day, when there is one more verdict. Prints a line of JSON for each n; the last n is the
one that was not reached. Processes are forked from this one, which has imported everything and runs one thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from readers import DAILY, DAY, NOW, compose, judge, send, states

from claimbench.community.preview import preview_digest
from claimbench.community.schema import SUBSCRIPTION
from claimbench.community.settings import MailSettings
from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore


def kill_at(step: int) -> None:
    """Wrap what reaches the server and the disk, so that this process ends at the step."""
    passed = 0

    def count() -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            found = function(*arguments, **named)
            count()
            return found

        return run

    smtplib.SMTP.send = watched(smtplib.SMTP.send)  # type: ignore[method-assign]
    smtplib.SMTP.getreply = watched(smtplib.SMTP.getreply)  # type: ignore[method-assign]
    dialect = sa.engine.default.DefaultDialect
    dialect.do_commit = watched(dialect.do_commit)  # type: ignore[method-assign]


def in_process(work: Callable[[], None]) -> bool:
    """Whether it ended by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"a sender failed with {os.WEXITSTATUS(status)}")
    return not os.WIFSIGNALED(status)


def main(orders: dict[str, Any]) -> None:
    mail, folder = MailSettings(**orders["mail"]), Path(orders["folder"])
    with PageStore(folder / "page.sqlite") as store:
        preview_digest(store, Settings(), DAILY, {}, NOW)  # templates are read once for all that are forked

    for step in range(1, 1000):
        page = folder / f"{step}.sqlite"
        shutil.copy(orders["page"], page)

        def first(page: Path = page, step: int = step) -> None:
            with PageStore(page) as store:
                with store.write() as connection:
                    connection.execute(SUBSCRIPTION.update().values(address=f"step{step}@example.net"))
                kill_at(step)
                send(store, mail, NOW, orders["password"], folder)

        def later(page: Path = page) -> None:
            with PageStore(page) as store:
                send(store, mail, NOW + timedelta(minutes=10), orders["password"], folder)
                judge(store, "claim-two", judged=NOW + DAY)
                compose(store, mail, NOW + DAY)
                send(store, mail, NOW + DAY, orders["password"], folder)

        ended = in_process(first)
        in_process(later)
        with PageStore(page) as store, store.read() as connection:
            told = connection.scalar(sa.select(SUBSCRIPTION.c.told))
            print(
                json.dumps({"step": step, "ended": ended, "letters": states(store), "told": told}), flush=True
            )
        if ended:
            return


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
