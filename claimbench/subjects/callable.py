"""A user's own function as a subject: `package.module:function`, `path/to/file.py:function`, or a Python function.

Its identity is the source of its file (without comments and docstrings); what the file imports is seen by the trial's
currency, as for a paper's own modules. Nothing is imported before it is opened.
"""

from __future__ import annotations

import ast
import importlib
import sys
import traceback
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from claimbench.currency import find_source, source_digest
from claimbench.errors import UserError, nearest
from claimbench.spec import SubjectRef, digest
from claimbench.subjects.store import shown
from claimbench.subjects.user_files import PREFIX, module_name

HOW = "give path/to/file.py:function or package.module:function"


class CallableKind:
    """Functions (or classes) by module and name, by file and name, or as an object that can be found again by name.

    version: optional, for what a function depends on and its source does not show.
    """

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if not isinstance(value, str):
            return _object(value, version)
        place, _, name = value.rpartition(":")
        if not place or not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f'"{value}" names no function; {HOW}')
        if place.endswith(".py") or "/" in place:
            path = Path(place).expanduser().resolve()
            module_name(path)
            _check(path, name)
            label = f"{path.name}:{name}"
            return _ref(
                path, name, value=f"{shown(path)}:{name}", path=str(path), label=label, version=version
            )
        return _ref(_check_module(place, name), name, value=value, path="", label=value, version=version)

    def downloads(self, ref: SubjectRef) -> int:
        return 0

    def prepare(self, ref: SubjectRef) -> None:
        """Nothing: the file lies here."""

    def open(self, ref: SubjectRef, device: str) -> Any:
        """The function itself. Raises UserError where its file changed, cannot be imported or does not hold it."""
        if ref.path:
            place, name, version = "", ref.value.rpartition(":")[2], ""
        else:
            place, _, rest = ref.value.partition(":")
            name, _, version = rest.partition("@")
        path = Path(ref.path) if ref.path else find_source(place)
        if path is None or _identity(path, name, version) != ref.identity:
            raise UserError(f"{ref.label}: its source changed since this run was planned; start it again")
        module = _import(module_name(path) if ref.path else place, path)
        try:
            found = reduce(getattr, name.split("."), module)
        except AttributeError:
            raise UserError(
                f'{shown(path)}: holds no "{name}" after its import{nearest(name, vars(module))}'
            ) from None
        if not callable(found):
            raise UserError(f'{shown(path)}: "{name}" is {type(found).__name__}, which cannot be called')
        return found


def _ref(source: Path, name: str, *, value: str, path: str, label: str, version: str | None) -> SubjectRef:
    return SubjectRef(
        kind="callable",
        value=f"{value}@{version}" if version else value,
        identity=_identity(source, name, version or ""),
        path=path,
        label=label,
        private=not value.startswith("claimbench."),
    )


def _identity(source: Path, name: str, version: str) -> str:
    return digest(["callable", name, source_digest(source), version])


def _check_module(module: str, name: str) -> Path:
    """The source of a module that holds this name, found without importing it."""
    source = find_source(module)
    if source is None:
        raise UserError(f'no module "{module}" can be found from here; {HOW}')
    if source.suffix != ".py":
        raise UserError(
            f'"{module}:{name}" has no Python source, which is what a function is known by; wrap it in one'
        )
    _check(source, name)
    return source


def _object(value: Any, version: str | None) -> SubjectRef:
    """A function object, if a worker can find it again by its module and name."""
    if not callable(value):
        raise UserError(f"a callable is a function, or where to find one, not {type(value).__name__}; {HOW}")
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise UserError(
            f"a {type(value).__name__} has no name to be found by; put a function into a file and {HOW}"
        )
    for reason, unfit in (
        ("is a lambda", "<lambda>" in name),
        ("was made inside another function", "<locals>" in name),
        ("was defined in the script or session that runs", module in ("__main__", "__mp_main__")),
    ):
        if unfit:
            raise UserError(
                f'function "{name}" {reason}, where workers cannot find it; put it into a file and {HOW}'
            )
    try:
        found = reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    if found is not value:
        raise UserError(f'"{module}:{name}" is not this object; put a function into a file and {HOW}')
    source = _check_module(module, name)
    value = f"{module}:{name}"
    return _ref(source, name, value=value, path="", label=value, version=version)


# --- what a source holds ---


def _check(path: Path, name: str) -> None:
    """Whether a file's syntax tree holds a name. What a star import or `__getattr__` may add is left to `open`."""
    where = shown(path)
    try:
        tree = ast.parse(path.read_bytes(), filename=where)
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise UserError(f"{where}:{error.lineno or 1}: no Python: {error.msg}") from None
    except ValueError as error:
        raise UserError(f"{where}: no Python: {error}") from None
    body: list[ast.stmt] = tree.body
    found = ""
    for part in name.split("."):
        known = dict(_names(body))
        if part not in known:
            if "*" in known or "__getattr__" in known:
                return
            called = (n for n, node in known.items() if isinstance(node, ast.FunctionDef | ast.ClassDef))
            inside = f' in class "{found}"' if found else ""
            raise UserError(f'{where}: no function "{part}"{inside}{nearest(part, called)}')
        node = known[part]
        if not isinstance(node, ast.ClassDef) or node.bases:
            return  # an imported or assigned object's parts, and inherited ones, are known after the import
        body, found = node.body, part


def _names(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that statements bind, with the statement: those under `if`, `try`, `with` and loops too."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], node
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    yield child.id, node
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from _names(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _names(handler.body)


def _import(name: str, path: Path) -> Any:
    """The module. Raises UserError with the line at which its import failed."""
    where = shown(path)
    try:
        return importlib.import_module(name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise UserError(f"{where}: {_missing(error.name, path)}") from error
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        at = f"{where}:{lines[-1]}" if lines else where
        message = str(error).splitlines()[0][:200] if str(error) else ""
        raise UserError(f"{at}: its import fails: {type(error).__name__}: {message}") from error


def _missing(module: str, path: Path) -> str:
    """What to do about a module that a file imports and that is not there."""
    if module.startswith(PREFIX):
        inside = module.partition(".")[2].replace(".", "/")
        return f"there is no {inside}.py for it to import from its folder"
    top = module.partition(".")[0]
    fix = f"write: from . import {top}" if path.with_name(f"{top}.py").exists() else f"pip install {top}"
    return f"there is no module {module} on the path; {fix}"


KIND = CallableKind()
