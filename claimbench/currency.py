"""Is a measurement still that of the code on disk? Which project modules and packages a trial loaded, and
what changed.

A module's digest is that of its syntax tree without docstrings and comments, so that words and layout may be
edited freely. Modules are found again by name without importing them. Not seen: files that are no modules
(data, kernels compiled at run time), and code that a trial read other than by importing it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from claimbench.installed import installed, owners
from claimbench.paths import cache_dir, config_dir

PACKAGE = Path(__file__).resolve().parent
SHELF_PREFIX = "claimbench_shelf_"  # of the packages that `claimbench.shelf.package_of` names
FILES_PREFIX = "claimbench_files_"  # of those that `claimbench.subjects.user_files.module_name` names
_WITHOUT_NUMBERS = """
    bench claim cli currency doctor dry errors feed flags html installed ledger machine new paper paths plan plots
    progress publish recheck report rule rules runner search session shared shelf spec summaries testing verdicts
    community views web work __main__
"""
INFRASTRUCTURE = frozenset({"claimbench", *(f"claimbench.{name}" for name in _WITHOUT_NUMBERS.split())})
"""Modules that carry numbers but make none: they may change without a new measurement."""

_NOT_MEASURED = frozenset(
    {"claimbench", "psutil", "pydantic", "pydantic-core", "typer", "click", "rich", "sqlalchemy", "greenlet"}
    | {
        "annotated-types",
        "typing-extensions",
        "typing-inspection",
        "pip",
        "setuptools",
        "wheel",
        "pytest",
        "pluggy",
    }
)
_MISSING = "missing"
_EDITED = "edited while it was imported"  # no source's digest: what ran is unknown, so it is never current

_importing_since: float | None = None
_seen: dict[tuple[str, int], str] = {}  # name and id of a module -> its digest when first looked at


def imports_begin() -> None:
    """A worker says that it will import from here on: a source that changes later may not be what it has loaded."""
    global _importing_since
    _importing_since = time.time()


def loaded_modules() -> dict[str, str]:
    """Project modules in `sys.modules`, by name, with their digests.

    Project: claimbench without its infrastructure, the shelves, and code that lies neither in the standard
    library nor among installed packages (the user's own, on PYTHONPATH or installed as editable). A digest
    is that of the first look at a module, since its file may be edited while what was loaded goes on running.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        path = _project_file(name, module)
        if path is not None:
            key = (name, id(module))
            if key not in _seen:
                _seen[key] = _EDITED if _edited_since_import(path) else source_digest(path)
            found[name] = _seen[key]
    _digests.save()
    return found


def _edited_since_import(path: Path) -> bool:
    """True if the source is younger than the imports. A time in the future is a clock's mistake and says nothing."""
    if _importing_since is None:
        return False
    with contextlib.suppress(OSError):
        return _importing_since < path.stat().st_mtime <= time.time()
    return True


def loaded_packages() -> dict[str, str]:
    """Installed distributions whose modules are in `sys.modules`, with their versions."""
    tops = {name.partition(".")[0] for name in list(sys.modules)} - set(sys.stdlib_module_names)
    versions, owning = installed(), owners()
    names = {owner for top in tops for owner in owning.get(top, ())} - _NOT_MEASURED
    return {name: versions[name] for name in sorted(names) if name in versions}


def changed(modules: Mapping[str, str], packages: Mapping[str, str]) -> list[str]:
    """What differs from the code and packages here: "module x", "package y 1.0 -> 1.1". Empty: current."""
    differing = []
    for name, digest in modules.items():
        path = find_source(name)
        if path is None:
            differing.append(f"module {name} is gone")
        elif source_digest(path) != digest:
            differing.append(f"module {name}")
    _digests.save()
    versions = installed()
    for name, version in packages.items():
        here = versions.get(name, _MISSING)
        if here != version:
            differing.append(f"package {name} {version} -> {here}")
    return sorted(differing)


def is_current(modules: Mapping[str, str], packages: Mapping[str, str]) -> bool:
    """True while none of the modules and packages has changed."""
    return not changed(modules, packages)


# --- from a module's name to its file and back ---


def _project_file(name: str, module: ModuleType) -> Path | None:
    if name in ("__main__", "__mp_main__") or name.partition(".")[0] in sys.stdlib_module_names:
        return None
    try:
        file = vars(module).get("__file__")
    except TypeError:  # something that stands in for a module
        return None
    if not isinstance(file, str):
        return None
    top = name.partition(".")[0]
    if top == "claimbench":
        return None if is_infrastructure(name) else Path(file)
    if top.startswith(SHELF_PREFIX):
        return Path(file)
    return Path(file) if _is_local(file) else None


def is_infrastructure(name: str) -> bool:
    return name in INFRASTRUCTURE or ".".join(name.split(".")[:2]) in INFRASTRUCTURE


@cache
def _is_local(file: str) -> bool:
    """Source that no distribution's version speaks for."""
    if not file.endswith(".py") or not os.path.isfile(file):
        return False
    if f"{os.sep}site-packages{os.sep}" in file or f"{os.sep}dist-packages{os.sep}" in file:
        return False
    paths = sysconfig.get_paths()
    library = {os.path.realpath(paths[key]) for key in ("stdlib", "platstdlib")}
    return not os.path.realpath(file).startswith(tuple(f"{folder}{os.sep}" for folder in library))


def find_source(name: str) -> Path | None:
    """The file of a module, by its name and without importing it. None if there is none."""
    top, *rest = name.split(".")
    return _descend(folders, rest) if (folders := _top_folders(top)) else _top_file(top) if not rest else None


def _top_folders(top: str) -> list[str]:
    if top == "claimbench":
        return [str(PACKAGE)]
    if top.startswith(SHELF_PREFIX):
        root = _shelf_root(top)
        return [] if root is None else [str(root)]
    if top.startswith(FILES_PREFIX):
        from claimbench.subjects.user_files import folder_of

        folder = folder_of(top)
        return [] if folder is None else [str(folder)]
    specification = _specification(top)
    return [] if specification is None else list(specification.submodule_search_locations or ())


def _specification(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # __spec__ is None or missing on modules made by hand
        return None


def _top_file(top: str) -> Path | None:
    specification = _specification(top)
    return (
        Path(specification.origin)
        if specification is not None and specification.has_location and specification.origin
        else None
    )


def _descend(folders: list[str], rest: list[str]) -> Path | None:
    for folder in folders:
        base = Path(folder, *rest)
        for candidate in (base / "__init__.py", *([base.with_name(f"{base.name}.py")] if rest else [])):
            if candidate.is_file():
                return candidate
        if rest:
            for suffix in importlib.machinery.EXTENSION_SUFFIXES:
                if (candidate := base.with_name(f"{base.name}{suffix}")).is_file():
                    return candidate
    return None


def _shelf_root(top: str) -> Path | None:
    """The shelf behind a package name: loaded here, named in the environment, or trusted before."""
    loaded = sys.modules.get(top)
    if loaded is not None and getattr(loaded, "__path__", None):
        return Path(next(iter(loaded.__path__)))
    digest = top.removeprefix(SHELF_PREFIX)
    for root in _known_roots():
        if hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest().startswith(digest):
            return Path(root)
    return None


def _known_roots() -> Iterator[str]:
    for named in os.environ.get("CLAIMBENCH_SHELF", "").split(os.pathsep):
        if named:
            yield str(Path(named).expanduser().resolve())
    try:
        yield from json.loads((config_dir() / "trusted.json").read_bytes())
    except (OSError, ValueError):
        return  # nothing was trusted yet


# --- digests of sources ---


def source_digest(path: Path) -> str:
    """Digest of a module's syntax tree without docstrings; of its bytes where it is no Python source."""
    try:
        status = path.stat()
    except OSError:
        return _MISSING
    return _digests.get(str(path), status.st_mtime_ns, status.st_size)


def _compute(path: str) -> str:
    data = Path(path).read_bytes()
    with contextlib.suppress(SyntaxError, ValueError):
        if path.endswith(".py"):
            parts: list[str] = []
            _flatten(ast.parse(data), parts)
            data = "".join(parts).encode(errors="surrogatepass")
    return hashlib.sha256(data).hexdigest()[:32]


def _flatten(node: object, parts: list[str]) -> None:
    """A syntax tree as text, without empty fields: Python versions differ in which ones there are."""
    if isinstance(node, ast.AST):
        parts.append(f"({type(node).__name__}")
        constant = isinstance(node, ast.Constant)
        for name in node._fields:
            value = getattr(node, name, None)
            if constant:
                if name == "value":
                    parts.append(repr(value))
                continue
            if value is None or value == []:
                continue
            if name == "body" and isinstance(node, _DOCUMENTED):
                value = _without_docstring(value)
            parts.append(f" {name}=")
            _flatten(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        parts.append("[")
        for item in node:
            _flatten(item, parts)
            parts.append(",")
        parts.append("]")
    else:
        parts.append(repr(node))


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    documents = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return body[1:] if documents else body


class _Digests:
    """Digests by path, time and size: in this process, and in a cache file that processes share.

    The file saves parsing thirty modules at each start of the command line; losing it costs that, nothing
    else.
    """

    VERSION = 1

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, str]] = {}
        self._fresh: dict[str, tuple[int, int, str]] = {}
        self._read_at: tuple[Path, int] | None = None

    def get(self, path: str, mtime: int, size: int) -> str:
        for attempt in range(2):
            entry = self._known.get(path)
            if entry is not None and entry[:2] == (mtime, size):
                return entry[2]
            if attempt == 0 and not self._load():
                break
        digest = _compute(path)
        self._known[path] = self._fresh[path] = (mtime, size, digest)
        return digest

    def _file(self) -> Path:
        return cache_dir() / f"digests-{self.VERSION}.json"

    def _load(self) -> bool:
        """Take in what other processes have written. False if nothing is there that was not read before."""
        file = self._file()
        try:
            stamp = (file, file.stat().st_mtime_ns)
            if stamp == self._read_at:
                return False
            entries = json.loads(file.read_bytes())
            self._known = {**{p: (int(m), int(s), str(d)) for p, (m, s, d) in entries.items()}, **self._fresh}
            self._read_at = stamp
        except (OSError, ValueError, TypeError, AttributeError):
            return False
        return True

    def save(self) -> None:
        """Write what was computed here. Of two simultaneous writes one is lost, and made again later."""
        if not self._fresh:
            return
        self._load()
        file = self._file()
        partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        # Without a cache directory that can be written to, every process computes for itself.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({**self._known, **self._fresh}))
            partial.replace(file)
        self._fresh = {}


_digests = _Digests()
