"""A measurement goes stale when the code or the packages it ran change, and at no other time."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimbench import currency
from claimbench.currency import (
    changed,
    find_source,
    is_current,
    loaded_modules,
    loaded_packages,
    source_digest,
)
from claimbench.shelf import load_claims, package_of, trust

CODE = '''"""What it is."""

from claimbench.trial import measure

FACTOR = 2  # why two


@measure("m")
def m(trial):
    """What it does."""
    return {"value": FACTOR * trial.seed}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A loaded paper on a shelf of its own, taken out of `sys.modules` again."""
    place = tmp_path / "shelf" / "theory" / "sample"
    place.mkdir(parents=True)
    (place / "claims.py").write_text(CODE)
    load_claims(place)
    yield place
    top = package_of(place).partition(".")[0]
    for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        del sys.modules[name]


def digest_of(tmp_path: Path, code: str) -> str:
    path = tmp_path / f"{abs(hash(code))}.py"
    path.write_text(code)
    return source_digest(path)


@pytest.mark.parametrize(
    "edited",
    [
        CODE.replace("What it is.", "Said otherwise."),
        CODE.replace('    """What it does."""\n', ""),
        CODE.replace("  # why two", ""),
        CODE.replace("FACTOR * trial.seed", "(\n        FACTOR\n        * trial.seed\n    )"),
        "\n\n# a comment\n" + CODE,
    ],
)
def test_words_and_layout_do_not_count(tmp_path: Path, edited: str) -> None:
    assert edited != CODE
    assert digest_of(tmp_path, edited) == digest_of(tmp_path, CODE)


@pytest.mark.parametrize(
    "edited",
    [
        CODE.replace("FACTOR = 2", "FACTOR = 2.0"),
        CODE.replace("FACTOR = 2", "FACTOR = True"),
        CODE.replace("FACTOR = 2", "FACTOR = None"),
        CODE.replace("*", "**"),
        CODE.replace("trial.seed}", "trial.seed, 'b': 1}"),
        CODE.replace('@measure("m")', '@measure("n")'),
        CODE + "\n\nm = m\n",
        CODE.replace("def m(trial)", "def m(trial, *, x=1)"),
    ],
)
def test_meaning_counts(tmp_path: Path, edited: str) -> None:
    assert edited != CODE
    assert digest_of(tmp_path, edited) != digest_of(tmp_path, CODE)


def test_a_string_that_is_no_docstring_counts(tmp_path: Path) -> None:
    assert digest_of(tmp_path, "x = 1\n'a'\n") != digest_of(tmp_path, "x = 1\n'b'\n")


def test_loaded_modules_are_the_papers_and_the_benchs_without_infrastructure(folder: Path) -> None:
    modules = loaded_modules()
    assert f"{package_of(folder)}.claims" in modules
    assert "claimbench.trial" in modules
    assert not {
        "claimbench",
        "claimbench.shelf",
        "claimbench.errors",
        "claimbench.currency",
        "claimbench.spec",
    } & set(modules)


def test_a_foreign_module_is_found_again_without_being_imported(folder: Path) -> None:
    """In another process, which has not loaded the shelf, it is found among the trusted ones."""
    modules = {name: digest for name, digest in loaded_modules().items() if name.startswith("claimbench")}
    trust(folder.parent.parent)
    code = f"""if True:
        import sys
        from claimbench.currency import changed
        print(changed({modules!r}, {{}}), any("claims" in name for name in sys.modules))
    """
    env = {**os.environ, "PYTHONPATH": str(currency.PACKAGE.parent)}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert answer.strip() == "[] False"


def test_what_changed_is_named(folder: Path) -> None:
    modules, packages = loaded_modules(), {"numpy": importlib.metadata.version("numpy")}
    name = f"{package_of(folder)}.claims"
    assert is_current(modules, packages)
    (folder / "claims.py").write_text(CODE + "\n# a comment\n")
    assert is_current(modules, packages)
    (folder / "claims.py").write_text(CODE.replace("FACTOR = 2", "FACTOR = 3"))
    assert changed(modules, packages) == [f"module {name}"]
    (folder / "claims.py").unlink()
    assert changed(modules, packages) == [f"module {name} is gone"]
    versions = changed({}, {"numpy": "0.1", "no-such-package": "1.0"})
    assert versions == ["package no-such-package 1.0 -> missing", f"package numpy 0.1 -> {packages['numpy']}"]


def test_the_same_size_at_the_same_second_is_noticed(folder: Path) -> None:
    path = folder / "claims.py"
    before = source_digest(path)
    path.write_text(CODE.replace("FACTOR = 2", "FACTOR = 3"))
    assert source_digest(path) != before


def test_own_code_outside_of_shelves_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "place" / "own_method"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("WIDTH = 4\n")
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    importlib.import_module("own_method.layers")
    modules = {name: digest for name, digest in loaded_modules().items() if name.startswith("own_method")}
    assert set(modules) == {"own_method", "own_method.layers"}
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    assert changed(modules, {}) == []
    (package / "layers.py").write_text("WIDTH = 5\n")
    assert changed(modules, {}) == ["module own_method.layers"]
    assert "own_method.layers" not in sys.modules


def test_finding_agrees_with_python() -> None:
    for name in (
        "claimbench",
        "claimbench.trial",
        "claimbench.runner",
        "claimbench.runner.worker",
        "pytest",
        "json.decoder",
    ):
        module = importlib.import_module(name)
        assert module.__file__ is not None
        found = find_source(name)
        assert found is not None
        assert found.samefile(module.__file__)
    assert find_source("claimbench.no_such_module") is None
    assert find_source("no_such_package_here.x") is None


def test_packages_agree_with_importlib_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the library's own mapping, which takes a second where this takes milliseconds."""
    for top in ("numpy", "sklearn", "yaml", "torch"):  # some have another name as packages
        monkeypatch.setitem(sys.modules, top, sys.modules.get(top, types.ModuleType(top)))
    found = loaded_packages()
    assert {"numpy", "scikit-learn", "torch"} <= set(found)
    owners = importlib.metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
    expected = {re.sub(r"[-_.]+", "-", d).lower() for top in tops for d in owners.get(top, ())}
    assert set(found) == expected - currency._NOT_MEASURED
    assert all(importlib.metadata.version(name) == version for name, version in found.items())


def test_digests_are_shared_by_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded_modules()
    monkeypatch.setattr(currency, "_compute", lambda path: pytest.fail(f"{path} was parsed again"))
    fresh = currency._Digests()
    monkeypatch.setattr(currency, "_digests", fresh)
    name = f"{package_of(folder)}.claims"
    path = folder / "claims.py"
    assert loaded_modules()[name] == source_digest(path)


def test_a_damaged_cache_costs_time_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = loaded_modules()
    fresh = currency._Digests()
    for noise in ("{", "[]", '{"x": 3}', "\x00"):
        fresh._file().parent.mkdir(parents=True, exist_ok=True)
        fresh._file().write_text(noise)
        monkeypatch.setattr(currency, "_digests", currency._Digests())
        assert loaded_modules() == modules


def test_modules_that_stand_in_for_others_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = types.ModuleType("odd_module")
    odd.__file__ = None
    monkeypatch.setitem(sys.modules, "odd_module", odd)
    monkeypatch.setitem(sys.modules, "odder_module", object())  # type: ignore[arg-type]  # what some libraries do
    assert not {"odd_module", "odder_module"} & set(loaded_modules())


def test_thirty_modules_are_checked_within_twenty_milliseconds() -> None:
    modules = {
        f"claimbench.{path.stem}": source_digest(path) for path in sorted(currency.PACKAGE.glob("*.py"))
    }
    modules |= {
        f"claimbench.runner.{path.stem}": source_digest(path)
        for path in (currency.PACKAGE / "runner").glob("*.py")
    }
    modules = {name: d for name, d in modules.items() if not name.endswith("__")}
    names = list(modules)[:30]
    packages = loaded_packages()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        assert changed({name: modules[name] for name in names}, packages) == []
        times.append(time.perf_counter() - started)
    assert min(times) < 0.02 * len(names) / 30
