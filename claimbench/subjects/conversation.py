"""What every chat model is asked and answers, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from claimbench.errors import UserError

Messages = Sequence[Mapping[str, str]]
"""A conversation: `{"role": "system" | "user" | "assistant", "content": text}`, the last one to be answered."""


@dataclass(frozen=True)
class Reply:
    """An answer.

    prompt_tokens, completion_tokens: in the model's own tokens, those of its template and the end of its turn included;
    None where an endpoint does not say. finish_reason: "stop" (the model ended, or a stop text came), "length", or what
    an endpoint says. seconds: of wall clock for this answer; in a batch on this machine, of the batch.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    seconds: float


class Chat(Protocol):
    """A chat model: one embedded, one in a directory, or one behind an endpoint.

    max_tokens: of the answer. temperature: 0 takes the likeliest token each time. seed: of the draws otherwise. stop:
    the answer ends before the first of these texts. Raises UserError for what the model cannot be asked.
    """

    def complete(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Reply:
        """The answer to one conversation."""

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
        """The answers to several, in their order; `concurrency` of them are in the works at once."""


@dataclass(frozen=True)
class Asked:
    """How conversations are to be answered, checked."""

    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens = {self.max_tokens}: at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature = {self.temperature}: at least 0, and finite")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise UserError("stop: texts that are not empty")


def asked(max_tokens: int, temperature: float, seed: int, stop: Sequence[str]) -> Asked:
    return Asked(max_tokens, temperature, seed, (stop,) if isinstance(stop, str) else tuple(stop))


def plain_messages(messages: Messages) -> list[dict[str, str]]:
    """A conversation as JSON has it. Raises UserError for what is none."""
    if isinstance(messages, str | Mapping) or not messages:
        raise UserError('messages: a list such as [{"role": "user", "content": "..."}], not empty')
    return [_plain_message(index, message) for index, message in enumerate(messages)]


def _plain_message(index: int, message: Any) -> dict[str, str]:
    if (
        not isinstance(message, Mapping)
        or set(message) != {"role", "content"}
        or not all(isinstance(value, str) for value in message.values())
    ):
        raise UserError(f'messages[{index}]: wants exactly "role" and "content", both texts')
    return dict(message)


def check_concurrency(concurrency: int) -> None:
    if not 1 <= concurrency <= 256:
        raise UserError(f"concurrency = {concurrency}: from 1 to 256")
