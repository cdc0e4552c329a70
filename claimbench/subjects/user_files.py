"""Importing a file that lies in no installed package, under a name that clashes with nothing.

The folder of `losses.py` becomes a package of its own, named for the folder's path: `claimbench_files_DIGEST.losses`. A
file may import its neighbours with `from . import other`; nothing is put on `sys.path`, so that a file called `json.py`
hides nobody's. Such names are found by `importlib` in every process that has imported this module.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from claimbench.currency import FILES_PREFIX as PREFIX
from claimbench.errors import UserError
from claimbench.paths import cache_dir, write_atomically

__all__ = ["PREFIX", "Finder", "folder_of", "module_name"]


def module_name(path: Path) -> str:
    """The name under which a file is imported. Raises UserError for a file that cannot have one.

    A file in a package (a folder with `__init__.py`) is named from the folder that holds the outermost package, so that
    its relative imports are what they are elsewhere.
    """
    if path.suffix != ".py" or "." in path.stem:
        raise UserError(f"{path}: a module's file is called NAME.py, without another full stop")
    folder, parts = path.resolve().parent, [path.stem]
    while (folder / "__init__.py").is_file() and "." not in folder.name:
        folder, parts = folder.parent, [folder.name, *parts]
    top = PREFIX + _digest(folder)
    note = _note(top)
    if not note.exists():
        write_atomically(note, os.fsencode(folder))
    return ".".join([top, *parts])


def folder_of(top: str) -> Path | None:
    """The folder behind a package's name, in whichever process it was named."""
    try:
        folder = Path(os.fsdecode(_note(top).read_bytes()))
    except OSError:
        return None
    return folder if top == PREFIX + _digest(folder) else None


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _note(top: str) -> Path:
    return cache_dir() / "subjects" / "folders" / top.removeprefix(PREFIX)


class Finder(MetaPathFinder):
    """Finds the packages that `module_name` names; what lies in them is Python's own business."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PREFIX) or "." in fullname:
            return None
        folder = folder_of(fullname)
        if folder is None:
            return None
        specification = ModuleSpec(fullname, None, is_package=True)
        specification.submodule_search_locations = [str(folder)]
        return specification


sys.meta_path.append(Finder())
