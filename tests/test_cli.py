"""The command line: exit codes, JSON, and every mistake shown as one line that names the field and the fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import CLAIMS, PAPER, MakePaper


def claimbench(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "claimbench", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, errors="replace"
    )


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    shelf, ledger = str(tmp_path / "shelf"), str(tmp_path / "l.sqlite")
    return claimbench("run", "--shelf", shelf, "--ledger", ledger, "--trust", *words)


def test_help_shows_an_example_for_every_command() -> None:
    top = claimbench("--help")
    assert top.returncode == 0
    for command in (
        "list",
        "search",
        "show",
        "run",
        "plan",
        "work",
        "report",
        "recheck",
        "rebuild",
        "publish",
        "import",
        "doctor",
        "new",
    ):
        assert command in top.stdout
        assert "Example:  claimbench" in claimbench(command, "--help").stdout


def test_list_search_and_show(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    shelf = ("--shelf", str(tmp_path / "shelf"))
    assert "A paper about toy" in claimbench("list", *shelf).stdout
    found = json.loads(claimbench("search", "larger", "--json", *shelf).stdout)
    assert "toy" in [paper["id"] for paper in found]
    shown = claimbench("show", "toy", *shelf).stdout
    assert "claimbench run toy/larger" in shown
    assert json.loads(claimbench("show", "toy", "--json", *shelf).stdout)["id"] == "toy"


def test_show_lists_what_a_user_may_give(make_paper: MakePaper, tmp_path: Path) -> None:
    subjects = 'runs = {{ kind = "text", default = "" }}, model = {{ kind = "causal-lm", default = "small" }}'
    make_paper(toml=PAPER.replace("caveat =", f"subjects = {{{{ {subjects} }}}}\ncaveat ="))
    shown = claimbench("show", "toy", "--shelf", str(tmp_path / "shelf")).stdout
    assert "takes your own text: --subject runs=... (optional)" in shown
    assert "takes your own causal-lm: --subject model=... (default small)" in shown


def test_exit_codes(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    assert run(tmp_path, "toy").returncode == 0
    assert run(tmp_path, "toy", "--fail-on", "holds").returncode == 3
    assert run(tmp_path, "toy", "--fail-on", "fails,undecided").returncode == 0
    make_paper("raising", claims=CLAIMS.replace("noise =", "raise ValueError('no')\n    noise ="))
    failed = run(tmp_path, "raising")
    assert failed.returncode == 1
    assert "ValueError: no" in failed.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tyo"], 'no paper "tyo"'),
        (["toy/lager"], 'no claim "lager" in toy; did you mean "larger"'),
        ([], "nothing to run: name a PAPER"),
        (["--group", "theroy"], 'no group "theroy" on the shelf; did you mean "theory"'),
        (["toy", "--scale", "quik"], '--scale: no scale "quik"; did you mean "quick"'),
        (["toy", "--size", "step=1"], '--size: toy/larger has no size "step"; did you mean "steps"'),
        (["toy", "--size", "steps"], '--size: "steps" is not NAME=VALUE'),
        (["toy", "--at", "m=1"], '--at: toy/larger does not sweep "m"'),
        (["toy", "--arm", "baseline"], "--arm: without method, the method, nothing could be judged"),
        (["toy", "--arm", "metod"], '--arm: toy/larger has no arm "metod"; did you mean "method"'),
        (["toy", "--device", "gpu"], '--device: "gpu" is none of auto, cpu, cuda'),
        (["toy", "--jobs", "0"], "--jobs: 0 is none"),
        (["toy", "--time-limit", "soon"], '--time-limit: "soon" is not understood; write it like 90s'),
        (["toy", "--memory-limit", "-1GiB"], '--memory-limit: "-1GiB" must be above zero'),
        (["toy", "--fail-on", "maybe"], '--fail-on: "maybe" is none of holds, fails, undecided'),
        (["toy", "--subject", "model=x"], '--subject: none of these claims has "model"'),
        (["toy", "--ledger", "/proc/none/l.sqlite"], "choose another place with --ledger"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    make_paper: MakePaper, tmp_path: Path, words: list[str], message: str
) -> None:
    make_paper()
    done = run(tmp_path, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


def test_a_paper_that_is_none(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper("bad", toml=PAPER.replace("caveat =", "caveats ="))
    done = run(tmp_path, "bad")
    assert done.returncode == 2
    assert 'claim "larger".caveats: unknown key; did you mean "caveat"?' in done.stderr
    listed = claimbench("list", "--shelf", str(tmp_path / "shelf"))
    assert listed.returncode == 0
    assert "skipped" in listed.stderr


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ("def broken(:\n", "claims.py"),
        ("import no_such_package_here\n", "no_such_package_here"),
        ("", 'no @measure("larger")'),
    ],
)
def test_code_that_does_not_load(make_paper: MakePaper, tmp_path: Path, claims: str, message: str) -> None:
    make_paper(claims=claims)
    done = run(tmp_path, "toy")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ('{"sise": 1.0}', "size"),
        ('{"size": float("nan")}', "nan"),
        ('{"size": "many"}', "size"),
    ],
)
def test_a_result_that_is_none_fails_the_trial(
    make_paper: MakePaper, tmp_path: Path, returned: str, message: str
) -> None:
    make_paper(
        claims=CLAIMS.replace(
            '{"size": trial.point["n"] + (1.0 if trial.arm == "method" else 0.0) + noise}', returned
        )
    )
    done = run(tmp_path, "toy")
    assert done.returncode == 1
    assert message in done.stderr


def test_a_ledger_that_cannot_be_written(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    (tmp_path / "l.sqlite").mkdir()
    done = run(tmp_path, "toy")
    assert done.returncode == 2
    assert "--ledger" in done.stderr


def test_paths_that_are_not_utf8(make_paper: MakePaper, tmp_path: Path) -> None:
    folder = make_paper().parent.parent
    odd = os.fsencode(tmp_path) + b"/sh\xffelf"
    os.rename(os.fsencode(folder), odd)
    done = subprocess.run(
        [sys.executable, "-m", "claimbench", "run", "toy", "--trust", "--json", "--shelf", odd],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["verdict"]["state"] == "holds"


def test_dry_run_says_what_would_run_and_runs_nothing(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    done = run(tmp_path, "toy", "--dry-run")
    assert "30 trials: 2 arms, 3 points, 5 seeds" in done.stdout
    assert "standard deviations" in done.stdout
    described = json.loads(run(tmp_path, "toy", "--dry-run", "--json").stdout)
    assert described[0]["trials"] == 30
    assert "0 sets" in claimbench("doctor", "--ledger", str(tmp_path / "l.sqlite")).stdout


def test_with_a_model_only_claims_that_take_one_run(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    done = run(tmp_path, "toy", "--model", "some/where")
    assert done.returncode == 0
    assert "skipped" in done.stdout
    assert "takes no model" in done.stdout


def test_publish_import_report(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    run(tmp_path, "toy")
    shelf = ("--shelf", str(tmp_path / "shelf"))
    published = claimbench(
        "publish", "toy", "--to", str(tmp_path / "r"), "--ledger", str(tmp_path / "l.sqlite"), *shelf
    )
    path = published.stdout.strip()
    imported = claimbench("import", path, "--ledger", str(tmp_path / "other.sqlite"))
    assert "1 sets and 30 trials imported" in imported.stdout
    rows = json.loads(
        claimbench("report", "toy", "--json", "--ledger", str(tmp_path / "other.sqlite"), *shelf).stdout
    )
    assert rows[0]["verdict"]["state"] == "holds"
    markdown = claimbench(
        "report", "toy", "--markdown", "--ledger", str(tmp_path / "other.sqlite"), *shelf
    ).stdout
    assert "| toy/larger | quick | **holds** |" in markdown
