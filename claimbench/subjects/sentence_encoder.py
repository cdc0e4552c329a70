"""Sentence encoders as subjects: the embedded one, a model directory, a hub id, or a transformers or
sentence-transformers model.

A directory of sentence-transformers' says how token states become a row; without its files they are averaged and the
row is scaled to length 1 (Reimers & Gurevych 2019, arXiv 1908.10084, section 3).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float

from claimbench.errors import UserError
from claimbench.spec import digest
from claimbench.subjects import minilm
from claimbench.subjects.pretrained import Embedded, PretrainedKind, load_pretrained, printable
from claimbench.subjects.wheels import missing

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POOLINGS = ("mean", "cls", "max")
_LEGACY = {  # sentence-transformers' older way to write the mode: one flag each
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Recipe:
    """How texts become token states and those a row, beside the model itself."""

    pooling: str = "mean"  # one of POOLINGS
    unit: bool = True  # rows are scaled to length 1
    context: int | None = None  # tokens after which a text is cut; None: the tokenizer's and model's own
    lowercase: bool = False
    prefix: str = ""  # what every text is given in front


@dataclass(frozen=True)
class SentenceEncoder:
    """Texts to vectors.

    model: a transformers encoder, in eval mode on its device. context: the tokens of a text that count, special tokens
    included; what follows is cut off, as sentence-transformers does.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    recipe: Recipe
    context: int

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def _padding(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def encode(self, texts: Sequence[str], *, batch: int = 64) -> Float[np.ndarray, "texts width"]:
        """A float32 row for each text, in their order; of length 1 unless the model's own recipe says otherwise.

        batch: texts encoded at once. It moves a row by no more than float32's rounding.
        """
        import torch

        if isinstance(texts, str):
            raise UserError("encode takes a list of texts, not one text: encode([text])")
        if batch < 1:
            raise UserError(f"encode(batch = {batch}): at least 1")
        rows = np.empty((len(texts), self.width), dtype=np.float32)
        if not len(texts):
            return rows
        prepared = [self.recipe.prefix + text.strip() for text in texts]
        if self.recipe.lowercase:
            prepared = [text.lower() for text in prepared]
        ids = self.tokenizer(
            prepared, truncation=True, max_length=self.context, padding=False, return_attention_mask=False
        )["input_ids"]
        ids = [row or [self._padding] for row in ids]  # a text without any token is one of padding
        order = np.argsort(
            [-len(row) for row in ids], kind="stable"
        )  # alike lengths together: little padding
        with torch.inference_mode():
            for start in range(0, len(texts), batch):
                chosen = order[start : start + batch]
                rows[chosen] = self._rows([ids[index] for index in chosen]).cpu().numpy()
        return rows

    def _rows(self, ids: list[list[int]]) -> Tensor:
        """(texts, width) of texts given as token ids."""
        import torch

        lengths = torch.tensor([len(row) for row in ids])
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in ids],
            batch_first=True,
            padding_value=self._padding,
        )
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).to(self.model.device)
        states = self.model(
            input_ids=padded.to(self.model.device), attention_mask=mask.long()
        ).last_hidden_state  # (texts, tokens, width)
        if self.recipe.pooling == "cls":
            pooled = states[:, 0]
        elif self.recipe.pooling == "max":
            pooled = states.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)
        else:
            pooled = torch.einsum("btw,bt->bw", states, mask.to(states.dtype)) / mask.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(pooled, dim=1) if self.recipe.unit else pooled


def read_recipe(folder: Path) -> Recipe:
    """What a directory's modules.json and the files that it names say. Raises UserError for what is not done here."""
    modules = _json(folder, "modules.json")
    if modules is None:
        return Recipe()
    kinds = {str(m.get("type", "")).rpartition(".")[2]: str(m.get("path", "")) for m in modules}
    others = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if others or len(kinds) != len(modules) or "Transformer" not in kinds:
        raise UserError(
            f"{printable(str(folder))}/modules.json: only a Transformer, a Pooling and a Normalize can be opened, "
            f"not {', '.join(others) or 'this chain'}"
        )
    settings = _json(folder, "sentence_bert_config.json") or {}
    limit = settings.get("max_seq_length")
    return Recipe(
        pooling=_pooling(folder, kinds["Pooling"]) if "Pooling" in kinds else "mean",
        unit="Normalize" in kinds,
        context=int(limit) if limit else None,
        lowercase=bool(settings.get("do_lower_case")),
        prefix=_prefix(folder),
    )


def _pooling(folder: Path, path: str) -> str:
    where = f"{path}/config.json"
    config = _json(folder, where) or {}
    flags = [mode for flag, mode in _LEGACY.items() if config.get(flag)]
    given = config.get("pooling_mode", flags or "mean")
    modes = [given] if isinstance(given, str) else list(given)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UserError(
            f"{printable(str(folder))}/{where}: pooling by {' and '.join(map(str, modes))} is not known here; "
            f"known: {', '.join(POOLINGS)}"
        )
    if config.get("include_prompt") is False:
        raise UserError(f"{printable(str(folder))}/{where}: include_prompt = false is not known here")
    return cast(str, modes[0])


def _prefix(folder: Path) -> str:
    config = _json(folder, "config_sentence_transformers.json") or {}
    name = config.get("default_prompt_name")
    return str((config.get("prompts") or {}).get(name, "")) if name else ""


def _json(folder: Path, name: str) -> Any:
    path = folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{printable(str(path))}: cannot be read as JSON: {error}") from None


NAMES = {
    "all-minilm-l6-v2": Embedded(
        lambda: digest(["all-minilm-l6-v2", minilm.MEMBERS]),
        lambda: missing([minilm.WHEEL]),
        minilm.unpack,
        "all-MiniLM-L6-v2",
    )
}


class SentenceEncoderKind(PretrainedKind[SentenceEncoder]):
    """Sentence encoders by name, path, hub id, or as an object that can be saved."""

    kind = "sentence-encoder"
    noun = "sentence encoder"
    objects = (
        "an object that workers can open saved (a SentenceTransformer, or a transformers model and tokenizer)"
    )
    nested = ("*/config.json",)
    names = NAMES

    def check(self, folder: Path, config: dict[str, Any]) -> None:
        names = config.get("architectures") or []
        generates = [name for name in names if name.endswith(("ForCausalLM", "LMHeadModel"))]
        if config.get("is_encoder_decoder") or (generates and not (folder / "modules.json").exists()):
            what = ", ".join(names) or config["model_type"]
            raise UserError(f"{printable(str(folder))}: holds a {what}, not a sentence encoder")
        read_recipe(folder)

    def takes(self, value: Any) -> bool:
        return _is_sentence_transformer(value) or super().takes(value)

    def save(self, value: Any, folder: Path) -> None:
        if _is_sentence_transformer(value):
            value.save_pretrained(str(folder))
        else:
            super().save(value, folder)

    def load(self, folder: Path, shown: str, device: str) -> SentenceEncoder:
        model, tokenizer, absent = load_pretrained(folder, shown, device, auto="AutoModel", noun=self.noun)
        untrained = sorted(
            name for name in absent if not name.startswith("pooler.")
        )  # a head that no row uses
        if untrained:
            raise UserError(
                f"{shown}: {len(untrained)} weights of its architecture are missing, {untrained[0]} first"
            )
        recipe = read_recipe(folder)
        context = recipe.context
        if context is None:
            own = getattr(model.config, "max_position_embeddings", None)
            context = min(tokenizer.model_max_length, own) if own and own > 0 else tokenizer.model_max_length
        return SentenceEncoder(model, tokenizer, recipe, context)


def _is_sentence_transformer(value: Any) -> bool:
    """True for a torch module that encodes texts and can be saved (tokenizers are no modules)."""
    return all(callable(getattr(value, name, None)) for name in ("encode", "modules", "save_pretrained"))


KIND = SentenceEncoderKind()
