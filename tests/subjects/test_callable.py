from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import PAPER, MakePaper

from claimbench import bench, currency
from claimbench.errors import UserError
from claimbench.ledger import Ledger
from claimbench.shelf import Shelf
from claimbench.spec import SubjectRef
from claimbench.subjects import open_subject, resolve_subject
from claimbench.subjects.user_files import PREFIX, folder_of, module_name

LOSS = '''"""Losses."""

FACTOR = 2


def loss(x):
    """Says."""
    return FACTOR * x


def logits(x):
    return x


class Scaled:
    def apply(self, x):
        return x
'''


@pytest.fixture(autouse=True)
def _forget() -> Any:
    """Modules that a test imports from its files go with it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith((PREFIX, "own_module")):
            del sys.modules[name]


def _passed(ref: SubjectRef) -> SubjectRef:
    return SubjectRef(**json.loads(json.dumps(vars(ref))))


def _opened(value: Any, version: str | None = None) -> Any:
    return open_subject(_passed(resolve_subject("callable", value, version=version)))


def _complains(value: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        resolve_subject("callable", value)
    assert "\n" not in str(caught.value)


def test_a_function_in_a_file(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "losses.py"
    path.write_text(LOSS)
    ref = resolve_subject("callable", f"{path}:loss")
    assert not any(name.startswith(PREFIX) for name in sys.modules)
    assert (ref.private, ref.label) == (True, "losses.py:loss")
    assert open_subject(_passed(ref))(3) == 6
    assert _opened(f"{path}:Scaled")().apply(3) == 3
    assert _opened(f"{path}:Scaled.apply").__qualname__ == "Scaled.apply"


def test_identity_is_the_sources_without_words_about_it(own_cache: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "losses.py", tmp_path / "other"
    path.write_text(LOSS)
    ref = resolve_subject("callable", f"{path}:loss")
    other.mkdir()
    (other / "losses.py").write_text(
        LOSS.replace("Says.", "Says more.").replace("FACTOR = 2", "FACTOR = 2  # two")
    )
    assert resolve_subject("callable", f"{other}/losses.py:loss").identity == ref.identity
    assert resolve_subject("callable", f"{path}:logits").identity != ref.identity
    path.write_text(LOSS.replace("FACTOR = 2", "FACTOR = 3"))
    assert resolve_subject("callable", f"{path}:loss").identity != ref.identity
    with pytest.raises(UserError, match="changed since"):
        open_subject(ref)
    path.unlink()
    with pytest.raises(UserError, match="changed since"):
        open_subject(ref)


def test_files_of_one_name_clash_neither_with_each_other_nor_with_modules(
    own_cache: Path, tmp_path: Path
) -> None:
    for name, factor in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "helper.py").write_text(f"FACTOR = {factor}\n")
        (folder / "json.py").write_text(
            "import json\nfrom .helper import FACTOR\n\ndef f(x):\n    return json.dumps(FACTOR * x)\n"
        )
    path = list(sys.path)
    functions = [_opened(f"{tmp_path}/{name}/json.py:f") for name in ("one", "two")]
    assert [function(3) for function in functions] == ["3", "6"]
    assert sys.path == path
    assert json.dumps is sys.modules["json"].dumps


def test_a_file_in_a_package_keeps_its_relative_imports(own_cache: Path, tmp_path: Path) -> None:
    inner = tmp_path / "project" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    (inner.parent / "shared.py").write_text("FACTOR = 5\n")
    (inner / "losses.py").write_text("from ..shared import FACTOR\n\ndef f(x):\n    return FACTOR * x\n")
    assert _opened(f"{inner}/losses.py:f")(2) == 10
    name = module_name(inner / "losses.py")
    assert name.endswith(".project.inner.losses")
    assert folder_of(name.partition(".")[0]) == tmp_path


WORKER = """
import json, sys
from claimbench import currency
from claimbench.spec import SubjectRef
from claimbench.subjects import open_subject
function = open_subject(SubjectRef(**json.loads(sys.argv[1])))
print(json.dumps([function(3), currency.loaded_modules(), sys.path]))
"""


def test_another_process_opens_it_and_the_trials_currency_sees_the_file_and_its_neighbours(
    own_cache: Path, tmp_path: Path
) -> None:
    path, helper = tmp_path / "losses.py", tmp_path / "helper.py"
    helper.write_text("FACTOR = 2\n")
    path.write_text("from .helper import FACTOR\n\ndef loss(x):\n    return FACTOR * x\n")
    ref = resolve_subject("callable", f"{path}:loss")
    done = subprocess.run(
        [sys.executable, "-c", WORKER, json.dumps(vars(ref))],
        capture_output=True,
        text=True,
        cwd=os.sep,
        check=True,
    )
    value, modules, paths = json.loads(done.stdout)
    assert value == 6
    assert str(tmp_path) not in paths
    name = module_name(path)
    seen = {module: key for module, key in modules.items() if module.startswith(PREFIX)}
    assert set(seen) == {name, f"{name.partition('.')[0]}.helper"}
    assert currency.find_source(name) == path
    assert currency.changed(seen, {}) == []
    helper.write_text("FACTOR = 20\n")
    assert currency.changed(seen, {}) == [f"module {name.partition('.')[0]}.helper"]


def test_a_function_in_a_module_by_name_or_as_an_object(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_module.py").write_text(LOSS)
    ref = resolve_subject("callable", "own_module:loss")
    assert "own_module" not in sys.modules
    function = open_subject(_passed(ref))
    assert function(3) == 6
    assert resolve_subject("callable", function) == ref
    other = resolve_subject("callable", function, version="data: May @ noon")
    assert other.identity != ref.identity
    assert open_subject(_passed(other)) is function
    assert ref.private
    assert not resolve_subject("callable", "claimbench.errors:nearest").private
    _complains("own_module:los", 'no function "los"; did you mean "loss"')
    _complains("own_modul:loss", 'no module "own_modul" can be found')


def test_objects_that_workers_could_not_find_are_refused(own_cache: Path) -> None:
    def inner() -> None: ...

    _complains(lambda x: x, "is a lambda, where workers cannot find it; put it into a file")
    _complains(inner, "was made inside another function")
    _complains(functools.partial(print, 1), "a partial has no name|is not this object")
    _complains(Path.home, "is not this object")
    _complains(math.sqrt, "no module|no Python source")
    _complains(3, "not int")
    main = subprocess.run(
        [
            sys.executable,
            "-c",
            "from claimbench.subjects import resolve_subject\ndef f(x): ...\nresolve_subject('callable', f)",
        ],
        capture_output=True,
        text=True,
    )
    assert 'function "f" was defined in the script or session that runs' in main.stderr


def test_names_are_read_from_the_syntax_tree(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "losses.py"
    path.write_text(
        "raise SystemExit('imported')\n"
        "try:\n    from math import sqrt\nexcept ImportError:\n    sqrt = None\n"
        "if True:\n    def loss(x): ...\n"
        "first, second = loss, loss\n"
        "class Scaled:\n    def apply(self): ...\n"
    )
    for name in ("sqrt", "loss", "first", "second", "Scaled", "Scaled.apply", "loss.attribute"):
        resolve_subject("callable", f"{path}:{name}")
    _complains(f"{path}:lss", 'losses.py: no function "lss"; did you mean "loss"')
    _complains(f"{path}:Scaled.aply", 'no function "aply" in class "Scaled"; did you mean "apply"')
    path.write_text("from math import *\n")
    assert _opened(f"{path}:sqrt")(4) == 2
    with pytest.raises(UserError, match='holds no "sqr" after its import; did you mean "sqrt"'):
        _opened(f"{path}:sqr")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("losses", "names no function; give path/to/file.py:function"),
        ("losses.py:", "names no function"),
        ("losses.py:a-b", "names no function"),
        ("nowhere/losses.py:f", "nowhere/losses.py: cannot be read: No such file"),
        ("a.b.py:f", "without another full stop"),
        ("./losses.txt:f", "is called NAME.py"),
    ],
)
def test_values_that_name_no_function(own_cache: Path, value: str, complaint: str) -> None:
    _complains(value, complaint)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "f = 1\n\nraise ValueError('no data\\nhere')\n",
            "losses.py:3: its import fails: ValueError: no data",
        ),
        ("f = 1\nraise SystemExit(2)\n", "losses.py:2: its import fails: SystemExit"),
        ("import helper\nf = helper\n", "no module helper on the path; write: from . import helper"),
        ("import nobody_has_this\nf = 1\n", "pip install nobody_has_this"),
        ("from .hlper import f\n", "there is no hlper.py for it to import"),
        ("f = 1\n", '"f" is int, which cannot be called'),
    ],
)
def test_what_fails_at_the_import_is_one_line(
    own_cache: Path, tmp_path: Path, source: str, complaint: str
) -> None:
    (tmp_path / "helper.py").touch()
    path = tmp_path / "losses.py"
    path.write_text(source)
    with pytest.raises(UserError, match=complaint) as caught:
        _opened(f"{path}:f")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_python_is_named_with_its_line(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "losses.py"
    path.write_text("x = 1\ndef f(:\n")
    _complains(f"{path}:f", "losses.py:2: no Python")
    path.write_bytes(b"\0")
    _complains(f"{path}:f", "losses.py(:1)?: no Python: .*null bytes")


SUBJECTS = 'subjects = {{ function = {{ kind = "callable", default = "math:sqrt" }} }}'

CLAIMS = """
from claimbench.trial import Trial, measure


@measure("larger")
def larger(trial: Trial) -> dict[str, float]:
    return {"size": trial.subject["function"](trial.point["n"]) + (trial.arm == "method")}
"""


def test_trials_use_it_and_are_measured_again_when_a_neighbour_changes(
    own_cache: Path, make_paper: MakePaper, tmp_path: Path
) -> None:
    make_paper(toml=PAPER.replace("[claim.scales.smoke]", f"{SUBJECTS}\n[claim.scales.smoke]"), claims=CLAIMS)
    path, helper = tmp_path / "losses.py", tmp_path / "helper.py"
    helper.write_text("FACTOR = 2\n")
    path.write_text("from .helper import FACTOR\n\ndef loss(x):\n    return FACTOR * x\n")

    def run() -> int:
        (outcome,) = bench.run(
            "toy",
            shelf=Shelf.find([tmp_path / "shelf"]),
            ledger=Ledger(tmp_path / "l.sqlite"),
            may_trust=lambda root: True,
            scale="smoke",
            subjects={"function": f"{path}:loss"},
        )
        assert outcome.failed == 0
        return outcome.ran

    assert run() == 6
    assert run() == 0
    helper.write_text("FACTOR = 20\n")
    assert run() == 6
