"""Texts as subjects: the default corpus or domains of it, a UTF-8 file, a folder of them, or a list of strings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir, write_atomically
from claimbench.spec import SubjectRef, digest
from claimbench.subjects.documents import Document, Text, passages
from claimbench.subjects.store import sha256_of

MINIMUM = 64_000  # bytes: less gives a test split too small for any measure
MINIMUM_DOCUMENTS = 8


def read_text(path: Path) -> list[Document]:
    """The documents of a UTF-8 file (its passages) or of a folder (its files). Raises UserError."""
    files = _files(path)
    texts = [text for text in (_decoded(file, alone=path.is_file()) for file in files) if text is not None]
    size = sum(len(text.encode()) for text in texts)
    if size < MINIMUM:
        raise UserError(f"{_shown(path)}: {size:,} bytes of text; at least {MINIMUM:,} are needed")
    if len(texts) < 2 * MINIMUM_DOCUMENTS:
        texts = [passage for text in texts for passage in passages(text)]
    documents = [Document(text) for text in texts]
    if len({document.sha256 for document in documents}) < MINIMUM_DOCUMENTS:
        raise UserError(
            f"{_shown(path)}: fewer than {MINIMUM_DOCUMENTS} different documents; break its lines or give more files"
        )
    return documents


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{_shown(path)}: no such file or folder")
    try:
        if path.is_file():
            return [path]
        found = [
            f
            for f in path.rglob("*")
            if f.is_file() and not any(p.startswith(".") for p in f.relative_to(path).parts)
        ]
    except OSError as error:
        raise UserError(f"{_shown(path)}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{_shown(path)}: holds no files")
    return sorted(found)


def _decoded(path: Path, *, alone: bool) -> str | None:
    """A file's text; None for a binary file among others."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{_shown(path)}: cannot be read: {error.strerror}") from None
    if b"\0" in content[:8192] and not alone:
        return None
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(path)}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _shown(path: Path) -> str:
    """A path as it may be printed, whatever bytes its name holds."""
    return str(path).encode("utf-8", "replace").decode()


class TextKind:
    """Texts by name (`default-corpus`, `default-corpus:python,json`), by path, or a list of strings with a version."""

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if isinstance(value, str) and value.split(":")[0] == "default-corpus":
            return _default(value)
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
                raise UserError(f"{_shown(path)}: changed since this run was planned; start it again")
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
            f'no text "{_shown(path)}": no such file or folder{nearest(value, ["default-corpus"])}'
        )
    path = path.resolve()
    identity = _identity(path)
    checked = _objects() / f"{identity}.checked"  # the same content was found whole and large enough before
    if not checked.exists():
        read_text(path)
        write_atomically(checked, b"")
    return SubjectRef(
        kind="text",
        value=_shown(Path(value)),
        identity=identity,
        path=str(path),
        label=_shown(Path(path.name)),
        private=True,
    )


def _identity(path: Path) -> str:
    """The hash of the files' contents, whatever they are called; remembered, so that a second use reads nothing."""
    try:
        return digest(["text", path.is_file(), sorted({sha256_of(file) for file in _files(path)})])
    except OSError as error:
        raise UserError(f"{_shown(Path(error.filename))}: cannot be read: {error.strerror}") from None


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
