"""What groups run, where, in which order, and what the caller is told."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Kept, group, one, run

from claimbench.currency import is_current, source_digest
from claimbench.errors import UserError
from claimbench.runner.local import LocalRunner
from claimbench.spec import Group
from claimbench.subjects import prepare, resolve_subject

MakePaper = Callable[..., Path]

PLAIN = """
import os, random, time

SEEN = []

@measure("seed")
def seed(trial):
    return {"value": trial.seed, "arm_length": len(trial.arm)}

@measure("random")
def draw(trial):
    return {"value": random.random()}

@measure("state")
def state(trial):
    SEEN.append(trial.seed)
    return {"value": len(SEEN)}

@measure("worker")
def worker(trial):
    return {"value": os.getppid(), "threads": int(os.environ["OMP_NUM_THREADS"])}

@measure("slow")
def slow(trial):
    time.sleep(trial.size["seconds"])
    return {"value": 0}

@measure("build")
def build(trial):
    with trial.context.paused("base model"):
        time.sleep(1.0)
    trial.context.artefact("abc", 12.5, {"made-with": "1.0"})
    return {"value": 1}

@measure("span")
def span(trial):
    started = time.monotonic()
    time.sleep(0.1)
    return {"value": started, "end": time.monotonic(), "worker": os.getppid()}
"""


def test_each_trial_gets_its_own_answer_once(paper: MakePaper, mark: str) -> None:
    folder = paper(PLAIN)
    groups = [group(folder, "seed", seed=i) for i in range(40)]
    kept = run(groups, jobs=3)
    assert {key: results[0].metrics["value"] for key, results in kept.finished.items()} == {
        g.key: g.specs[0].seed for g in groups
    }
    assert all(
        result.status == "ok" and result.spec in [g.specs[0] for g in groups] for result in kept.results()
    )
    assert len(kept.kinds("started")) == len(kept.kinds("finished")) == 40
    assert not kept.kinds("retry")


def test_trials_do_not_see_each_others_state(paper: MakePaper) -> None:
    folder = paper(PLAIN)
    kept = run([group(folder, "state", seed=i) for i in range(6)], jobs=1)
    assert [r.metrics["value"] for r in kept.results()] == [1.0] * 6


def test_the_global_generator_follows_the_seed(paper: MakePaper) -> None:
    folder = paper(PLAIN)
    values = [one(group(folder, "random", seed=s)).metrics["value"] for s in (7, 7, 8)]
    assert values[0] == values[1] != values[2]


def test_a_worker_is_reused_for_a_paper_and_never_shared_by_two(paper: MakePaper) -> None:
    first, second = paper(PLAIN, "first"), paper(PLAIN, "second")
    groups = [group(f, "worker", seed=i) for i in range(5) for f in (first, second)]
    kept = run(groups, jobs=2)
    workers = {
        f: {r.metrics["value"] for r in kept.results() if r.spec.paper == f.name} for f in (first, second)
    }
    assert len(workers[first]) == len(workers[second]) == 1
    assert workers[first] != workers[second]


def test_threads_of_a_trial_are_its_specs(paper: MakePaper) -> None:
    kept = run([group(paper(PLAIN), "worker", threads=n) for n in (1, 3)])
    assert {r.spec.threads: r.metrics["threads"] for r in kept.results()} == {1: 1.0, 3: 3.0}


def test_a_subjects_library_is_imported_before_the_trial(paper: MakePaper, shared_cache: None) -> None:
    """Not by each trial again: then an embedded language model opens in under two seconds from its second use."""
    pytest.importorskip("transformers")
    folder = paper(
        """
import sys, time

@measure("open")
def opened(trial):
    before = set(sys.modules)
    started = time.process_time()
    model = trial.subject["model"].model
    seconds = time.process_time() - started
    return {"value": seconds, "imported": sum(name.startswith("transformers") for name in set(sys.modules) - before)}
"""
    )
    ref = resolve_subject("causal-lm", "smollm2-135m")
    prepare([ref])
    result = one(group(folder, "open", subjects={"model": ref}, metrics=("value", "imported")))
    assert result.status == "ok", result.detail
    metrics = result.metrics
    assert metrics["imported"] == 0
    assert metrics["value"] < 2


def test_no_more_than_jobs_at_once(paper: MakePaper) -> None:
    folder = paper(PLAIN)
    kept = run([group(folder, "span", seed=i, metrics=()) for i in range(9)], jobs=3)
    spans = [(r.metrics["value"], r.metrics["end"]) for r in kept.results()]
    most = max(sum(start <= at < end for start, end in spans) for at, _ in spans)
    assert 1 < most <= 3


def test_begin_may_skip(paper: MakePaper) -> None:
    folder = paper(PLAIN)
    groups = [group(folder, "seed", seed=i) for i in range(10)]
    finished: list[int] = []
    LocalRunner(jobs=2).run(
        groups,
        begin=lambda g: g.specs[0].seed % 2 == 0,
        finish=lambda g, results: finished.append(g.specs[0].seed),
        tick=lambda: None,
    )
    assert sorted(finished) == [0, 2, 4, 6, 8]


def test_an_error_of_the_callers_ends_everything(paper: MakePaper, mark: str) -> None:
    folder = paper(PLAIN)

    def finish(g: Group, results: object) -> None:
        raise UserError("the ledger is full")

    groups = [group(folder, "seed"), group(folder, "slow", size={"seconds": 60})]
    with pytest.raises(UserError, match="ledger is full"):
        LocalRunner(jobs=2).run(groups, begin=lambda g: True, finish=finish, tick=lambda: None)


def test_tick_comes_every_second(paper: MakePaper) -> None:
    kept = run([group(paper(PLAIN), "slow", size={"seconds": 3.0})])
    gaps = [b - a for a, b in zip(kept.ticks, kept.ticks[1:], strict=False)]
    assert len(kept.ticks) >= 4
    assert max(gaps) < 1.0


def test_building_shared_set_up_stops_the_clock(paper: MakePaper) -> None:
    the_group = group(paper(PLAIN), "build", time_limit=0.6)
    kept = run([the_group])
    (result,) = kept.finished[the_group.key]
    assert (result.status, result.artefacts) == ("ok", {"abc": 12.5})
    assert result.packages["made-with"] == "1.0"
    assert result.seconds < 0.6
    assert [e.message for e in kept.kinds("building")] == ["base model"]


def test_cost_is_recorded(paper: MakePaper) -> None:
    result = one(group(paper(PLAIN), "slow", size={"seconds": 0.3}))
    assert 0.3 <= result.seconds < 3.0
    assert 2**20 < result.peak_bytes < 2**30


# --- timing groups ---


def test_times_are_measured_alone_in_fresh_workers(paper: MakePaper) -> None:
    folder = paper(PLAIN)
    timed = [group(folder, "span", seed=100 + i, metrics=(), timing=True) for i in range(3)]
    ordinary = [group(folder, "span", seed=i, metrics=()) for i in range(4)]
    kept = run([*timed, *ordinary], jobs=4)
    spans = {key: (r[0].metrics["value"], r[0].metrics["end"]) for key, r in kept.finished.items()}
    for g in timed:
        start, end = spans[g.key]
        others = [span for key, span in spans.items() if key != g.key]
        assert not any(s < end and start < e for s, e in others)
        assert all(s < start for key, (s, _) in spans.items() if key not in {t.key for t in timed})
    assert len({kept.finished[g.key][0].metrics["worker"] for g in timed}) == 3


def test_one_timing_run_a_machine_at_a_time(
    paper: MakePaper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    the_group = group(paper(PLAIN), "span", metrics=(), timing=True)
    with (tmp_path / f"claimbench-timing-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        released: list[float] = []

        def release() -> None:
            time.sleep(1.5)
            released.append(time.monotonic())
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=release)
        thread.start()
        kept = run([the_group])
        thread.join()
    assert kept.finished[the_group.key][0].metrics["value"] > released[0]
    assert ["timing" in e.message for e in kept.kinds("progress")] == [True]
    assert sum(at < released[0] for at in kept.ticks) >= 2


# --- papers whose code cannot run ---


def refused(groups: list[Group]) -> tuple[str, Kept]:
    kept = Kept()
    with pytest.raises(UserError) as caught:
        run(groups, kept=kept)
    return str(caught.value), kept


def test_a_syntax_error_names_file_and_line_and_costs_no_other_paper(paper: MakePaper, mark: str) -> None:
    broken, sound = paper("\n\ndef recall(trial:\n", "broken"), paper(PLAIN, "sound")
    groups = [
        *(group(broken, "recall", seed=i) for i in range(5)),
        *(group(sound, "seed", seed=i) for i in range(5)),
    ]
    message, kept = refused(groups)
    assert message.startswith(f"{broken / 'claims.py'}:4: SyntaxError")
    assert "\n" not in message
    assert len(kept.finished) == 5
    assert {r.spec.paper for r in kept.results()} == {"sound"}
    assert len(kept.kinds("refused")) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "import no_such_package_here",
            "needs the package no_such_package_here; pip install no_such_package_here",
        ),
        ("from . import helper", "helper.py:3: ZeroDivisionError"),
        ("from .modle import x", "claims.py:2: ModuleNotFoundError"),
        ("raise SystemExit(3)", "claims.py:2: SystemExit: 3"),
        ("import os; os._exit(9)", "the worker ended with status 9 while it was imported"),
        ("import os; os.abort()", "killed by signal 6 while it was imported"),
    ],
)
def test_what_goes_wrong_at_import(paper: MakePaper, code: str, expected: str) -> None:
    message, kept = refused([group(paper(code, helper="\n\n1 / 0\n"), "recall")])
    assert expected in message
    assert not kept.begun


def test_a_package_that_a_measure_misses_is_no_failure_of_its_arm(paper: MakePaper) -> None:
    folder = paper("@measure('m')\ndef m(trial):\n    import no_such_package_here\n")
    message, kept = refused([group(folder, "m")])
    assert "needs the package no_such_package_here" in message
    assert not kept.finished


def test_an_unknown_measure_names_the_nearest(paper: MakePaper) -> None:
    message, _ = refused([group(paper(PLAIN), "sede")])
    assert message.endswith('claims.py: no @measure("sede"); did you mean "seed"?')


def test_a_missing_claims_file(tmp_path: Path) -> None:
    message, _ = refused([group(tmp_path, "m")])
    assert f"{tmp_path / 'claims.py'} is missing" in message


def test_jobs_must_be_positive() -> None:
    with pytest.raises(UserError, match="jobs: 0"):
        LocalRunner(jobs=0)


def test_an_import_that_leaves_threads_behind_is_not_forked(paper: MakePaper) -> None:
    folder = paper("""
        import os, threading, time
        IMPORTED_IN = os.getpid()
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

        @measure("m")
        def m(trial):
            return {"value": os.getpid() == IMPORTED_IN}
    """)
    kept = run([group(folder, "m", seed=i) for i in range(3)], jobs=1)
    assert [r.metrics["value"] for r in kept.results()] == [1.0] * 3
    assert all(len(r.modules) >= 2 for r in kept.results())
    assert ["threads" in event.message for event in kept.kinds("progress")] == [
        True
    ]  # its author should know


def test_libraries_that_measures_use_leave_no_threads_behind(paper: MakePaper) -> None:
    """Their import is the worker's, not every trial's again."""
    folder = paper(
        """
import os

import pyarrow
import sklearn.linear_model

IMPORTED_IN = os.getpid()

@measure("here")
def here(trial):
    return {"value": IMPORTED_IN == os.getppid()}
"""
    )
    assert one(group(folder, "here")).metrics["value"] == 1


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/shelf/theory/gr\xf6sse"))
    folder.mkdir(parents=True)
    (folder / "claims.py").write_text(
        "from claimbench.trial import measure\n@measure('m')\ndef m(t): return {'value': 1}\n"
    )
    spec = group(tmp_path, "m").specs
    assert one(Group(specs=spec, folder=folder, metrics=("value",))).status == "ok"


def test_results_say_which_code_and_packages_made_them(paper: MakePaper) -> None:
    code = """
        from . import helper
        @measure("m")
        def m(trial):
            import numpy
            from . import lazy
            return {"value": numpy.float32(helper.VALUE + lazy.VALUE)}
    """
    folder = paper(code, helper="VALUE = 1", lazy="VALUE = 2")
    result = one(group(folder, "m"))
    ends = {name.rpartition(".")[2] for name in result.modules if name.startswith("claimbench_shelf_")}
    assert ends == {"claims", "helper", "lazy"}
    assert "claimbench.trial" in result.modules
    assert not any(name.startswith(("claimbench.runner", "claimbench.currency")) for name in result.modules)
    assert set(result.packages) == {"numpy"}
    json.dumps([result.modules, result.packages])


def test_editing_a_paper_while_it_runs_does_not_pass_for_what_ran(paper: MakePaper) -> None:
    code = """
        import pathlib
        HERE = pathlib.Path(__file__)

        @measure("edit")
        def edit(trial):
            HERE.write_text(HERE.read_text() + "\\nEDITED = 1\\n")
            (HERE.parent / "lazy.py").write_text("VALUE = 1\\n")
            from . import lazy
            return {"value": lazy.VALUE}
    """
    folder = paper(code)
    before = source_digest(folder / "claims.py")
    kept = run([group(folder, "edit", seed=i) for i in range(2)], jobs=1)
    assert source_digest(folder / "claims.py") != before
    for result in kept.results():
        digests = {name.rpartition(".")[2]: digest for name, digest in result.modules.items()}
        assert digests["claims"] == before
        assert digests["lazy"] != source_digest(
            folder / "lazy.py"
        )  # written after imports began: unknown what ran
        assert not is_current(result.modules, result.packages)
