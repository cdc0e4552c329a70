"""Ctrl-C, SIGTERM and SIGKILL of a runner: nothing finished is lost, nothing goes on running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import alive, gone, group, is_running, one, wait_for

from claimbench.currency import PACKAGE
from claimbench.runner import watch

MakePaper = Callable[..., Path]

CODE = """
import os, subprocess, time

@measure("quick")
def quick(trial):
    return {"value": 1}

@measure("family")
def family(trial):
    # a child, a grandchild in a session of its own whose parent is gone, and a trial that never ends
    if os.fork() == 0:
        os.setsid()
        child = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        open(trial.size["file"] + ".part", "w").write(f"{os.getppid()} {child.pid}")
        os.rename(trial.size["file"] + ".part", trial.size["file"])
        os._exit(0)
    subprocess.Popen(["/bin/sleep", "1000"])
    time.sleep(1000)
"""

RUNNER = """
import sys
from pathlib import Path
from claimbench.runner.local import LocalRunner
sys.path.insert(0, {tests!r})
from running import group

folder, out = Path({folder!r}), Path({out!r})
groups = [group(folder, "quick", seed=i) for i in range(5)]
groups.append(group(folder, "family", size={{"file": str(out / "ready")}}))

def finish(group, results):
    with (out / "finished").open("a") as file:
        file.write(f"{{group.specs[0].seed}} {{results[0].status}}\\n")

try:
    LocalRunner(jobs=1).run(groups, begin=lambda g: True, finish=finish, tick=lambda: None)
except KeyboardInterrupt as error:
    (out / "end").write_text(type(error).__name__)
    raise SystemExit(130)
"""


@pytest.fixture
def runner(paper: MakePaper, tmp_path: Path, mark: str) -> subprocess.Popen[bytes]:
    """A runner in a process of its own, in the middle of a trial with a family, five others being finished."""
    code = RUNNER.format(tests=str(Path(__file__).parent), folder=str(paper(CODE)), out=str(tmp_path))
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True)
    wait_for(lambda: (tmp_path / "ready").exists() or process.poll() is not None, 40)
    assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("sent", "name"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")]
)
def test_interrupts(
    runner: subprocess.Popen[bytes], sent: signal.Signals, name: str, tmp_path: Path, mark: str
) -> None:
    runner.send_signal(sent)
    assert runner.wait(10) == 130
    assert (tmp_path / "end").read_text() == name
    assert alive(mark, patience=0.0) == []  # when `run` returns nothing runs any more, without waiting
    assert (tmp_path / "finished").read_text().splitlines() == [f"{i} ok" for i in range(5)]


def test_a_runner_that_is_killed_takes_everything_with_it(
    runner: subprocess.Popen[bytes], tmp_path: Path, mark: str
) -> None:
    trial, grandchild = (int(pid) for pid in (tmp_path / "ready").read_text().split())
    assert is_running(grandchild)
    runner.kill()
    runner.wait(10)
    assert gone(trial)
    assert gone(grandchild)
    assert alive(mark) == []


def test_an_impatient_user(runner: subprocess.Popen[bytes], mark: str) -> None:
    """Ctrl-C sent several times in a row leaves nothing either, wherever in the ending the others arrive."""
    for _ in range(5):
        runner.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert runner.wait(10) in (130, -signal.SIGINT)  # the latter: it came when `run` was over
    assert alive(mark) == []


def test_a_worker_that_is_killed_leaves_no_grandchild(
    runner: subprocess.Popen[bytes], tmp_path: Path, mark: str
) -> None:
    trial, grandchild = (int(pid) for pid in (tmp_path / "ready").read_text().split())
    worker = int(Path(f"/proc/{trial}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    assert gone(trial)
    assert gone(grandchild)
    runner.send_signal(signal.SIGINT)
    runner.wait(10)


def test_what_is_left_when_runner_and_worker_die_at_once_is_ended_by_the_next_run(
    runner: subprocess.Popen[bytes], paper: MakePaper, tmp_path: Path, mark: str
) -> None:
    trial, grandchild = (int(pid) for pid in (tmp_path / "ready").read_text().split())
    worker = int(Path(f"/proc/{trial}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGSTOP)  # so that it cannot clean up
    runner.kill()
    runner.wait(10)
    os.kill(worker, signal.SIGKILL)
    assert gone(trial)
    assert is_running(grandchild)
    assert one(group(paper(CODE), "quick")).status == "ok"
    assert gone(grandchild)


def test_leftovers_are_those_of_dead_runners_only(mark: str) -> None:
    own = {**os.environ, watch.MARKER: f"{watch.marker_prefix()}1."}
    dead = {**os.environ, watch.MARKER: f"{watch.marker_prefix()}1.".replace(f".{os.getpid()}.", ".4194999.")}
    other = {**os.environ, watch.MARKER: "1.4194999.1.1."}  # of another pid namespace
    processes = [subprocess.Popen(["/bin/sleep", "1000"], env=env) for env in (own, dead, other)]
    try:
        time.sleep(0.1)  # until each has its own environment
        assert watch.end_leftovers() == 1
        assert [is_running(p.pid) for p in processes] == [True, False, True]
    finally:
        for process in processes:
            process.kill()
            process.wait()
