"""Subjects: what the arms act on and a user may replace: models and texts, by name, path, hub id or object.

`resolve_subject` says what is meant and hashes its content; it imports no torch and downloads nothing. `prepare`
fetches and builds what opening needs. `open_subject` gives the object that a measure works with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

from claimbench.errors import UserError, nearest
from claimbench.spec import SubjectRef

KINDS = {
    "causal-lm": "claimbench.subjects.causal_lm:KIND",
    "sentence-encoder": "claimbench.subjects.sentence_encoder:KIND",
    "chat": "claimbench.subjects.chat:KIND",
    "text": "claimbench.subjects.text:KIND",
    "table": "claimbench.subjects.table:KIND",
    "images": "claimbench.subjects.images:KIND",
    "callable": "claimbench.subjects.callable:KIND",
}


class Kind(Protocol):
    """What a kind of subject can do. Every method raises UserError, in one line, where the user can mend it."""

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        """What is meant by a name, a path, a hub id or an object; an object needs a version."""

    def downloads(self, ref: SubjectRef) -> int:
        """Bytes that `prepare` would still fetch."""

    def prepare(self, ref: SubjectRef) -> None:
        """Fetch and build whatever `open` needs; nothing if it is there."""

    def open(self, ref: SubjectRef, device: str) -> Any:
        """The object itself, on a torch device where that means something."""


@runtime_checkable
class Imports(Protocol):
    """A kind whose opening imports a library that takes seconds."""

    def imports(self, ref: SubjectRef) -> Sequence[str]:
        """The modules that `open` will import, once the subject is prepared. They start no threads."""


def kind_of(name: str) -> Kind:
    if name not in KINDS:
        raise UserError(f'no subjects of kind "{name}"{nearest(name, KINDS)}')
    module, attribute = KINDS[name].split(":")
    return cast(Kind, getattr(import_module(module), attribute))


def resolve_subject(kind: str, value: Any, *, version: str | None = None) -> SubjectRef:
    """The subject that `value` names, with the hash of its content.

    value: a default's name, a path, a hub id, or an object (which needs `version`: the bench cannot tell two objects
    apart by itself). Raises UserError for whatever is unknown, missing, unreadable, too small or of another kind.
    """
    if version is not None and isinstance(value, str):
        raise UserError(f'version = "{version}" goes with an object; "{value}" is identified by its content')
    return kind_of(kind).resolve(value, version)


def open_subject(ref: SubjectRef, *, device: str = "cpu") -> Any:
    """The subject's object (`CausalLM`, `Text`, ...), prepared if it is not yet."""
    return kind_of(ref.kind).open(ref, device)


def prepare(refs: Iterable[SubjectRef]) -> None:
    """Fetch and build what these subjects need, so that no trial's time is spent on it."""
    for ref in _distinct(refs):
        kind_of(ref.kind).prepare(ref)


def imports(refs: Iterable[SubjectRef]) -> list[str]:
    """The modules that opening these prepared subjects imports, so that a process can do it once for all its forks."""
    kinds = [(kind_of(ref.kind), ref) for ref in _distinct(refs)]
    return sorted({name for kind, ref in kinds if isinstance(kind, Imports) for name in kind.imports(ref)})


def downloads(refs: Iterable[SubjectRef]) -> int:
    """Bytes still to be fetched before these subjects can be opened (for `--dry-run`)."""
    return sum(kind_of(ref.kind).downloads(ref) for ref in _distinct(refs))


def _distinct(refs: Iterable[SubjectRef]) -> list[SubjectRef]:
    return list({(ref.kind, ref.identity): ref for ref in refs}.values())
