"""An OpenAI-compatible chat endpoint: requests with time-outs, retries and bounds, and errors that hold no secrets.

The key comes from CLAIMBENCH_CHAT_KEY or else OPENAI_API_KEY when a request is made. It goes to https addresses and to
this machine alone, and is kept nowhere. Errors name the host, never the path.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from claimbench.errors import UserError
from claimbench.spec import canonical
from claimbench.subjects.conversation import (
    Asked,
    Messages,
    Reply,
    asked,
    check_concurrency,
    plain_messages,
)
from claimbench.subjects.wheels import Unreachable

if TYPE_CHECKING:
    import httpx2

KEYS = ("CLAIMBENCH_CHAT_KEY", "OPENAI_API_KEY")
_AGAIN = frozenset({408, 409, 429, *range(500, 600)})
_EXCERPT = 200  # characters of an endpoint's own words that an error repeats


@dataclass(frozen=True)
class Address:
    """Where an endpoint is and which of its models is meant."""

    base: str  # such as https://host/v1
    model: str

    @property
    def host(self) -> str:
        """Host and port: what may be shown."""
        return urlsplit(self.base).netloc

    @property
    def here(self) -> bool:
        return urlsplit(self.base).hostname in ("localhost", "127.0.0.1", "::1")

    @property
    def takes_keys(self) -> bool:
        return self.here or self.base.startswith("https:")


def parse_address(value: str) -> Address:
    """`https://host/v1#model-name`. Raises UserError, which repeats nothing of the address but its host."""
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UserError("chat endpoint: not an address; write https://host/v1#model-name") from None
    if parts.scheme not in ("http", "https") or not host or not re.fullmatch(r"[\w.:%-]+", host):
        raise UserError("chat endpoint: not an address; write https://host/v1#model-name")
    if "@" in parts.netloc:
        raise UserError(
            f"chat endpoint at {host}: leave user and password out of the address; put the key into {KEYS[0]}"
        )
    if parts.query:
        raise UserError(
            f"chat endpoint at {host}: leave out what follows the ?; a key belongs into {KEYS[0]}"
        )
    if not parts.fragment:
        raise UserError(
            f"chat endpoint at {host}: name the model behind a #, as in https://host/v1#model-name"
        )
    name = f"[{host}]" if ":" in host else host
    netloc = name if port is None else f"{name}:{port}"
    return Address(f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}", parts.fragment)


@dataclass(frozen=True)
class Bounds:
    """What a request may take. Times are seconds."""

    connect: float = 10.0
    read: float = 120.0  # between two pieces of an answer
    total: float = 600.0  # of one request
    size: int = 8_000_000  # bytes of an answer
    retries: int = 5
    backoff: float = 0.5  # before the first retry; twice as much before each further one
    longest_wait: float = 60.0  # before a retry; an endpoint that asks for more is given up


class _Passing(Exception):
    """What may go away by itself. `wait`: seconds that the endpoint asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class Endpoint:
    """A chat model behind an address. `claimbench.subjects.conversation.Chat` says what its methods take.

    Its seed and temperature are passed on; whether they are heeded is the endpoint's affair. The seconds of a reply are
    those of the request that was answered, without the waits before it. Threads may share it.
    """

    address: Address
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise UserError(f"a chat endpoint needs {error.name}: pip install httpx2") from None
        limits = self.bounds
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(limits.read, connect=limits.connect, pool=None),
            limits=httpx2.Limits(max_connections=None),
            follow_redirects=False,
            trust_env=not self.address.here,  # a proxy elsewhere does not reach this machine
        )
        self._jitter = random.Random()  # of its own: a trial's draws are not touched
        self._limit = "max_tokens"  # what the endpoint calls the bound of an answer

    def close(self) -> None:
        self._client.close()

    def complete(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Reply:
        return self._ask(plain_messages(messages), asked(max_tokens, temperature, seed, stop), Event())

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
        given_up = Event()
        with ThreadPoolExecutor(max_workers=concurrency) as pool:
            futures = [pool.submit(self._ask, messages, settings, given_up) for messages in plain]
            try:
                return [future.result() for future in futures]
            except BaseException:
                given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def check(self) -> None:
        """Ask for one token, so that a wrong key, model or address is found before any trial. Raises UserError."""
        self.complete([{"role": "user", "content": "Hello"}], max_tokens=1)

    def _ask(self, messages: list[dict[str, str]], settings: Asked, given_up: Event) -> Reply:
        """One answer, after as many attempts as the bounds allow; none further once `given_up` is set."""
        for attempt in range(self.bounds.retries + 1):
            try:
                started = time.monotonic()
                answer = self._post(messages, settings)
                return self._reply(answer, time.monotonic() - started)
            except _Passing as passing:
                wait = self._wait(attempt, passing.wait)
                last = attempt == self.bounds.retries or wait > self.bounds.longest_wait
                if last or given_up.wait(wait):
                    asks = (
                        f" and asks to wait {passing.wait:.0f} s"
                        if passing.wait > self.bounds.longest_wait
                        else ""
                    )
                    raise Unreachable(
                        f"chat endpoint at {self.address.host}: {passing}{asks} (tried {attempt + 1} times); try later"
                    ) from None
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, asked_for: float) -> float:
        """Exponential back-off with jitter, so that many do not come back at once; longer if the endpoint says so."""
        own = min(self.bounds.backoff * 2.0**attempt, self.bounds.longest_wait)
        return max(own * self._jitter.uniform(0.5, 1.0), asked_for)

    def _post(self, messages: list[dict[str, str]], settings: Asked) -> Any:
        import httpx2

        payload: dict[str, Any] = {"model": self.address.model, "messages": messages}
        limit = self._limit
        payload |= {limit: settings.max_tokens, "temperature": settings.temperature}
        payload |= {"seed": settings.seed} | ({"stop": list(settings.stop)} if settings.stop else {})
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            with self._client.stream(
                "POST",
                f"{self.address.base}/chat/completions",
                content=canonical(payload).encode(),
                headers=headers,
            ) as response:
                content = self._content(response)
        except httpx2.InvalidURL:
            raise UserError(
                f"chat endpoint at {self.address.host}: not an address that can be reached"
            ) from None
        except httpx2.TimeoutException as error:
            raise _Passing(f"no answer in time ({type(error).__name__})") from None
        except httpx2.TransportError as error:
            raise _Passing(self._safe(f"cannot be reached: {str(error) or type(error).__name__}")) from None
        if response.status_code == 200:
            return self._parsed(content)
        said = self._said(content)
        if response.status_code == 400 and limit == "max_tokens" and "max_completion_tokens" in said:
            self._limit = "max_completion_tokens"  # newer models know no other name
            return self._post(messages, settings)
        raise self._refusal(response.status_code, response.headers, said)

    def _content(self, response: httpx2.Response) -> bytes:
        """The body, as it comes: it is neither unpacked nor read beyond its bound."""
        deadline = time.monotonic() + self.bounds.total
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > self.bounds.size:
                raise UserError(
                    f"chat endpoint at {self.address.host}: an answer of more than {self.bounds.size:,} bytes; "
                    "lower max_tokens, or is this a chat endpoint?"
                )
            if time.monotonic() > deadline:
                raise _Passing(f"no whole answer within {self.bounds.total:.0f} s")
        return bytes(content)

    def _parsed(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self._foreign("its answer is not JSON") from None

    def _reply(self, answer: Any, seconds: float) -> Reply:
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            usage = answer.get("usage") or {}
            counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._foreign("its answer holds no choices[0].message.content") from None
        if not isinstance(text, str | None) or not all(isinstance(count, int | None) for count in counts):
            raise self._foreign("its answer's fields have other types")
        return Reply(text or "", counts[0], counts[1], str(choice.get("finish_reason") or ""), seconds)

    def _foreign(self, what: str) -> UserError:
        return UserError(
            f"chat endpoint at {self.address.host}: {what}; is {self.address.model} behind an OpenAI-compatible API?"
        )

    def _refusal(self, status: int, headers: httpx2.Headers, said: str) -> Exception:
        where, model = f"chat endpoint at {self.address.host}", self.address.model
        if status in _AGAIN:
            return _Passing(
                f"answers {status}" + (f" ({said})" if said else ""),
                _retry_after(headers.get("retry-after", "")),
            )
        if status in (401, 403):
            if not self._key():
                why = (
                    f"wants a key; put it into {KEYS[0]}"
                    if self.address.takes_keys
                    else "wants a key, which goes to https addresses only"
                )
            else:
                why = f"refuses the key; check {KEYS[0]}"
            return UserError(f"{where}: {why} ({status})")
        if status == 404:
            return UserError(f'{where}: no model "{model}" there, or no chat API at this path (404)')
        if 300 <= status < 400:
            target = urlsplit(headers.get("location", "")).hostname or self.address.host
            return UserError(f"{where}: sends elsewhere ({status}, to {target}); give the address itself")
        return UserError(f"{where}: refuses the request ({status}){': ' + said if said else ''}")

    def _said(self, content: bytes) -> str:
        """An endpoint's own words about an error, on one line."""
        try:
            answer = json.loads(content)
            error = answer.get("error", answer) if isinstance(answer, dict) else answer
            message = error.get("message", "") if isinstance(error, dict) else error
        except (ValueError, RecursionError):
            return ""
        return self._safe(" ".join(str(message).split()))[:_EXCERPT]

    def _safe(self, text: str) -> str:
        """A text without the key and the address's path, which some servers and libraries repeat."""
        for secret in (self._key(), self.address.base, urlsplit(self.address.base).path.strip("/")):
            if len(secret) > 3:
                text = text.replace(secret, "***")
        return text

    def _key(self) -> str:
        if not self.address.takes_keys:
            return ""
        name = next((name for name in KEYS if os.environ.get(name, "").strip()), "")
        key = os.environ.get(name, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{name}: holds characters that no key has; set it again")
        return key


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, section 10.2.3); 0 if it says nothing that can be read."""
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max((aware - datetime.now(UTC)).total_seconds(), 0.0)
