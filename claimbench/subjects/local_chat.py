"""A causal LM on this machine as a chat model: its chat template, and generation in batches that repeats."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from claimbench.errors import UserError
from claimbench.spec import digest
from claimbench.subjects.causal_lm import CausalLM
from claimbench.subjects.conversation import (
    Asked,
    Messages,
    Reply,
    asked,
    check_concurrency,
    plain_messages,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

_DATE = (
    "26 Jul 2024"  # for templates that write today's date into the prompt: answers must not change overnight
)


@dataclass(frozen=True)
class LocalChat:
    """A causal LM that has a chat template. `claimbench.subjects.conversation.Chat` says what its methods take.

    An answer depends on the conversation, the seed and the settings alone, never on what else is in its batch, up to
    choices between tokens that are nearer to each other than float32's rounding.
    """

    lm: CausalLM
    ends: tuple[int, ...]  # the tokens that end a turn
    padding: int  # any token serves: it is masked before a prompt, and cut off behind an answer

    def complete(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Reply:
        return self._batch([plain_messages(messages)], asked(max_tokens, temperature, seed, stop))[0]

    def complete_many(
        self,
        conversations: Sequence[Messages],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        concurrency: int = 8,
    ) -> list[Reply]:
        check_concurrency(concurrency)
        settings = asked(max_tokens, temperature, seed, stop)
        plain = [plain_messages(messages) for messages in conversations]
        return [
            reply
            for start in range(0, len(plain), concurrency)
            for reply in self._batch(plain[start : start + concurrency], settings)
        ]

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, up to where the answer begins."""
        from jinja2.exceptions import TemplateError

        try:
            text = self.lm.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, date_string=_DATE
            )
        except TemplateError as error:  # a template may refuse a role, or an order of roles
            raise UserError(f"messages: the model's chat template refuses them: {error}") from None
        return self.lm.encode(str(text)).tolist()

    def _batch(self, conversations: list[list[dict[str, str]]], settings: Asked) -> list[Reply]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        started = time.monotonic()
        prompts = [self.prompt(messages) for messages in conversations]
        longest = max(map(len, prompts))
        if longest + settings.max_tokens > self.lm.context:
            raise UserError(
                f"a conversation of {longest} tokens and an answer of {settings.max_tokens} exceed the model's "
                f"context of {self.lm.context}; shorten it or lower max_tokens"
            )
        ids, mask = self._left_padded(prompts, longest)
        draws = [_Draws(conversations, settings, ids.device)] if settings.temperature > 0 else []
        stops = [_Stops(self.lm.tokenizer, settings.stop, longest)] if settings.stop else []
        with torch.inference_mode():
            generated = self.lm.model.generate(  # type: ignore[operator]  # a mixin's, typed as of any module
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=settings.max_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList(draws),
                stopping_criteria=StoppingCriteriaList(stops),
            )[:, longest:].tolist()
        seconds = time.monotonic() - started
        return [
            self._reply(len(prompt), row, settings, seconds)
            for prompt, row in zip(prompts, generated, strict=True)
        ]

    def _reply(self, prompt_tokens: int, row: list[int], settings: Asked, seconds: float) -> Reply:
        """A row of generated ids, cut where its turn ends (what follows fills the batch) or a stop text begins."""
        end = next((index for index, token in enumerate(row) if token in self.ends), None)
        answer = row if end is None else row[:end]
        used = len(answer) + (end is not None)
        text, stopped = _cut(_decoded(self.lm.tokenizer, answer), settings.stop)
        if stopped:
            used = _tokens_until_stop(self.lm.tokenizer, answer, settings.stop)
        reason = "stop" if stopped or end is not None else "length"
        return Reply(text, prompt_tokens, used, reason, seconds)

    def _left_padded(self, prompts: list[list[int]], longest: int) -> tuple[Tensor, Tensor]:
        """(conversations, longest) token ids that end together, and the mask of what is no padding."""
        import torch

        device = self.lm.model.device
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        ids = torch.tensor(
            [[self.padding] * (longest - len(prompt)) + prompt for prompt in prompts], device=device
        )
        return ids, (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()


def local_chat(lm: CausalLM) -> LocalChat:
    """A chat model out of a language model that it has for itself.

    Penalties and filters that the model's directory asks for are dropped: greedy means greedy.
    """
    from transformers import GenerationConfig

    configured = lm.model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    ends = sorted({token for token in [*listed, lm.tokenizer.eos_token_id] if token is not None})
    padding = lm.tokenizer.pad_token_id
    if padding is None:
        padding = ends[0] if ends else 0
    lm.model.generation_config = GenerationConfig(eos_token_id=ends or None, pad_token_id=padding)
    return LocalChat(lm, tuple(ends), int(padding))


class _Draws:
    """Samples by the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030, section 2): the largest of
    logits / temperature + Gumbel noise has the softmax's distribution. Each conversation has noise of its own, so that
    its answer does not depend on its batch."""

    def __init__(self, conversations: list[list[dict[str, str]]], settings: Asked, device: Any) -> None:
        import torch

        self.temperature, self.device = settings.temperature, device
        seeds = [int(digest([settings.seed, messages])[:15], 16) for messages in conversations]
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: (conversations, vocabulary) logits of the next token."""
        import torch

        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=g, dtype=torch.float64) for g in self.generators]
        )
        noise = -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float64).tiny)))
        return scores.double() / self.temperature + noise.to(self.device)


class _Stops:
    """True for the rows whose last tokens hold a stop text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...], start: int) -> None:
        self.tokenizer, self.stop, self.start = tokenizer, stop, start
        self.tail = max(len(text.encode()) for text in stop) + 4  # a token holds at least a byte

    def __call__(self, input_ids: Tensor, scores: Any, **others: Any) -> Tensor:
        import torch

        tails = input_ids[:, max(self.start, input_ids.shape[1] - self.tail) :].tolist()
        texts = self.tokenizer.batch_decode(
            tails, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        found = [any(stop in text for stop in self.stop) for text in texts]
        return torch.tensor(found, device=input_ids.device)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _cut(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """A text up to its first stop text, and whether there was one."""
    starts = [text.find(wanted) for wanted in stop if wanted in text]
    return (text[: min(starts)], True) if starts else (text, False)


def _tokens_until_stop(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...]) -> int:
    """The tokens that it took until a stop text was whole: the batch went on for others."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        found = _cut(_decoded(tokenizer, ids[:middle]), stop)[1]
        low, high = (low, middle) if found else (middle + 1, high)
    return low
