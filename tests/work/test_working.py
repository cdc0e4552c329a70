"""Many workers at one plan: no trial twice at once, none lost with a killed worker, foreign code refused, shards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from toy import CLAIMS, PAPER, MakePaper

from claimbench.ledger import TRIAL, Ledger
from claimbench.shelf import Shelf
from claimbench.spec import Group, TrialSpec
from claimbench.work.working import Shard, Worked, work

LEASE = 5.0  # seconds, so that a killed worker's trials are free again soon
TRIALS = 30  # 2 arms, 3 points, 5 seeds

LOGGING = """
import os, random, time

from claimbench.trial import Trial, measure


@measure("larger")
def larger(trial: Trial) -> dict[str, float]:
    def note(what):
        with open({log!r}, "a") as log:
            log.write(f"{{trial.arm}}-{{trial.point['n']}}-{{trial.seed}} {{what}} {{time.monotonic()}}\\n")
    note("begins")
    time.sleep({seconds})
    note("ends")
    noise = random.Random(f"{{trial.seed}}-{{trial.arm}}-{{trial.point}}").gauss(0.0, 0.1)
    return {{"size": trial.point["n"] + (1.0 if trial.arm == "method" else 0.0) + noise}}
"""


def command(tmp_path: Path, place: str, *words: str) -> list[str]:
    shelf = str(tmp_path / "shelf")
    return [sys.executable, "-m", "claimbench", *words, "--shelf", shelf, "--ledger", place]


def run(tmp_path: Path, place: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(tmp_path, place, *words), capture_output=True, text=True, timeout=100)


def start(tmp_path: Path, place: str, *words: str, lease: float = LEASE) -> subprocess.Popen[str]:
    environment = {**os.environ, "CLAIMBENCH_LEASE": str(lease)}
    words = ("work", "--trust", "--json", *words)
    return subprocess.Popen(
        command(tmp_path, place, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> list[dict]:
    out, error = process.communicate(timeout=100)
    assert process.returncode == code, error
    return json.loads(out)


def planned(tmp_path: Path, place: str, *words: str) -> list[dict]:
    done = run(tmp_path, place, "plan", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trials(place: str) -> list[tuple[str, str, int]]:
    with Ledger(place) as store, store.read() as connection:
        columns = sa.select(TRIAL.c.key, TRIAL.c.status, TRIAL.c.fence)
        return [tuple(row) for row in connection.execute(columns)]


def wait_for_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_never_twice_at_once(log: Path, killed: int) -> None:
    """Every trial ended once; those that a kill cut off, or whose result it did, began again when the lease had ended,
    not before.
    """
    spans: dict[str, list[tuple[str, float]]] = {}
    for line in log.read_text().splitlines():
        trial, what, moment = line.split()
        spans.setdefault(trial, []).append((what, float(moment)))
    assert len(spans) == TRIALS
    cut = 0
    for lines in spans.values():
        if [what for what, _ in lines] != ["begins", "ends"]:
            before, last = lines[:-2], lines[-2:]
            assert [what for what, _ in before] in (["begins"], ["begins", "ends"])
            assert [what for what, _ in last] == ["begins", "ends"]
            assert last[0][1] > before[0][1] + 0.5 * LEASE
            cut += 1
    assert cut <= killed


def test_several_workers_share_a_plan_and_a_killed_one_loses_nothing(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    log = tmp_path / "log"
    make_paper(claims=LOGGING.format(log=str(log), seconds=0.15))
    (item,) = planned(tmp_path, place, "toy")
    assert (item["planned"], len(item["missing"])) == (TRIALS, TRIALS)
    workers = [start(tmp_path, place, "--jobs", "1") for _ in range(3)]
    wait_for_lines(log, 8)
    workers[0].kill()
    workers[0].communicate()
    answers = [finish(worker) for worker in workers[1:]]
    states = [outcome["verdict"]["state"] for (outcome,) in answers if outcome["verdict"]]
    assert set(states) == {"holds"}
    found = trials(place)
    assert (len(found), len({key for key, _, _ in found})) == (TRIALS, TRIALS)
    assert {key for key, _, _ in found} == {trial["key"] for trial in item["missing"]}
    assert_never_twice_at_once(log, killed=1)
    (again,) = planned(tmp_path, place, "toy")
    assert (again["set"], again["missing"]) == (item["set"], [])


def test_shards_part_the_trials_and_the_last_one_judges(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper()
    planned(tmp_path, place, "toy")
    ran = [finish(start(tmp_path, place, "--shard", f"{i}/3", "--jobs", "2")) for i in (1, 2, 3)]
    assert [outcome["missing"] for (outcome,) in ran][-1] == 0
    assert sum(outcome["ran"] for (outcome,) in ran) == TRIALS
    assert min(outcome["ran"] for (outcome,) in ran) > 0
    assert [outcome["verdict"] is not None for (outcome,) in ran] == [False, False, True]
    assert len(trials(place)) == TRIALS


def test_every_trial_is_in_one_shard_whoever_asks() -> None:
    groups = [
        Group((TrialSpec("p", "m", "a", {}, seed),), folder=Path(), metrics=("size",)) for seed in range(600)
    ]
    held = [[g.key for g in groups if Shard(i, 5).holds(g)] for i in range(1, 6)]
    assert sorted(key for part in held for key in part) == sorted(g.key for g in groups)
    assert all(80 < len(part) < 160 for part in held)  # 120 expected, standard deviation 10
    assert Shard.parse("3/5") == Shard(3, 5)


@pytest.mark.parametrize("word", ["0/3", "4/3", "1", "a/b", "-1/3", "1/0"])
def test_what_is_no_shard_is_one_line(word: str, tmp_path: Path) -> None:
    done = run(tmp_path, str(tmp_path / "l.sqlite"), "work", f"--shard={word}")
    assert done.returncode == 2
    assert done.stderr == f'claimbench: --shard: "{word}" is no part; write it as 1/8, the first of eight\n'


def test_other_code_is_refused_in_one_line_and_other_papers_go_on(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    edited = make_paper("edited")
    make_paper("other")
    planned(tmp_path, place, "edited", "other")
    (edited / "claims.py").write_text(CLAIMS.replace("1.0 if", "2.0 if"))
    done = run(tmp_path, place, "work", "--trust")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "edited" in line]
    assert line == (
        "claimbench: edited/larger: its code here is not what was planned: module shelf.theory.edited.claims; "
        "take the code it was planned with, or plan it again: claimbench plan edited/larger"
    )
    assert "HOLDS      other/larger" in done.stdout
    assert len(trials(place)) == TRIALS
    (edited / "claims.py").write_text(f'"""Words."""\n{CLAIMS}  # more words\n')
    assert run(tmp_path, place, "work", "--trust").returncode == 0
    assert len(trials(place)) == 2 * TRIALS


def test_code_edited_while_it_runs_is_not_measured_further(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    log = tmp_path / "log"
    claims = LOGGING.format(log=str(log), seconds=0.3)
    folder = make_paper(claims=claims)
    planned(tmp_path, place, "toy")
    worker = start(tmp_path, place, "--jobs", "1")
    wait_for_lines(log, 2)
    (folder / "claims.py").write_text(claims.replace("1.0 if", "2.0 if"))
    out, error = worker.communicate(timeout=60)
    assert worker.returncode == 2
    assert "toy/larger: its code here is not what was planned" in error
    assert 0 < len(trials(place)) < TRIALS
    assert json.loads(out)[0]["missing"] == TRIALS - len(trials(place))


def test_trials_measured_with_other_packages_are_not_mixed_in(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper()
    planned(tmp_path, place, "toy")
    finish(start(tmp_path, place, "--shard", "1/2"))
    with Ledger(place) as store, store.write() as connection:
        connection.execute(sa.text("""update code set packages = '{"numpy":"0.0.1"}'"""))
    done = run(tmp_path, place, "work", "--trust")
    assert done.returncode == 2
    assert "toy/larger: its code here is not what was planned: package numpy 0.0.1 -> " in done.stderr


def test_a_plan_for_another_kind_of_machine_is_left_alone(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper()
    planned(tmp_path, place, "toy")
    with Ledger(place) as store, store.write() as connection:
        connection.execute(sa.text("update planned set environment = 'elsewhere'"))
    done = run(tmp_path, place, "work", "--trust")
    assert done.returncode == 2
    assert "claimbench: toy/larger was planned for machines like " in done.stderr
    assert trials(place) == []


def test_what_is_not_planned_is_named(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    make_paper()
    done = run(tmp_path, place, "work", "toy")
    assert done.returncode == 2
    assert "toy: not planned in " in done.stderr
    assert "claimbench plan toy" in done.stderr
    done = run(tmp_path, place, "work")
    assert (done.returncode, done.stdout) == (0, "nothing is missing: every plan in the ledger is complete\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_worker_keeps_what_is_finished_and_lets_go(
    place: str, tmp_path: Path, make_paper: MakePaper, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    make_paper(claims=LOGGING.format(log=str(log), seconds=0.1))
    planned(tmp_path, place, "toy")
    worker = start(tmp_path, place, "--jobs", "1", lease=1000.0)
    wait_for_lines(log, 7)
    worker.send_signal(number)
    _, error = worker.communicate(timeout=60)
    assert worker.returncode == 130
    assert "finished trials are kept" in error
    kept = len(trials(place))
    assert kept >= 3
    (outcome,) = finish(start(tmp_path, place, "--jobs", "2", lease=1000.0))  # it waits for no lease
    assert outcome["ran"] == TRIALS - kept
    assert outcome["verdict"]["state"] == "holds"


# --- in this process ---


def do_work(store: Ledger, tmp_path: Path, *targets: str, shard: Shard | None = None) -> Worked:
    return work(
        targets,
        ledger=store,
        shelf=Shelf([tmp_path / "shelf"]),
        shard=shard,
        jobs=2,
        may_trust=lambda root: True,
    )


TUNED = PAPER.replace(
    "[claim.scales.smoke]", "[claim.tuning]\nlr = [0.1, 0.2, 0.3]\n[claim.scales.smoke]"
).replace("sweep = {{ n = [1, 2, 4] }}\n", "sweep = {{ n = [4] }}\n")
TUNED_CLAIMS = CLAIMS.replace(
    "    noise =", '    if trial.tuned("lr") != 0.2:\n        return {"size": 0.0}\n    noise ='
)


def test_tuning_comes_first_and_every_shard_shares_it(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper(toml=TUNED, claims=TUNED_CLAIMS)
    (item,) = planned(tmp_path, place, "toy")
    assert item["tuning"]
    assert len(item["missing"]) == 12  # 2 arms, 3 values, 2 seeds
    with Ledger(place) as store:
        first = do_work(store, tmp_path, shard=Shard(1, 2))
        (then,) = planned(tmp_path, place, "toy")
        assert not then["tuning"]
        assert {trial["tuned"]["lr"] for trial in then["missing"]} == {0.2}
        second = do_work(store, tmp_path, shard=Shard(2, 2))
    assert first.outcomes[0].verdict is None
    assert second.outcomes[0].verdict is not None
    assert second.outcomes[0].verdict.state == "holds"
    assert len(trials(place)) == 12 + 10


def test_workers_go_on_to_later_looks_if_the_plan_says_so(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    unclear = PAPER.replace("at_least = 0.5", "at_least = 1.0")  # the effect lies at the bound
    make_paper(toml=unclear.replace("sweep = {{ n = [1, 2, 4] }}\n", "sweep = {{ n = [4] }}\n"))
    with Ledger(place) as store:
        planned(tmp_path, place, "toy")
        (outcome,) = do_work(store, tmp_path).outcomes
        assert (outcome.verdict.state, outcome.ran) == ("undecided", 10)  # type: ignore[union-attr]  # it has one
        planned(tmp_path, place, "toy", "--until-decided")
        (outcome,) = do_work(store, tmp_path).outcomes
        assert outcome.verdict is not None
        assert outcome.verdict.look > 1
        assert outcome.verdict.state != "undecided" or outcome.verdict.look == len(outcome.verdict.schedule)
        assert do_work(store, tmp_path).outcomes == []


def test_one_claim_planned_in_several_ways_is_worked_at_in_all(
    place: str, tmp_path: Path, make_paper: MakePaper
) -> None:
    make_paper()
    for words in (["--scale", "smoke"], [], ["--here"], ["--fresh"]):
        planned(tmp_path, place, "toy", *words)
    with Ledger(place) as store:
        outcomes = do_work(store, tmp_path).outcomes
        assert sorted(outcome.ran for outcome in outcomes) == [6, TRIALS, TRIALS, TRIALS]
        assert [outcome.missing for outcome in outcomes] == [0] * 4
        assert {row.replication for row in store.sets()} == {0, 1}


def test_a_worker_that_always_dies_gives_up(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    make_paper(
        claims=CLAIMS.replace(
            "    noise =", "    __import__('os').kill(__import__('os').getpid(), 9)\n    noise ="
        )
    )
    planned(tmp_path, place, "toy", "--at", "n=4", "--scale", "smoke")
    with Ledger(place) as store:
        (outcome,) = do_work(store, tmp_path).outcomes
    assert outcome.missing == 2
    assert {status for _, status, _ in trials(place)} == {"lost"}


def test_a_round_of_times_is_not_measured_twice(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    toml = PAPER.replace("metrics.size =", "timing = true\nmetrics.size =").replace(
        'kind = "mean"', 'kind = "time"'
    )
    claims = """
from claimbench.trial import measure

@measure("larger")
def larger(trials):
    import time
    time.sleep(0.2)
    return [{"size": t.point["n"] + (1.0 if t.arm == "method" else 0.0)} for t in trials]
"""
    toml = toml.replace("varies =", 'together = ["arm"]\nvaries =')
    make_paper(toml=toml.replace("sweep = {{ n = [1, 2, 4] }}\n", "sweep = {{ n = [4] }}\n"), claims=claims)
    (item,) = planned(tmp_path, place, "toy")
    workers = [start(tmp_path, place) for _ in range(2)]
    for worker in workers:
        worker.communicate(timeout=100)
    found = trials(place)
    assert len(found) == len({key for key, _, _ in found}) == item["planned"]


def test_a_planned_set_is_rechecked_like_any_other(place: str, tmp_path: Path, make_paper: MakePaper) -> None:
    folder = make_paper()
    planned(tmp_path, place, "toy")
    finish(start(tmp_path, place))
    (folder / "claims.py").write_text(CLAIMS.replace("import random", "import math\nimport random"))
    done = run(tmp_path, place, "recheck", "toy")
    assert done.stdout == "toy/larger (quick): carried forward\n", done.stderr
