"""Asking a configured source over HTTP, politely and within limits.

Only https (http on this machine's own addresses), only the source's host and those its settings add, also after a
redirect; one request at a time with a pause between; an answer is bounded in time and in bytes after decompression;
429, 5xx and broken connections are tried again with growing pauses, or when Retry-After says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx2

from claimbench.feed.settings import FetchSettings, SourceSettings, bad_address

REDIRECTS = 5
AGAIN = {408, 425, 429, 500, 502, 503, 504}


class SourceError(Exception):
    """A source did not answer as it should. One line; the pull of this source ends and can be resumed."""


class Rejected(SourceError):
    """The source says that it cannot read the question (HTTP 400). body: what it says."""

    def __init__(self, message: str, body: bytes) -> None:
        super().__init__(message)
        self.body = body


class Fetcher:
    """`with Fetcher(source, limits) as fetcher: fetcher.get(url)`. Retrying and pausing happen inside."""

    def __init__(
        self,
        source: SourceSettings,
        limits: FetchSettings,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._hosts = source.allowed_hosts
        self._every = source.seconds_between
        self._limits = limits
        self._sleep = sleep
        self._last = -float("inf")
        self._wait: float | None = None  # seconds that the last answer's Retry-After asked for
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(limits.timeout),
            follow_redirects=False,
            headers={"User-Agent": f"claimbench/{version('claimbench')}", "Accept-Encoding": "gzip"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str, accept: Callable[[bytes], str] | None = None) -> bytes:
        """The body of an answer.

        accept: why a body is not yet an answer (a truncated document, a page that is empty for no reason), which is
        tried again like a failed request; empty if it is one. Raises SourceError, of which Rejected is one.
        """
        reason = ""
        for attempt in range(self._limits.attempts):
            if attempt:
                self._pause(reason, attempt)
            self._wait = None
            try:
                body = self._follow(url)
            except _Again as again:
                reason = str(again)
                continue
            reason = accept(body) if accept is not None else ""
            if not reason:
                return body
        raise SourceError(f"{_place(url)}: {reason}, {self._limits.attempts} times; pull again later")

    def _pause(self, reason: str, attempt: int) -> None:
        longest = self._limits.longest_wait
        if self._wait is not None and self._wait > longest:
            raise SourceError(
                f"{reason}; it asks to wait {self._wait:.0f} s, longer than longest_wait = {longest:g}"
            )
        backoff = min(self._limits.backoff * 2 ** (attempt - 1), longest)
        self._sleep(max(backoff, self._wait or 0.0))

    def _follow(self, url: str) -> bytes:
        for _ in range(REDIRECTS + 1):
            complaint = bad_address(url)
            if complaint:
                raise SourceError(f"{_place(url)}: {complaint}")
            if (urlsplit(url).hostname or "").lower() not in self._hosts:
                raise SourceError(
                    f"{_place(url)}: not an allowed host; add it to the source's hosts if it should be"
                )
            location, body = self._once(url)
            if location is None:
                return body
            url = urljoin(url, location)
        raise SourceError(f"{_place(url)}: more than {REDIRECTS} redirects")

    def _once(self, url: str) -> tuple[str | None, bytes]:
        """One request: where it redirects to, or the body."""
        self._sleep(max(0.0, self._last + self._every - time.monotonic()))
        end = time.monotonic() + self._limits.total
        try:
            with self._client.stream("GET", url) as response:
                if response.has_redirect_location:
                    return response.headers["location"], b""
                if response.status_code in AGAIN:
                    self._wait = _retry_after(response.headers.get("retry-after"))
                    raise _Again(f"HTTP {response.status_code}")
                if response.status_code == 400:
                    raise Rejected(f"{_place(url)}: HTTP 400", self._read(url, response, end))
                if response.status_code != 200:
                    raise SourceError(f"{_place(url)}: HTTP {response.status_code}")
                return None, self._read(url, response, end)
        except httpx2.TransportError as error:
            raise _Again(f"{type(error).__name__}: {error}".rstrip(": ")) from None
        except httpx2.DecodingError as error:
            raise _Again(f"a garbled answer: {error}") from None
        except httpx2.InvalidURL as error:
            raise SourceError(f"{_place(url)}: {error}") from None
        finally:
            self._last = time.monotonic()

    def _read(self, url: str, response: httpx2.Response, end: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes(1 << 16):
            size += len(part)
            if size > self._limits.max_bytes:
                raise SourceError(f"{_place(url)}: more than max_bytes = {self._limits.max_bytes}")
            if time.monotonic() > end:
                raise _Again(f"not finished within {self._limits.total:g} s")
            parts.append(part)
        return b"".join(parts)


class _Again(Exception):
    """Worth another attempt."""


def _place(url: str) -> str:
    """An address for a message: without its query."""
    return url.split("?", 1)[0].split("#", 1)[0]


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number or an HTTP date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
