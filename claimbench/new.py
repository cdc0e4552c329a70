"""`claimbench new GROUP/PAPER`: a paper's folder that runs at once, with tests that pass.

What it writes is a real, small example (the median against the mean of Laplace samples), to be replaced piece by piece,
so that at every moment there is something that runs.
"""

from __future__ import annotations

import keyword
import os
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from claimbench.errors import UserError
from claimbench.paths import write_atomically
from claimbench.shelf import BUILT_IN, Shelf

FILES = ("paper.toml", "__init__.py", "claims.py", "estimators.py")


@dataclass(frozen=True)
class NewPaper:
    """What was written, and what to do next."""

    id: str
    folder: Path
    test: Path
    shelf: Path | None  # None: the built-in shelf of a checkout

    def steps(self) -> list[str]:
        """Commands to type next, in order."""
        shelf = f" --shelf {shlex.quote(str(self.shelf))} --trust" if self.shelf else ""
        return [
            f"claimbench run {self.id}{shelf} --scale smoke",
            f"claimbench run {self.id}{shelf} --development",
            f"python -m pytest {shlex.quote(str(self.test))}",
        ]


def new(name: str, *, shelf: Path | None = None) -> NewPaper:
    """Write `GROUP/PAPER` on a shelf of your own (made if it is not there), or on the built-in one of a checkout.

    The test lies in the paper's folder, or in `tests/papers/GROUP` of the checkout. Raises UserError if the name
    cannot be imported, if a paper of that id or a file in the way exists already, or if the folder cannot be written.
    """
    group, paper = _parts(name)
    id_ = paper.replace("_", "-")
    root = _built_in() if shelf is None else shelf.expanduser()
    folder = root / group / paper
    test = folder / f"test_{paper}.py"
    if shelf is None:
        test = BUILT_IN.parent.parent / "tests" / "papers" / group / f"test_{paper}.py"
    known = Shelf.find([root] if root.is_dir() else []).entries.get(id_)
    if known is not None:
        raise UserError(f'"{id_}" stands on the shelf already: {known.folder}; choose another name')
    for path in (folder, test):
        if path.exists():
            raise UserError(f"{path} exists; nothing was written; choose another name or remove it")
    at = "Path(__file__).parent" if shelf else f'BUILT_IN / "{group}" / "{paper}"'
    try:
        for file in FILES:
            write_atomically(folder / file, _fill(file, id=id_, group=group).encode())
        write_atomically(test, _fill_test(at, built_in=shelf is None).encode())
    except OSError as error:
        raise UserError(f"--shelf: {root} cannot be written to: {error.strerror}") from None
    return NewPaper(id_, folder, test, None if shelf is None else shelf)


def _parts(name: str) -> tuple[str, str]:
    parts = name.strip("/").replace("-", "_").split("/")
    if len(parts) != 2:
        raise UserError(f'"{name}" is not GROUP/PAPER; such as sequence/my-paper')
    for word, part in zip(("group", "paper"), parts, strict=True):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", part) or keyword.iskeyword(part):
            raise UserError(
                f'{word} "{part}" cannot be imported; use small letters, digits and hyphens, a letter first'
            )
    return parts[0], parts[1]


def _built_in() -> Path:
    """The built-in shelf, if this is a checkout that one can add to."""
    checkout = BUILT_IN.parent.parent
    if not ((checkout / "pyproject.toml").is_file() and os.access(BUILT_IN, os.W_OK)):
        raise UserError("--shelf: name a folder for papers of your own, such as --shelf papers")
    return BUILT_IN


@cache
def _environment() -> Environment:
    # The output is TOML and Python, filled with names that `_parts` has checked: nothing to escape for HTML.
    loader = PackageLoader("claimbench", "templates/paper")
    return Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def _fill(file: str, **values: str) -> str:
    return _environment().get_template(f"{file}.jinja").render(**values)


def _fill_test(folder: str, *, built_in: bool) -> str:
    text = _fill("test.py", folder=folder)
    if built_in:
        text = text.replace("from pathlib import Path\n", "")
        text = text.replace("import load_claims, package_of", "import BUILT_IN, load_claims, package_of")
    return text
