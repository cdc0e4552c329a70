"""A fresh paper runs at once, its tests pass, nothing is overwritten; the docs' worked example is what happens."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from claimbench import bench
from claimbench.errors import UserError
from claimbench.ledger import Ledger
from claimbench.new import new
from claimbench.shelf import Shelf

ROOT = Path(__file__).resolve().parent.parent


def test_a_fresh_paper_runs_and_its_tests_pass(tmp_path: Path) -> None:
    made = new("theory/my-paper", shelf=tmp_path / "papers")
    assert (made.id, made.folder) == ("my-paper", tmp_path / "papers" / "theory" / "my_paper")
    store = Ledger(tmp_path / "l.sqlite")
    shelf = Shelf.find([tmp_path / "papers"])
    (outcome,) = bench.run("my-paper", shelf=shelf, ledger=store, may_trust=lambda root: True, jobs=2)
    assert outcome.failed == 0
    assert outcome.verdict is not None
    assert outcome.verdict.state == "holds"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(made.test)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert tested.returncode == 0, tested.stdout
    assert "5 passed" in tested.stdout


def test_its_tests_fail_if_the_method_is_wrong(tmp_path: Path) -> None:
    made = new("theory/wrong-paper", shelf=tmp_path / "papers")
    method = made.folder / "estimators.py"
    method.write_text(method.read_text().replace("np.median(samples, axis=-1)", "np.mean(samples, axis=-1)"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(made.test)]
    tested = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert tested.returncode == 1, tested.stdout
    assert "2 failed, 3 passed" in tested.stdout


def test_what_it_writes_is_clean(tmp_path: Path) -> None:
    made = new("theory/my-paper", shelf=tmp_path / "papers")
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    ours = ["--config", 'lint.isort.known-first-party = ["claimbench"]']
    for words in (["check", *ours], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, *options, str(made.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    shelf = tmp_path / "papers"
    made = new("theory/my-paper", shelf=shelf)
    (made.folder / "claims.py").write_text("mine")
    with pytest.raises(UserError, match='"my-paper" stands on the shelf already'):
        new("data/my_paper", shelf=shelf)
    (made.folder / "paper.toml").unlink()
    with pytest.raises(UserError, match="exists; nothing was written"):
        new("theory/my-paper", shelf=shelf)
    assert (made.folder / "claims.py").read_text() == "mine"
    with pytest.raises(UserError, match="stands on the shelf already"):
        new("data/exact-permutations", shelf=shelf)
    assert not (shelf / "data").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-paper", "is not GROUP/PAPER"),
        ("a/b/c", "is not GROUP/PAPER"),
        ("theory/2024-paper", 'paper "2024_paper" cannot be imported'),
        ("theory/My-Paper", 'paper "My_Paper" cannot be imported'),
        ("theory/class", 'paper "class" cannot be imported'),
        ("../paper", 'group ".." cannot be imported'),
        ("theory/..", 'paper ".." cannot be imported'),
        ('theory/x"; import os', "cannot be imported"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        new(name, shelf=tmp_path / "papers")
    assert not (tmp_path / "papers").exists()


def test_a_shelf_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--shelf: .* cannot be written to"):
        new("theory/my-paper", shelf=tmp_path / "file")


def test_without_a_shelf_it_adds_to_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    built_in = checkout / "claimbench" / "papers"
    built_in.mkdir(parents=True)
    monkeypatch.setattr("claimbench.new.BUILT_IN", built_in)
    with pytest.raises(UserError, match="--shelf: name a folder"):
        new("theory/my-paper")
    (checkout / "pyproject.toml").write_text("")
    made = new("theory/my-paper")
    assert made.folder == built_in / "theory" / "my_paper"
    assert made.test == checkout / "tests" / "papers" / "theory" / "test_my_paper.py"
    assert 'FOLDER = BUILT_IN / "theory" / "my_paper"' in made.test.read_text()
    compile(made.test.read_text(), "test", "exec")
    assert made.steps()[0] == "claimbench run my-paper --scale smoke"


def load_example() -> ModuleType:
    path = ROOT / "benchmarks" / "add_a_paper.py"
    specification = importlib.util.spec_from_file_location("add_a_paper", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_worked_example_of_the_docs_is_what_happens(tmp_path: Path) -> None:
    example = load_example()
    page = (ROOT / "docs" / "add-a-paper.md").read_text(encoding="utf-8")
    assert example.filled(page, tmp_path) == page


def test_the_command_line_names_the_next_steps(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "claimbench", "new", "theory/my-paper", "--shelf", str(tmp_path / "p")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert f"claimbench run my-paper --shelf {tmp_path / 'p'} --trust --scale smoke" in said.stdout
    again = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    command[-3] = "theory/other-paper"
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(as_json.stdout)["id"] == "other-paper"
