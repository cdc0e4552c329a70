"""Trials that hang, flood, fork, eat memory, or end their process cost themselves and nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import gone, group, one, run

from claimbench.runner.worker import TAIL

MakePaper = Callable[..., Path]

FAULTS = """
import errno, os, signal, subprocess, sys, time

@measure("sound")
def sound(trial):
    return {"value": trial.seed}

@measure("hang")
def hang(trial):
    print("about to hang")
    time.sleep(1000)

@measure("deaf")
def deaf(trial):
    for number in range(1, 65):
        if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            signal.signal(number, signal.SIG_IGN)
    while True:
        pass

@measure("flood")
def flood(trial):
    line = b"x" * 99_999 + b"\\n"
    for _ in range(1000):
        os.write(1, line)
    print("the last words: é")
    raise RuntimeError("after the flood")

@measure("eat")
def eat(trial):
    held = []
    while True:
        held.append(b"x" * 20_000_000)
        time.sleep(0.01)

@measure("eat-below")
def eat_below(trial):
    code = "import time; held = [b'x' * 150_000_000]; time.sleep(1000)"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    children[0].wait()

@measure("daemon")
def daemon(trial):
    # a double fork into a session of its own, with an empty environment: nothing ties it to the trial but its parent
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(trial.size["file"], "w") as file:
                file.write(str(os.getpid()))
            os.closerange(0, 256)
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    os.wait()
    while not os.path.exists(trial.size["file"]) or not open(trial.size["file"]).read():
        time.sleep(0.01)
    return {"value": 1}

@measure("respawn")
def respawn(trial):
    # a chain of processes, each of which has gone when it is found
    if os.fork() == 0:
        while True:
            if os.fork():
                os._exit(0)
    return {"value": 1}

@measure("crowd")
def crowd(trial):
    for _ in range(30):
        subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
    return {"value": 1}

@measure("returns-twice")
def returns_twice(trial):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return {"value": os.getpid() != 0, "child": child > 0}

@measure("exit")
def leave(trial):
    sys.exit(3)

@measure("hard-exit")
def hard_exit(trial):
    print("leaving")
    os._exit(trial.size["status"])

@measure("crash")
def crash(trial):
    import ctypes
    ctypes.string_at(0)

@measure("killed-once")
def killed_once(trial):
    path = trial.size["file"]
    if not os.path.exists(path):
        open(path, "w").write(str(os.getppid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": os.getppid() != int(open(path).read())}

@measure("kill-worker")
def kill_worker(trial):
    with open(trial.size["file"], "a") as file:
        file.write("x")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)

@measure("full-disk")
def full_disk(trial):
    with open(trial.size["file"], "a") as file:
        file.write("x")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

@measure("wrapped-disk")
def wrapped_disk(trial):
    try:
        full_disk(trial)
    except OSError as error:
        raise RuntimeError("could not save") from error
"""


def test_a_hanging_trial_is_ended_at_its_limit(paper: MakePaper, mark: str) -> None:
    folder = paper(FAULTS)
    groups = [group(folder, "hang", time_limit=0.5), *(group(folder, "sound", seed=i) for i in range(5))]
    kept = run(groups, jobs=1)
    (hung,) = kept.finished[groups[0].key]
    assert (hung.status, hung.failure) == ("failed", "time: 0.5 s")
    assert "about to hang" in hung.detail
    assert [kept.finished[g.key][0].status for g in groups[1:]] == ["ok"] * 5
    assert hung.modules  # a failure is a result: it must go stale when its code changes


def test_a_trial_that_ignores_signals_is_ended_too(paper: MakePaper, mark: str) -> None:
    assert one(group(paper(FAULTS), "deaf", time_limit=0.3)).failure == "time: 0.3 s"


def test_all_trials_of_a_group_share_its_limit(paper: MakePaper) -> None:
    the_group = group(paper(FAULTS), "hang", count=3, time_limit=0.3)
    assert [r.failure for r in run([the_group]).results()] == ["time: 0.3 s"] * 3


def test_a_flood_of_output_is_dropped_and_its_end_kept(paper: MakePaper, mark: str) -> None:
    result = one(group(paper(FAULTS), "flood"))
    assert (result.status, result.failure) == ("failed", "RuntimeError: after the flood")
    assert "the last words: é" in result.detail
    assert "100000022 bytes" in result.detail or "1000000" in result.detail
    assert len(result.detail.partition("--- output ---")[2]) < TAIL + 100


@pytest.mark.parametrize("measure", ["eat", "eat-below"])
def test_memory_is_limited_for_the_whole_tree(paper: MakePaper, mark: str, measure: str) -> None:
    limit = 200 * 2**20
    result = one(group(paper(FAULTS), measure, memory_limit=float(limit)))
    assert result.status == "failed"
    used, of, whole = result.failure.removeprefix("memory: ").partition(" of ")
    assert (of, whole) == (" of ", "200 MiB")
    assert 200 <= float(used.split()[0]) < 450
    assert result.peak_bytes > limit


def test_memory_within_the_limit_is_left_alone(paper: MakePaper) -> None:
    assert one(group(paper(FAULTS), "sound", memory_limit=2.0**30)).status == "ok"


def test_a_daemon_without_a_trace_is_ended_with_its_trial(
    paper: MakePaper, mark: str, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    assert one(group(paper(FAULTS), "daemon", size={"file": str(file)})).status == "ok"
    assert gone(int(file.read_text()), patience=0.5)


@pytest.mark.parametrize("measure", ["respawn", "crowd"])
def test_processes_left_behind_are_ended(paper: MakePaper, mark: str, measure: str) -> None:
    folder = paper(FAULTS)
    kept = run([group(folder, measure), group(folder, "sound")], jobs=1)
    assert [r.status for r in kept.results()] == ["ok", "ok"]
    assert len(kept.kinds("retry")) == 0


def test_only_the_trials_own_process_answers(paper: MakePaper, mark: str) -> None:
    result = one(group(paper(FAULTS), "returns-twice"))
    assert (result.status, result.metrics["child"]) == ("ok", 1.0)


def test_ending_the_process_is_a_failure_of_the_trial(paper: MakePaper, mark: str) -> None:
    folder = paper(FAULTS)
    assert one(group(folder, "exit")).failure == "SystemExit: 3"
    for status in (0, 5):
        result = one(group(folder, "hard-exit", size={"status": status}))
        assert result.status == "failed"
        assert result.failure == f"the process ended with status {status} before the measure returned"
        assert "leaving" in result.detail


def test_a_native_crash_is_tried_again_and_then_lost(paper: MakePaper, mark: str) -> None:
    kept = run([group(paper(FAULTS), "crash")], attempts=2)
    (result,) = kept.results()
    assert (result.status, result.failure) == ("lost", "killed by signal 11 (2 attempts)")
    assert "Segmentation fault" in result.detail
    assert [e.message for e in kept.kinds("retry")] == ["killed by signal 11"]


def test_a_killed_trial_runs_again_in_a_fresh_worker(paper: MakePaper, mark: str, tmp_path: Path) -> None:
    result = one(group(paper(FAULTS), "killed-once", size={"file": str(tmp_path / "pid")}))
    assert (result.status, result.metrics["value"]) == ("ok", 1.0)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_worker_that_is_killed_costs_its_group_alone(
    paper: MakePaper, mark: str, tmp_path: Path, attempts: int
) -> None:
    folder, file = paper(FAULTS), tmp_path / "tries"
    groups = [
        group(folder, "kill-worker", size={"file": str(file)}),
        *(group(folder, "sound", seed=i) for i in range(9)),
    ]
    kept = run(groups, jobs=2, attempts=attempts)
    (lost,) = kept.finished[groups[0].key]
    assert lost.status == "lost"
    assert lost.failure == f"killed by signal 9 ({attempts} attempt{'s' if attempts > 1 else ''})"
    assert len(file.read_text()) == attempts
    assert [r.status for g in groups[1:] for r in kept.finished[g.key]] == ["ok"] * 9


@pytest.mark.parametrize("measure", ["full-disk", "wrapped-disk"])
def test_a_full_disk_is_the_machines_and_not_tried_again(
    paper: MakePaper, tmp_path: Path, measure: str
) -> None:
    file = tmp_path / "tries"
    result = one(group(paper(FAULTS), measure, size={"file": str(file)}))
    assert result.status == "lost"
    assert result.failure.startswith("machine: ")
    assert file.read_text() == "x"


def test_limits_of_a_worker_that_does_not_answer(
    paper: MakePaper, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped worker enforces nothing; its runner does."""
    from claimbench.runner import local

    monkeypatch.setattr(local, "GRACE", 0.5)
    folder = paper("""
        import os, signal, time
        @measure("stop")
        def stop(trial):
            os.kill(os.getppid(), signal.SIGSTOP)
            time.sleep(1000)
    """)
    started = time.monotonic()
    result = one(group(folder, "stop", time_limit=0.5), attempts=1)
    assert (result.status, result.failure) == ("lost", "killed by signal 9 (1 attempt)")
    assert time.monotonic() - started < 10
