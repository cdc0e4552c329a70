"""Where papers are found: the built-in shelf, folders the user adds, and installed packages that bring one.

Listing and searching read an index of the `paper.toml` files, kept in the cache and refreshed file by file when a
time or size changes. No paper's code is imported before a worker runs it (`load_claims`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir, config_dir, write_atomically

if TYPE_CHECKING:
    from claimbench.paper import Claim, Paper

BUILT_IN = Path(__file__).resolve().parent / "papers"
VARIABLE = "CLAIMBENCH_SHELF"
ENTRY_POINTS = "claimbench.shelves"
INDEX_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """What listing and searching know of a paper, without pydantic and without its code."""

    id: str
    group: str
    folder: Path
    title: str
    year: int
    authors: tuple[str, ...]
    arxiv: str
    summary: str
    topics: tuple[str, ...]
    extras: tuple[str, ...]
    claims: tuple[dict[str, Any], ...]  # id, statement, scales, kinds of subjects

    @property
    def built_in(self) -> bool:
        return self.folder.is_relative_to(BUILT_IN)

    def load(self) -> Paper:
        from claimbench.paper import load_paper

        return load_paper(self.folder / "paper.toml")


@dataclass
class Shelf:
    """Papers by id. Raises UserError where two folders claim one id: shadowing is never silent."""

    roots: Sequence[Path]
    broken: list[str] = field(default_factory=list)  # one line for each paper.toml that is no paper

    @classmethod
    def find(cls, extra: Iterable[Path | str] = ()) -> Shelf:
        """The built-in shelf, installed packages' shelves, those of the environment variable, then `extra`."""
        roots = [BUILT_IN, *_installed_shelves()]
        named = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
        for where, value in [*((f"{VARIABLE}", n) for n in named), *(("--shelf", e) for e in extra)]:
            root = Path(value).expanduser().resolve()
            if not root.is_dir():
                raise UserError(f"{where}: no folder {value}; a shelf is a folder GROUP/PAPER/paper.toml")
            if root not in roots:
                roots.append(root)
        return cls(roots)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for root in self.roots:
            entries, broken = read_index(root)
            self.broken.extend(broken)
            for entry in entries:
                if entry.id in found:
                    raise UserError(
                        f'"{entry.id}" stands on two shelves: {found[entry.id].folder} and {entry.folder}; rename one'
                    )
                found[entry.id] = entry
        return found

    def entry(self, name: str) -> Entry:
        """A paper by id, in either spelling (`just-read-twice`, `just_read_twice`), with or without its group."""
        wanted = name.rsplit("/", 1)[-1].replace("_", "-")
        if wanted not in self.entries:
            for line in self.broken:
                if f"{os.sep}{wanted.replace('-', '_')}{os.sep}" in line:
                    raise UserError(line)
            raise UserError(f'no paper "{name}"{nearest(wanted, self.entries)}')
        return self.entries[wanted]

    def resolve(self, target: str) -> tuple[Paper, list[Claim]]:
        """`PAPER` or `PAPER/CLAIM` (or `GROUP/PAPER[/CLAIM]`) to the paper and the claims meant."""
        parts = target.strip("/").split("/")
        groups = {entry.group for entry in self.entries.values()}
        if len(parts) > 1 and parts[0] in groups:
            parts = parts[1:]
        paper = self.entry(parts[0]).load()
        if len(parts) > 2:
            raise UserError(f'"{target}" is not PAPER or PAPER/CLAIM')
        return paper, [paper.find_claim(parts[1])] if len(parts) == 2 else list(paper.claim)

    def search(self, words: str) -> list[Entry]:
        """Papers that hold every word, best first: title before claims before the rest."""
        wanted = words.lower().split()

        def score(entry: Entry) -> float:
            title = f"{entry.id} {entry.title}".lower()
            claims = " ".join(f"{c['id']} {c['statement']}" for c in entry.claims).lower()
            rest = " ".join(
                [entry.group, entry.summary, *entry.topics, *entry.authors, str(entry.year)]
            ).lower()
            total = 0.0
            for word in wanted:
                hit = 4.0 * (word in title) + 2.0 * (word in claims) + 1.0 * (word in rest)
                if not hit:
                    return 0.0
                total += hit
            return total

        scored = [(score(entry), entry) for entry in self.entries.values()]
        return [entry for points, entry in sorted(scored, key=lambda s: (-s[0], s[1].id)) if points > 0]


def read_index(root: Path) -> tuple[list[Entry], list[str]]:
    """The papers below `root`, from the cached index where files are unchanged, in the order of their folders."""
    cached = cache_dir() / "index" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    try:
        known = json.loads(cached.read_bytes())
        files = known["files"] if known.get("version") == INDEX_VERSION else {}
    except (OSError, ValueError, KeyError, AttributeError):
        files = {}
    current: dict[str, Any] = {}
    for name, stamp in _paper_files(root):
        old = files.get(name)
        current[name] = old if old is not None and old["stamp"] == stamp else _summarise(root / name, stamp)
    if current != files:
        with contextlib.suppress(
            OSError
        ):  # an index that cannot be kept (read-only home) costs time, nothing else
            write_atomically(cached, json.dumps({"version": INDEX_VERSION, "files": current}).encode())
    entries, broken = [], []
    for name, item in current.items():
        if "error" in item:
            broken.append(item["error"])
        else:
            entries.append(Entry(folder=(root / name).parent, **_frozen(item["entry"])))
    return entries, broken


def _frozen(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _paper_files(root: Path) -> list[tuple[str, list[int]]]:
    """`group/paper/paper.toml` below a root with time and size, by two levels of directory listing."""
    found = []
    for group in _folders(root):
        for paper in _folders(Path(group.path)):
            try:
                status = os.stat(os.path.join(paper.path, "paper.toml"))
            except OSError:
                continue
            found.append((f"{group.name}/{paper.name}/paper.toml", [status.st_mtime_ns, status.st_size]))
    return sorted(found)


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [e for e in entries if not e.name.startswith((".", "_")) and e.is_dir()]
    except OSError:
        return []


def _summarise(path: Path, stamp: list[int]) -> dict[str, Any]:
    from claimbench.paper import load_paper

    try:
        paper = load_paper(path)
        if paper.group != path.parent.parent.name:
            raise UserError(
                f'{path}: group = "{paper.group}" but it lies in "{path.parent.parent.name}"; move or rename'
            )
    except UserError as error:
        return {"stamp": stamp, "error": str(error)}
    claims = [
        {
            "id": claim.id,
            "statement": claim.statement,
            "scales": list(claim.scales),
            "subjects": {name: spec.kind for name, spec in claim.subjects.items()},
            "published": [f"{f.value:g} {f.unit}".strip() for f in claim.figures],
        }
        for claim in paper.claim
    ]
    fields = ("id", "group", "title", "year", "authors", "arxiv", "summary", "topics", "extras")
    return {"stamp": stamp, "entry": {**{name: getattr(paper, name) for name in fields}, "claims": claims}}


def _installed_shelves() -> list[Path]:
    """Folders named by entry points `claimbench.shelves` (value: a dotted package), located without importing them."""
    from importlib.metadata import entry_points

    roots = []
    for point in entry_points(group=ENTRY_POINTS):
        if point.dist is None:
            continue
        root = Path(str(point.dist.locate_file(point.value.replace(".", "/").replace(":", "/")))).resolve()
        if not root.is_dir():
            raise UserError(
                f"{point.dist.name}: its entry point {point.name} names no folder {root}; reinstall it"
            )
        roots.append(root)
    return roots


# --- importing a paper's code: only in workers and where a method is asked for by hand ---


def package_of(folder: Path) -> str:
    """The package name under which a paper's folder is imported; folders of different shelves never collide."""
    folder = folder.resolve()
    if folder.is_relative_to(BUILT_IN):
        return ".".join(["claimbench", "papers", *folder.relative_to(BUILT_IN).parts])
    root = folder.parent.parent
    return ".".join(
        [
            f"claimbench_shelf_{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}",
            *folder.relative_to(root).parts,
        ]
    )


def load_claims(folder: Path) -> types.ModuleType:
    """Import a paper's `claims.py`. Its measures are then in `claimbench.trial.registry(module.__name__)`."""
    package = package_of(folder)
    top = package.split(".", 1)[0]
    if top != "claimbench" and top not in sys.modules:
        module = types.ModuleType(top)
        module.__path__ = [str(folder.resolve().parent.parent)]
        sys.modules[top] = module
    return importlib.import_module(f"{package}.claims")


# --- trust: a foreign shelf runs code, so it is asked about ---


def shelf_digest(root: Path) -> str:
    """A digest of every Python file below a shelf."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            total.update(
                os.fsencode(path.relative_to(root)) + b"\0" + hashlib.sha256(path.read_bytes()).digest()
            )
    return total.hexdigest()


def _trusted() -> dict[str, str]:
    try:
        return dict(json.loads((config_dir() / "trusted.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def is_trusted(root: Path) -> bool:
    return _trusted().get(str(root)) == shelf_digest(root)


def trust(root: Path) -> None:
    """Remember a shelf by its path and the digest of its code."""
    known = {**_trusted(), str(root): shelf_digest(root)}
    write_atomically(config_dir() / "trusted.json", json.dumps(known, indent=1).encode())


def ask_trust(folders: Sequence[Path], may_trust: Callable[[Path], bool] | None) -> None:
    """A foreign shelf runs code on this machine: it is asked about once for each state of its code."""
    for root in {
        folder.resolve().parent.parent for folder in folders if not folder.resolve().is_relative_to(BUILT_IN)
    }:
        if not is_trusted(root):
            if may_trust is None or not may_trust(root):
                raise UserError(
                    f"--shelf: {root} is not trusted to run code here; look at it, then pass --trust"
                )
            trust(root)
