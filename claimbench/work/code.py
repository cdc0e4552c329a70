"""The code that a paper's trials would run, found without importing it.

All of the paper's folder, what its imports lead to in claimbench and on the user's path, and what earlier trials of the
paper say they loaded: imports made by name at run time are in no source. Packages count by version.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from claimbench.currency import SHELF_PREFIX, changed, find_source, is_infrastructure, source_digest
from claimbench.installed import installed, owners
from claimbench.ledger import CODE, TRIAL, Ledger
from claimbench.shelf import package_of

SHELF = "shelf"  # stands for the paper's shelf: it may lie at another path on another machine
_UNCOUNTED = frozenset({"claimbench", "typer", "click", "rich", "sqlalchemy", "pydantic", "psutil", "pytest"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def code_of(folder: Path, paper: str, ledger: Ledger) -> tuple[dict[str, str], dict[str, str]]:
    """Modules with the digests of their sources, and packages with their versions."""
    modules, tops = _closure(folder)
    earlier_modules, earlier_packages = _earlier(ledger, paper)
    for name in earlier_modules:
        path = _source(name, folder)
        if path is not None:
            modules[_portable(name, folder)] = source_digest(path)
    versions, owning = installed(), owners()
    packages = {owner for top in tops for owner in owning.get(top, ())} | earlier_packages
    return modules, {name: versions[name] for name in sorted(packages - _UNCOUNTED) if name in versions}


def differences(modules: Mapping[str, str], packages: Mapping[str, str], folder: Path) -> list[str]:
    """What is not here as `code_of` found it elsewhere: "module x", "package y 1.0 -> 1.1"."""
    differing = changed({}, packages)
    for name, digest in modules.items():
        path = _source(name, folder)
        if path is None:
            differing.append(f"module {name} is missing")
        elif source_digest(path) != digest:
            differing.append(f"module {name}")
    return sorted(differing)


def but_shelves(stale: Sequence[str]) -> list[str]:
    """Of what the ledger says has changed since trials were measured, all but a shelf's own modules.

    The ledger knows those by the shelf's path, which may be another one here; `differences` compares them by content.
    """
    return [line for line in stale if not line.startswith(f"module {SHELF_PREFIX}")]


def _portable(name: str, folder: Path) -> str:
    top = package_of(folder).partition(".")[0]
    return (
        name
        if top == "claimbench" or not name.startswith(f"{top}.")
        else f"{SHELF}.{name.removeprefix(f'{top}.')}"
    )


def _source(name: str, folder: Path) -> Path | None:
    """The file of a module; those of the paper's own shelf are found whether or not it is trusted."""
    top, *rest = name.split(".")
    if rest and top in (SHELF, package_of(folder).partition(".")[0]) and top != "claimbench":
        base = folder.parent.parent.joinpath(*rest)
        candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
        return next((path for path in candidates if path.is_file()), None)
    return find_source(name)


def _closure(folder: Path) -> tuple[dict[str, str], set[str]]:
    """Project modules that the paper's sources lead to, and the top-level names of everything else they import."""
    package = package_of(folder)
    own = package.partition(".")[0]
    waiting = [
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    found: dict[str, str] = {}
    tops: set[str] = set()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if _portable(name, folder) in found or top in sys.stdlib_module_names or is_infrastructure(name):
            continue
        path = _source(name, folder)
        if path is None:
            continue
        if top not in ("claimbench", own) and not _INSTALLED.isdisjoint(path.parts):
            tops.add(top)
            continue
        found[_portable(name, folder)] = source_digest(path)
        waiting.append(name.rpartition(".")[0] or name)  # importing a module imports the packages above it
        if path.suffix == ".py":
            waiting += _imports(name, path)
    return found, tops


def _imports(name: str, path: Path) -> Iterator[str]:
    """Every module that a source names in an import, wherever that stands; `from a import b` may mean a.b."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # its trials will say so
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _earlier(ledger: Ledger, paper: str) -> tuple[list[str], set[str]]:
    """Modules and packages that the newest finished trial of this paper had loaded."""
    newest = (
        sa.select(TRIAL.c.code)
        .where(TRIAL.c.paper == paper, TRIAL.c.status == "ok")
        .order_by(TRIAL.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    with ledger.read() as connection:
        row = connection.execute(sa.select(CODE).where(CODE.c.id == newest)).one_or_none()
    return ([], set()) if row is None else (list(json.loads(row.modules)), set(json.loads(row.packages)))
