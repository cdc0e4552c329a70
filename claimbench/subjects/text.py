"""Texts as subjects: the default corpus or domains of it, a UTF-8 file here or at an address, a folder of them, or a
list of strings. A folder's sub-folders are its domains.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir, write_atomically
from claimbench.spec import SubjectRef, digest
from claimbench.subjects.documents import Document, Text, passages
from claimbench.subjects.remote import fetch_url, file_name, is_url, shown_url
from claimbench.subjects.store import sha256_of_each, shown

MINIMUM = 64_000  # bytes: less gives a test split too small for any measure
MINIMUM_DOCUMENTS = 8


def read_text(path: Path, where: str = "") -> list[Document]:
    """The documents of a UTF-8 file (its passages) or of a folder (its files). Raises UserError.

    where: what the user calls it, if not by its path. A document's domain is the first folder below `path` on the way
    to its file; "" where there is none.
    """
    where = where or shown(path)
    if path.is_file():
        read = [("", _decoded(path, where, alone=True))]
    else:
        read = [(_domain(file, path), _decoded(file, shown(file), alone=False)) for file in _files(path)]
    texts = [(domain, text) for domain, text in read if text is not None]
    size = sum(len(text.encode()) for _, text in texts)
    if size < MINIMUM:
        raise UserError(f"{where}: {size:,} bytes of text; at least {MINIMUM:,} are needed")
    if len(texts) < 2 * MINIMUM_DOCUMENTS:
        texts = [(domain, passage) for domain, text in texts for passage in passages(text)]
    documents = [Document(text, domain) for domain, text in texts]
    if len({document.sha256 for document in documents}) < MINIMUM_DOCUMENTS:
        raise UserError(
            f"{where}: fewer than {MINIMUM_DOCUMENTS} different documents; break its lines or give more files"
        )
    return documents


def _domain(file: Path, folder: Path) -> str:
    parts = file.relative_to(folder).parts
    return shown(Path(parts[0])) if len(parts) > 1 else ""


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{shown(path)}: no such file or folder")
    try:
        if path.is_file():
            return [path]
        found = [
            f
            for f in path.rglob("*")
            if f.is_file() and not any(p.startswith(".") for p in f.relative_to(path).parts)
        ]
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{shown(path)}: holds no files")
    return sorted(found)


def _decoded(path: Path, where: str, *, alone: bool) -> str | None:
    """A file's text; None for a binary file among others."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    if b"\0" in content[:8192] and not alone:
        return None
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


class TextKind:
    """Texts by name (`default-corpus`, `default-corpus:python,json`), by path or address, or a list of strings with a
    version.
    """

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if isinstance(value, str) and value.split(":")[0] == "default-corpus":
            return _default(value)
        if isinstance(value, str) and is_url(value):
            return _known(fetch_url(value), value=shown_url(value), label=file_name(value))
        if isinstance(value, str | Path):
            return _local(value)
        return _object(value, version)

    def downloads(self, ref: SubjectRef) -> int:
        from claimbench.tasks.corpus import downloads

        return 0 if ref.path else downloads()

    def prepare(self, ref: SubjectRef) -> None:
        from claimbench.tasks.corpus import build_corpus

        if not ref.path:
            build_corpus()

    def open(self, ref: SubjectRef, device: str) -> Text:
        if ref.path:
            path = Path(ref.path)
            if _identity(path) != ref.identity:
                raise UserError(f"{shown(path)}: changed since this run was planned; start it again")
            return Text(_stored(path) if path.parent == _objects() else read_text(path))
        from claimbench.tasks.corpus import read_corpus

        return Text(Document(text, domain) for domain, text in read_corpus(_domains(ref.value)))


def _domains(value: str) -> tuple[str, ...]:
    from claimbench.tasks.corpus import DOMAINS

    chosen = tuple(sorted(set(value.split(":", 1)[1].split(",")))) if ":" in value else tuple(DOMAINS)
    for name in chosen:
        if name not in DOMAINS:
            raise UserError(f'{value}: no domain "{name}"{nearest(name, DOMAINS)}')
    return chosen


def _default(value: str) -> SubjectRef:
    from claimbench.tasks.corpus import CORPUS_SHA256

    identity = digest(["default-corpus", CORPUS_SHA256, _domains(value)])
    return SubjectRef(kind="text", value=value, identity=identity, label=value)


def _local(value: str | Path) -> SubjectRef:
    path = Path(value).expanduser()
    if isinstance(value, str) and not path.exists() and "/" not in value:
        raise UserError(
            f'no text "{shown(path)}": no such file or folder{nearest(value, ["default-corpus"])}'
        )
    return _known(path.resolve(), value=shown(Path(value)), label=shown(Path(path.resolve().name)))


def _known(path: Path, *, value: str, label: str) -> SubjectRef:
    identity = _identity(path)
    checked = _objects() / f"{identity}.checked"  # the same content was found whole and large enough before
    if not checked.exists():
        read_text(path, value)
        write_atomically(checked, b"")
    return SubjectRef(kind="text", value=value, identity=identity, path=str(path), label=label, private=True)


def _identity(path: Path) -> str:
    """The hash of the files' contents and domains, whatever the files are called; remembered, so that a second use
    reads nothing.
    """
    try:
        files = _files(path)
        contents = sha256_of_each(files)
        domains = [_domain(file, path) for file in files]
        content: list[object] = [*sorted(set(contents))]
        if any(domains):
            content = [*sorted(set(zip(domains, contents, strict=True)))]
        return digest(["text", path.is_file(), content])
    except OSError as error:
        raise UserError(f"{shown(Path(error.filename))}: cannot be read: {error.strerror}") from None


def _objects() -> Path:
    return cache_dir() / "subjects" / "texts"


def _object(value: Any, version: str | None) -> SubjectRef:
    texts = list(value) if isinstance(value, list | tuple) else None
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"a text is a name, a path or a list of strings, not {type(value).__name__}")
    if version is None:
        raise UserError('a text given as an object needs version = "...": a name for exactly this content')
    size = sum(len(text.encode()) for text in texts)
    if size < MINIMUM or len(set(texts)) < MINIMUM_DOCUMENTS:
        raise UserError(
            f"text {version}: {size:,} bytes in {len(set(texts))} different documents; "
            f"at least {MINIMUM:,} bytes and {MINIMUM_DOCUMENTS} documents are needed"
        )
    content = json.dumps(texts).encode()
    path = _objects() / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
    if not path.exists():
        write_atomically(path, content)
    identity = _identity(path)
    return SubjectRef(
        kind="text", value=version, identity=identity, path=str(path), label=version, private=True
    )


def _stored(path: Path) -> list[Document]:
    return [Document(text) for text in json.loads(path.read_bytes())]


KIND = TextKind()
