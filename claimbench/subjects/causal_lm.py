"""Causal language models as subjects: the two embedded ones, a model directory, a hub id, or a transformers model.

Opened in float32 with torch's scaled-dot-product attention, in eval mode. Code that comes with a model is never run and
pickled weights are never read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimbench.errors import UserError, nearest
from claimbench.paths import cache_dir
from claimbench.spec import SubjectRef, digest
from claimbench.subjects import byte_model, checkpoints, smollm2
from claimbench.subjects.store import built, is_built
from claimbench.subjects.wheels import missing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EXTRA = 'pip install "claimbench[compression]"'


@dataclass(frozen=True)
class CausalLM:
    """A language model and its tokenizer.

    model: a transformers causal LM, in eval mode on its device; `model(input_ids=(batch, length)).logits` are
    (batch, length, vocabulary_size). Whoever changes it changes it for the rest of this trial: copy before.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def encode(self, text: str) -> torch.Tensor:
        """Token ids of a text: (tokens,), int64, on the CPU, no special tokens added. `tokenizer.decode` inverts."""
        import torch

        return torch.tensor(
            self.tokenizer.encode(text, add_special_tokens=False, verbose=False), dtype=torch.int64
        )

    @property
    def vocabulary_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def context(self) -> int:
        """The longest sequence that the model was made for, in tokens."""
        return int(self.model.config.get_text_config().max_position_embeddings)


@dataclass(frozen=True)
class Embedded:
    """A default: what it is by hash, what it still has to fetch, and how its model directory is filled."""

    identity: Callable[[], str]
    downloads: Callable[[], int]
    build: Callable[[Path], None]
    label: str


NAMES = {
    "smollm2-135m": Embedded(
        lambda: digest(["smollm2-135m", smollm2.WEIGHTS_SHA256, smollm2.MEMBER_SHA256]),
        lambda: missing([smollm2.WHEEL]),
        smollm2.convert,
        "SmolLM2-135M-Instruct (4-bit grid)",
    ),
    "byte-lm": Embedded(
        byte_model.identity, byte_model.downloads, byte_model.build, "byte LM, 8 blocks, d = 128"
    ),
}


class CausalLMKind:
    """Causal LMs by name, path, hub id, or as an object: a transformers model, or a pair of model and tokenizer."""

    def resolve(self, value: Any, version: str | None) -> SubjectRef:
        if not isinstance(value, str | Path):
            return _object(value, version)
        text = str(value)
        if text in NAMES:
            return SubjectRef(
                kind="causal-lm", value=text, identity=NAMES[text].identity(), label=NAMES[text].label
            )
        path = Path(text).expanduser()
        if path.exists() or isinstance(value, Path) or text.startswith(("/", "./", "../", "~")):
            return _directory(path, text)
        if checkpoints.HUB_ID.fullmatch(text):
            return _hub(text)
        if "/" in text:
            raise UserError(f"{_shown(text)}: no such directory")
        hint = nearest(text, NAMES)
        raise UserError(
            f'no causal LM "{_shown(text)}"{hint} (or give a directory, or a hub id such as org/name)'
        )

    def downloads(self, ref: SubjectRef) -> int:
        if ref.value in NAMES and not ref.path:
            return 0 if is_built(_home(ref)) else NAMES[ref.value].downloads()
        return 0 if ref.path else checkpoints.hub_bytes(*_repository(ref))

    def prepare(self, ref: SubjectRef) -> None:
        self._folder(ref)

    def open(self, ref: SubjectRef, device: str) -> CausalLM:
        return _load(self._folder(ref), ref, device)

    def _folder(self, ref: SubjectRef) -> Path:
        if ref.path:
            path = Path(ref.path)
            checkpoints.check_directory(path)
            if checkpoints.content_identity(path) != ref.identity:
                raise UserError(f"{_shown(ref.path)}: changed since this run was planned; start it again")
            return path
        if ref.value in NAMES:
            return built(_home(ref), NAMES[ref.value].build)
        folder = checkpoints.hub_directory(*_repository(ref))
        _check_architecture(folder, checkpoints.check_directory(folder))
        return folder


def _shown(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _home(ref: SubjectRef) -> Path:
    return cache_dir() / "subjects" / f"{ref.value}-{ref.identity[:16]}"


def _check_architecture(folder: Path, config: dict[str, Any]) -> None:
    names = config.get("architectures") or []
    if names and not any(
        name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names
    ):
        raise UserError(f"{_shown(str(folder))}: holds a {', '.join(names)}, not a causal language model")


def _directory(path: Path, value: str) -> SubjectRef:
    path = path.resolve()
    _check_architecture(path, checkpoints.check_directory(path))
    return SubjectRef(
        kind="causal-lm",
        value=_shown(value),
        identity=checkpoints.content_identity(path),
        path=str(path),
        label=_shown(path.name),
        private=True,
    )


def _hub(value: str) -> SubjectRef:
    if find_spec("huggingface_hub") is None:
        raise UserError(f'"{value}": no such directory here, and a hub model needs huggingface_hub: {_EXTRA}')
    repository, commit, private = checkpoints.hub_commit(value)
    return SubjectRef(
        kind="causal-lm",
        value=f"{repository}@{commit}",
        identity=digest(["hub", repository, commit]),
        label=f"{repository}@{commit[:12]}",
        private=private,
    )


def _repository(ref: SubjectRef) -> tuple[str, str]:
    repository, _, commit = ref.value.partition("@")
    return repository, commit


def _object(value: Any, version: str | None) -> SubjectRef:
    """A transformers model, saved into the cache: from there on it is a directory, in every worker."""
    model, tokenizer = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not hasattr(model, "save_pretrained") or not hasattr(model, "config"):
        raise UserError(
            "a causal LM is a name, a directory, a hub id or a pair (transformers model, tokenizer), "
            f"not {type(model).__name__}"
        )
    if version is None:
        raise UserError('a model given as an object needs version = "...": a name for exactly these weights')
    if tokenizer is None:
        raise UserError("a model given as an object needs its tokenizer beside it: (model, tokenizer)")
    home = cache_dir() / "subjects" / "objects"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=home) as folder:
        saved = Path(folder) / "model"
        model.save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        _check_architecture(saved, checkpoints.check_directory(saved))
        identity = checkpoints.content_identity(saved)
        final = home / identity
        if not final.exists():
            shutil.move(saved, final)
    return SubjectRef(
        kind="causal-lm", value=version, identity=identity, path=str(final), label=version, private=True
    )


def _load(folder: Path, ref: SubjectRef, device: str) -> CausalLM:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(f"a causal LM needs {error.name}: {_EXTRA}") from None
    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # an opening takes a second, and a worker's output is not read
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (ValueError, OSError, KeyError, ImportError, RuntimeError) as error:
        # Files are there and whole, so what transformers says about them is the user's to read: an architecture that it
        # does not know, one that brings its own code, shapes that do not fit, a tokenizer that is missing.
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        shown = _shown(ref.path or ref.value)
        raise UserError(
            f"{shown}: transformers {installed('transformers')} cannot open it: {reason[:300]}"
        ) from None
    finally:
        if shows_progress:
            logging.enable_progress_bar()
    return CausalLM(model.to(torch.device(device)).eval(), tokenizer)  # type: ignore[arg-type]  # wrapped without types


KIND = CausalLMKind()
