"""The whole way: command to verdict, resumption, looks, replications, staleness, recheck, tuning, derived numbers."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toy import CLAIMS, PAPER, MakePaper

from claimbench import bench
from claimbench.errors import UserError
from claimbench.ledger import Ledger
from claimbench.plan import Plan
from claimbench.report import report
from claimbench.session import Outcome
from claimbench.shelf import Shelf
from claimbench.spec import SubjectRef
from claimbench.summaries import command


@pytest.fixture
def store(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "l.sqlite")


def run(tmp_path: Path, store: Ledger, target: str = "toy", **options: Any) -> list[Outcome]:
    shelf = Shelf.find([tmp_path / "shelf"])
    return bench.run(target, shelf=shelf, ledger=store, may_trust=lambda root: True, jobs=2, **options)


def counted(tmp_path: Path) -> tuple[int, int]:
    """Trials and distinct keys in the ledger's file."""
    with sqlite3.connect(tmp_path / "l.sqlite") as connection:
        trials, keys = connection.execute("select count(*), count(distinct key) from trial").fetchone()
    return trials, keys


def test_a_claim_is_measured_judged_and_not_measured_again(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    make_paper()
    (first,) = run(tmp_path, store)
    assert first.verdict is not None
    assert (first.verdict.state, first.ran, first.failed) == ("holds", 30, 0)
    (again,) = run(tmp_path, store)
    assert (again.ran, again.set_uid) == (0, first.set_uid)
    assert counted(tmp_path) == (30, 30)


def test_a_set_goes_on_to_later_looks_only_while_undecided(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    make_paper(toml=PAPER.replace("scale_of_noise = 0.1", "scale_of_noise = 0.35"))
    (first,) = run(tmp_path, store)
    assert first.verdict is not None
    assert first.verdict.look == 1
    (later,) = run(tmp_path, store, until_decided=True)
    assert later.verdict is not None
    if first.verdict.state == "undecided":
        assert later.set_uid == first.set_uid
        assert len(later.verdict.seeds) in (8, 12)
    assert len(later.verdict.seeds) in later.verdict.schedule


def test_smoke_proves_that_it_runs_and_gives_no_verdict(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    make_paper()
    (outcome,) = run(tmp_path, store, scale="smoke")
    assert (outcome.ran, outcome.verdict) == (6, None)


def test_a_replication_uses_new_seeds_and_replaces_nothing(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    make_paper()
    (first,) = run(tmp_path, store)
    (second,) = run(tmp_path, store, fresh=True)
    assert first.verdict is not None
    assert second.verdict is not None
    assert set(first.verdict.seeds).isdisjoint(second.verdict.seeds)
    rows = report("toy", ledger=store, shelf=Shelf.find([tmp_path / "shelf"]))
    assert [row.set.replication for row in rows] == [0, 1]


def test_a_changed_bound_is_rejudged_without_measuring_and_said(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    make_paper()
    run(tmp_path, store)
    make_paper(toml=PAPER.replace("at_least = 0.5", "at_least = 1.5"))
    (outcome,) = run(tmp_path, store)
    assert outcome.verdict is not None
    assert (outcome.ran, outcome.verdict.state) == (0, "fails")
    assert any("rules were changed" in note for note in outcome.verdict.notes)


def test_words_do_not_make_a_verdict_stale_and_code_does(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    make_paper()
    run(tmp_path, store)
    shelf = Shelf.find([tmp_path / "shelf"])
    make_paper(claims=f'"""Words."""\n{CLAIMS}# more words\n')
    assert report("toy", ledger=store, shelf=shelf)[0].stale == ()
    make_paper(claims=CLAIMS.replace("random.Random(", "random.Random(str() + "))
    assert len(report("toy", ledger=store, shelf=shelf)[0].stale) == 1
    (answer,) = bench.recheck("toy", ledger=store, shelf=shelf, jobs=2)
    assert answer["state"] == "carried forward"
    assert report("toy", ledger=store, shelf=shelf)[0].stale == ()
    make_paper(claims=CLAIMS.replace("1.0 if", "2.0 if"))
    (answer,) = bench.recheck("toy", ledger=store, shelf=shelf, jobs=2)
    assert answer["state"] == "stale: results changed"
    (outcome,) = run(tmp_path, store)
    assert outcome.ran == 24  # the recheck measured the first seed with this code
    assert len(report("toy", ledger=store, shelf=shelf, history=True)) == 2


def test_a_recheck_compares_trials_that_did_not_apply_by_their_state(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    raising = 'if trial.arm == "baseline" and trial.point["n"] == 1:\n        raise NotApplicable("no")\n    noise ='
    claims = CLAIMS.replace("noise =", raising).replace("import Trial", "import NotApplicable, Trial")
    make_paper(claims=claims)
    run(tmp_path, store)
    make_paper(claims=claims.replace("random.Random(", "random.Random(str() + "))
    shelf = Shelf.find([tmp_path / "shelf"])
    (answer,) = bench.recheck("toy", ledger=store, shelf=shelf, jobs=2)
    assert answer["state"] == "carried forward"
    make_paper(claims=claims.replace('["n"] == 1', '["n"] == 0'))
    (answer,) = bench.recheck("toy", ledger=store, shelf=shelf, jobs=2)
    assert answer == {
        **answer,
        "state": "stale: results changed",
        "differing": ["baseline at {'n': 1}: not-applicable -> ok"],
    }


def test_a_recheck_repeats_together_what_was_measured_together(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    """A measure whose numbers depend on the company, as a batched product's last digits do."""
    toml = PAPER.replace("size = {{ scale", 'together = ["seed"]\nsize = {{ scale')
    claims = CLAIMS.replace("def larger(trial: Trial) -> dict[str, float]:", "def one(trial, off):")
    claims = claims.replace('@measure("larger")\n', "").replace("+ noise}", "+ noise + off}")
    claims += (
        '@measure("larger")\ndef larger(trials):\n    return [one(t, 1e-9 * len(trials)) for t in trials]\n'
    )
    make_paper(toml=toml, claims=claims)
    (first,) = run(tmp_path, store)
    assert first.failed == 0
    make_paper(toml=toml, claims=claims.replace("random.Random(", "random.Random(str() + "))
    (answer,) = bench.recheck("toy", ledger=store, shelf=Shelf.find([tmp_path / "shelf"]), jobs=2)
    assert answer["state"] == "carried forward"


def test_a_failing_arm_counts_as_its_on_failure_and_is_counted(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    raising = 'if trial.arm == "baseline":\n        raise RuntimeError("it diverged")\n    noise ='
    make_paper(claims=CLAIMS.replace("noise =", raising))
    (outcome,) = run(tmp_path, store)
    assert outcome.failed == 15
    assert outcome.verdict is not None
    assert outcome.verdict.state == "holds"  # on_failure = 0.0 for the baseline
    assert outcome.verdict.failed == 15


DERIVED = """
from claimbench.trial import Table, derive


@derive("larger")
def gap(seed: Table) -> dict[str, float]:
    return {"gap": seed.value("size", arm="method", n=4) - seed.value("size", arm="baseline", n=4)}
"""


def test_derived_numbers_are_judged(make_paper: MakePaper, tmp_path: Path, store: Ledger) -> None:
    toml = PAPER.replace(
        "sweep =", 'metrics.gap = {{ kind = "mean", derived = true, better = "higher" }}\nsweep ='
    ).replace("at_least = 0.5 }}", 'at_least = 0.5 }}, {{ effect = "value", metric = "gap", at_most = 0.1 }}')
    make_paper(toml=toml, claims=CLAIMS + DERIVED)
    (outcome,) = run(tmp_path, store)
    assert outcome.verdict is not None
    assert outcome.verdict.state == "fails"
    assert [rule.state for rule in outcome.verdict.rules] == ["holds", "fails"]
    make_paper("other", toml=toml, claims=CLAIMS)
    with pytest.raises(UserError, match=r'claims.py: no @derive\("larger"\)'):
        run(tmp_path, store, "other")


TUNED = """
from claimbench.trial import Trial, measure


@measure("larger")
def larger(trial: Trial) -> dict[str, float]:
    best = {"method": 0.3, "baseline": 0.1}[trial.arm]
    if trial.size.get("tuning"):
        assert trial.seed >= 1_000_000
    return {"size": 1.0 - abs(trial.tuned("lr") - best) + trial.seed % 3 / 1000}
"""


def test_every_arm_is_tuned_on_the_same_grid_with_seeds_of_its_own(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    toml = PAPER.replace("[claim.scales.smoke]", "[claim.tuning]\nlr = [0.1, 0.3]\n[claim.scales.smoke]")
    make_paper(toml=toml, claims=TUNED)
    (outcome,) = run(tmp_path, store)
    trials = store.trials(outcome.set_uid)
    assert {(t["arm"], t["tuned"]["lr"]) for t in trials} == {("method", 0.3), ("baseline", 0.1)}
    assert all(t["seed"] < 1_000_000 for t in trials)
    (tuning,) = store.sets(paper="toy", claim="larger#tuning")
    assert len(store.trials(tuning.uid)) == 2 * 3 * 2 * 2
    (again,) = run(tmp_path, store)
    assert again.ran == 0


def test_the_users_own_sizes_are_labelled(make_paper: MakePaper, tmp_path: Path, store: Ledger) -> None:
    make_paper()
    (outcome,) = run(
        tmp_path, store, sizes={"scale_of_noise": "0.2"}, at={"n": ["2"]}, arms=["method", "baseline"]
    )
    assert outcome.own
    assert outcome.ran == 10
    assert outcome.verdict is not None
    assert any("own setting" in note for note in outcome.verdict.notes)


def slow(seconds: float) -> str:
    """The toy's claims.py with a measure that takes a while."""
    slept = CLAIMS.replace("noise =", f"time.sleep({seconds})\n    noise =")
    return slept.replace("import random", "import random\nimport time")


def command_of(tmp_path: Path) -> list[str]:
    places = ["--shelf", str(tmp_path / "shelf"), "--ledger", str(tmp_path / "l.sqlite")]
    return [sys.executable, "-m", "claimbench", "run", "toy", *places, "--trust"]


def test_two_runs_at_once_never_run_one_trial_twice(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper(claims=slow(0.1))
    command = [*command_of(tmp_path), "--json"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert '"state": "holds"' in output
    assert counted(tmp_path) == (30, 30)


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper(claims=slow(0.2))
    command = command_of(tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (tmp_path / "l.sqlite").exists():
            try:
                if counted(tmp_path)[0] >= 4:
                    break
            except sqlite3.OperationalError:
                continue  # the tables are being made
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "finished trials are kept" in errors
    kept = counted(tmp_path)[0]
    assert 4 <= kept < 30
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f'"ran": {30 - kept}' in done.stdout
    assert counted(tmp_path) == (30, 30)


def test_a_foreign_shelf_is_asked_about_once(make_paper: MakePaper, tmp_path: Path, store: Ledger) -> None:
    make_paper()
    shelf = Shelf.find([tmp_path / "shelf"])
    asked: list[Path] = []

    def no(root: Path) -> bool:
        asked.append(root)
        return False

    with pytest.raises(UserError, match="is not trusted to run code here"):
        bench.run("toy", shelf=shelf, ledger=store, may_trust=no, scale="smoke")
    bench.run("toy", shelf=shelf, ledger=store, may_trust=lambda root: True, scale="smoke")
    bench.run("toy", shelf=shelf, ledger=store, may_trust=no, scale="smoke")
    assert len(asked) == 1


def with_subjects(more: str = "") -> str:
    subjects = ", ".join(['runs = {{ kind = "text", default = "" }}', *([more] if more else [])])
    return PAPER.replace("caveat =", f"subjects = {{{{ {subjects} }}}}\ncaveat =")


ASKING = CLAIMS.replace(
    "noise =",
    """if "runs" in trial.subject:
        return {"size": float(sum(len(document.text) for document in trial.subject["runs"].documents))}
    noise =""",
)


def ref(kind: str, value: str = "own") -> SubjectRef:
    return SubjectRef(kind, value, identity=f"hash of {value}", label=value)


def planned(tmp_path: Path, **options: Any) -> tuple[list[Plan], list[Outcome]]:
    return bench.plan("toy", shelf=Shelf.find([tmp_path / "shelf"]), device="cpu", **options)


def test_an_optional_subject_is_there_only_if_the_user_gives_it(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    text = tmp_path / "own.txt"
    text.write_text("\n".join(f"line {index} of words" for index in range(6000)))
    make_paper(toml=with_subjects(), claims=ASKING)
    ((plain,), _) = planned(tmp_path)
    assert plain.subjects == {}
    assert "subjects" in plain.content()
    assert not plain.content()["subjects"]
    (outcome,) = run(tmp_path, store, scale="smoke")
    assert max(t["metrics"]["size"] for t in store.trials(outcome.set_uid)) < 10
    (outcome,) = run(tmp_path, store, scale="smoke", subjects={"runs": str(text)})
    assert outcome.own
    assert max(t["metrics"]["size"] for t in store.trials(outcome.set_uid)) > 10_000
    (row,) = [r for r in store.sets(paper="toy") if r.uid == outcome.set_uid]
    paper, (claim,) = Shelf.find([tmp_path / "shelf"]).resolve("toy/larger")
    assert "--subject runs=YOUR-OWN" in command(paper, claim, row)


@pytest.mark.parametrize(
    ("more", "options", "replaced"),
    [
        ("", {"data": ref("text")}, {"runs"}),  # the only one of its kind
        ('x = {{ kind = "text", default = "wheel-docs" }}', {"data": ref("text")}, {"x"}),
        ('x = {{ kind = "text", default = "" }}', {"data": ref("text")}, None),  # which of the two?
        ('x = {{ kind = "table", default = "" }}', {"subjects": {"x": ref("table")}}, {"x"}),
        ('m = {{ kind = "chat", default = "" }}', {"model": ref("chat")}, {"m"}),
        ('m = {{ kind = "sentence-encoder", default = "" }}', {"model": ref("sentence-encoder")}, {"m"}),
        (
            'm = {{ kind = "causal-lm", default = "a" }}, j = {{ kind = "chat", default = "b" }}',
            {"model": ref("causal-lm"), "subjects": {"j": ref("chat", "b")}},
            {"m", "j"},
        ),
        ('m = {{ kind = "callable", default = "" }}', {"model": ref("chat")}, None),
    ],
)
def test_which_subjects_the_users_model_and_data_replace(
    make_paper: MakePaper, tmp_path: Path, more: str, options: dict[str, Any], replaced: set[str] | None
) -> None:
    make_paper(toml=with_subjects(more))
    plans, skipped = planned(tmp_path, **options)
    if replaced is None:
        assert not plans
        assert skipped[0].skipped in (
            "has several subjects that --data could mean; say --subject runs=... or --subject x=...",
            "takes no model of the user's",
        )
    else:
        assert {name for name, found in plans[0].subjects.items() if found.label in ("own", "b")} == replaced
        assert plans[0].own


def test_a_public_subject_of_the_users_is_an_own_setting_too(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper(toml=with_subjects('m = {{ kind = "chat", default = "b" }}'))
    for value, own in (("b", False), ("c", True)):
        ((plan,), _) = planned(tmp_path, model=ref("chat", value))
        assert plan.own is own


def test_lost_tuning_trials_are_run_again_before_anything_is_chosen(
    make_paper: MakePaper, tmp_path: Path, store: Ledger
) -> None:
    toml = PAPER.replace("[claim.scales.smoke]", "[claim.tuning]\nlr = [0.1, 0.3]\n[claim.scales.smoke]")
    killed = "if trial.tuning and trial.point['n'] == 4 and not os.path.exists(WELL):\n        "
    killed += "os.kill(os.getpid(), 9)\n    noise ="
    claims = f"import os\nWELL = {str(tmp_path / 'well')!r}\n" + CLAIMS.replace("noise =", killed)
    make_paper(toml=toml, claims=claims)
    (outcome,) = run(tmp_path, store, scale="smoke")
    assert (outcome.ran, outcome.failed) == (0, 8)
    assert outcome.skipped == "8 tuning trials were lost; the same command runs them again"
    (tmp_path / "well").touch()
    (outcome,) = run(tmp_path, store, scale="smoke")
    assert (outcome.ran, outcome.failed, outcome.skipped) == (6, 0, "")
