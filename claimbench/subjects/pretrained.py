"""Pretrained models as subjects, whatever they are for: an embedded default, a model directory, a hub id, or an object.

A kind says which models it takes and what it opens them as; what identifies one, what is fetched for it and where it
lies is the same for all. Models are opened in float32 with torch's scaled-dot-product attention, in eval mode. Code
that comes with a model is never run and pickled weights are never read.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir
from claimbench.spec import SubjectRef, digest
from claimbench.subjects import checkpoints
from claimbench.subjects.store import built, is_built

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CHOOSERS = ("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto")
EXTRA = 'pip install "claimbench[compression]"'
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Embedded:
    """A default: what it is by hash, what it still has to fetch, and how its model directory is filled."""

    identity: Callable[[], str]
    downloads: Callable[[], int]
    build: Callable[[Path], None]
    label: str


class PretrainedKind(ABC, Generic[Opened]):
    """Models by name, path, hub id, or as an object that can be saved as a model directory."""

    kind: str
    noun: str  # what errors call one of them
    names: Mapping[str, Embedded]
    objects: str = "a pair (transformers model, tokenizer)"  # which objects serve
    nested: tuple[str, ...] = ()  # patterns of the files in folders of the directory that loading reads

    @abstractmethod
    def check(self, folder: Path, config: dict[str, Any]) -> None:
        """Raise UserError if the whole model directory `folder` is of another kind."""

    @abstractmethod
    def load(self, folder: Path, shown: str, device: str) -> Opened:
        """Open a checked model directory; `shown` is what errors call it."""

    def takes(self, value: Any) -> bool:
        """Whether an object is one that `save` can write."""
        model = value[0] if isinstance(value, tuple) and len(value) == 2 else value
        return hasattr(model, "save_pretrained") and hasattr(model, "config")

    def save(self, value: Any, folder: Path) -> None:
        """Write an object as a model directory. Raises UserError if a part of it is missing."""
        if not isinstance(value, tuple):
            raise UserError("a model given as an object needs its tokenizer beside it: (model, tokenizer)")
        for part in value:
            part.save_pretrained(folder)

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if not isinstance(value, str | Path):
            return self._object(value, version)
        text = str(value)
        if text in self.names:
            entry = self.names[text]
            return SubjectRef(kind=self.kind, value=text, identity=entry.identity(), label=entry.label)
        path = Path(text).expanduser()
        if path.exists() or isinstance(value, Path) or text.startswith(("/", "./", "../", "~")):
            return self._directory(path, text)
        if checkpoints.HUB_ID.fullmatch(text):
            return self._hub(text)
        if "/" in text:
            raise UserError(f"{printable(text)}: no such directory")
        hint = nearest(text, self.names)
        raise UserError(
            f'no {self.noun} "{printable(text)}"{hint} (or give a directory, or a hub id such as org/name)'
        )

    def downloads(self, ref: SubjectRef) -> int:
        if ref.value in self.names and not ref.path:
            return 0 if is_built(home(ref)) else self.names[ref.value].downloads()
        return 0 if ref.path else checkpoints.hub_bytes(*_repository(ref))

    def prepare(self, ref: SubjectRef) -> None:
        self._folder(ref)

    def open(self, ref: SubjectRef, device: str) -> Opened:
        return self.load(self._folder(ref), printable(ref.path or ref.value), device)

    def imports(self, ref: SubjectRef) -> tuple[str, ...]:
        family = _family(home(ref) if ref.value in self.names and not ref.path else Path(ref.path))
        return (*_CHOOSERS, f"transformers.models.{family}.modeling_{family}") if family else _CHOOSERS

    def _folder(self, ref: SubjectRef) -> Path:
        if ref.path:
            path = Path(ref.path)
            checkpoints.check_directory(path)
            if checkpoints.content_identity(path, self.nested) != ref.identity:
                raise UserError(f"{printable(ref.path)}: changed since this run was planned; start it again")
            return path
        if ref.value in self.names:
            return built(home(ref), self.names[ref.value].build)
        folder = checkpoints.hub_directory(*_repository(ref))
        self.check(folder, checkpoints.check_directory(folder))
        return folder

    def _directory(self, path: Path, value: str) -> SubjectRef:
        path = path.resolve()
        self.check(path, checkpoints.check_directory(path))
        return SubjectRef(
            kind=self.kind,
            value=printable(value),
            identity=checkpoints.content_identity(path, self.nested),
            path=str(path),
            label=printable(path.name),
            private=True,
        )

    def _hub(self, value: str) -> SubjectRef:
        if find_spec("huggingface_hub") is None:
            raise UserError(
                f'"{value}": no such directory here, and a hub model needs huggingface_hub: {EXTRA}'
            )
        repository, commit, private = checkpoints.hub_commit(value)
        return SubjectRef(
            kind=self.kind,
            value=f"{repository}@{commit}",
            identity=digest(["hub", repository, commit]),
            label=f"{repository}@{commit[:12]}",
            private=private,
        )

    def _object(self, value: Any, version: str | None) -> SubjectRef:
        """A model saved into the cache: from there on it is a directory, in every worker."""
        if not self.takes(value):
            given = value[0] if isinstance(value, tuple) and len(value) == 2 else value
            raise UserError(
                f"a {self.noun} is a name, a directory, a hub id or {self.objects}, not {type(given).__name__}"
            )
        if version is None:
            raise UserError(
                'a model given as an object needs version = "...": a name for exactly these weights'
            )
        objects = cache_dir() / "subjects" / "objects"
        objects.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=objects) as folder:
            saved = Path(folder) / "model"
            self.save(value, saved)
            self.check(saved, checkpoints.check_directory(saved))
            identity = checkpoints.content_identity(saved, self.nested)
            final = objects / identity
            if not final.exists():
                shutil.move(saved, final)
        return SubjectRef(
            kind=self.kind, value=version, identity=identity, path=str(final), label=version, private=True
        )


def printable(text: str) -> str:
    """A path or name as it may be printed, whatever bytes it holds."""
    return text.encode("utf-8", "replace").decode()


def home(ref: SubjectRef) -> Path:
    """Where an embedded default is built."""
    return cache_dir() / "subjects" / f"{ref.value}-{ref.identity[:16]}"


def _family(folder: Path) -> str:
    """The name that transformers files a model directory's architecture under, or nothing."""
    try:
        family = json.loads((folder / "config.json").read_bytes()).get("model_type", "")
    except (OSError, ValueError, AttributeError):
        return ""  # a hub's model lies elsewhere; what is broken is said when it is opened
    return family if isinstance(family, str) and family.isidentifier() else ""


def _repository(ref: SubjectRef) -> tuple[str, str]:
    repository, _, commit = ref.value.partition("@")
    return repository, commit


def load_pretrained(
    folder: Path, shown: str, device: str, *, auto: str, noun: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, set[str]]:
    """Model and tokenizer of a whole model directory, and the names of the weights that it lacks.

    auto: the name of transformers' class that chooses the architecture. Raises UserError with what transformers says.
    """
    with _collections_paused():
        try:
            import torch
            import transformers
            from transformers.utils import logging

            chooser = getattr(transformers, auto)
        except ImportError as error:
            raise UserError(f"a {noun} needs {error.name}: {EXTRA}") from None
        shows_progress = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # an opening takes a second, and a worker's output is not read
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, report = chooser.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (ValueError, OSError, KeyError, ImportError, RuntimeError) as error:
            # Files are there and whole, so what transformers says about them is the user's to read: an architecture
            # that it does not know, one that brings its own code, shapes that do not fit, a missing tokenizer.
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(
                f"{shown}: transformers {installed('transformers')} cannot open it: {reason[:300]}"
            ) from None
        finally:
            if shows_progress:
                logging.enable_progress_bar()
    return model.to(torch.device(device)).eval(), tokenizer, set(report["missing_keys"])


@contextlib.contextmanager
def _collections_paused() -> Iterator[None]:
    """No garbage collection inside: of the million objects that the libraries' imports make none is garbage, and
    looking through them again and again takes a quarter of the time of a first opening."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
