"""A file at an http(s) address, fetched whole or not at all, and known by what it holds.

The address only says where to look: a subject's identity is the content's hash. A second look asks the server whether
the content is still that of the first (ETag, Last-Modified) and moves nothing if it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import time
import urllib.request
import zlib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit

from claimbench.errors import UserError
from claimbench.paths import cache_dir, write_atomically
from claimbench.spec import digest
from claimbench.subjects.store import locked, say, sha256_of
from claimbench.subjects.wheels import Unreachable

LIMIT = 2_000_000_000  # bytes of a file
TIME_LIMIT = 600.0  # seconds for all of it
_SILENCE = 30.0  # seconds that a server may say nothing
_REDIRECTS = 5
_CHUNK = 1 << 20
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "claimbench"}
_VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


def is_url(value: str) -> bool:
    """Whether a value is an address ("scheme://..."), of whatever scheme."""
    return "://" in value and "/" not in value.split("://")[0]


def shown_url(url: str) -> str:
    """An address as it may be printed and kept: without a password or the secrets that a query may hold."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rsplit("/", 1)[-1] or urlsplit(url).netloc.rpartition("@")[2]


def fetch_url(url: str, *, limit_bytes: int = LIMIT, time_limit: float = TIME_LIMIT) -> Path:
    """The file at an address, in the cache under its content's hash.

    limit_bytes: of the file, after unpacking where the server packs it. time_limit: seconds for the whole transfer; the
    server may fall silent for 30 s at most. Without network the content of the last time counts, and that is said.
    Raises UserError, in one line, for another scheme, an answer other than the file, and one that is too large, too
    slow or cut short; Unreachable where no server answers.
    """
    _check_scheme(url, url)
    home = cache_dir() / "downloads"
    note = home / f"{digest(url)}.json"
    with locked(note.with_suffix(".lock")):
        known = _known(note)
        headers = _HEADERS | {asked: known[told] for told, asked in _VALIDATORS.items() if known.get(told)}
        ends = time.monotonic() + time_limit
        try:
            with _answer(url, headers, min(time_limit, _SILENCE)) as answer:
                if answer is None:
                    return home / known["sha256"]
                path = _received(url, answer, home, limit_bytes, ends, time_limit)
                told = {name: answer.headers.get(name, "") for name in _VALIDATORS}
        except Unreachable as error:
            if not known:
                raise
            say(f"{error}; the copy fetched before is used")
            return home / known["sha256"]
        write_atomically(note, json.dumps({"sha256": path.name, **told}).encode())
        return path


def _known(note: Path) -> dict[str, str]:
    """What was fetched from this address before, if it is still there and whole."""
    try:
        known = json.loads(note.read_bytes())
        whole = sha256_of(note.parent / known["sha256"]) == known["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known if whole else {}


def _check_scheme(url: str, asked: str) -> None:
    parts = urlsplit(url)
    where = shown_url(asked) + (f" leads to {shown_url(url)}" if url != asked else "")
    if parts.scheme not in ("http", "https"):
        raise UserError(
            f"{where}: {parts.scheme}:// is not fetched; give an http or https address, or a local path"
        )
    if not parts.hostname:
        raise UserError(f"{where}: names no server")
    if parts.username is not None:
        raise UserError(
            f"{where}: a name or password in the address is not sent; fetch it yourself and give its path"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _REDIRECTS
    max_repeats = _REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage | Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_scheme(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # as it came


def _opener() -> urllib.request.OpenerDirector:
    """Of http and https alone: the default one also opens files and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], silence: float) -> Iterator[http.client.HTTPResponse | None]:
    """The server's answer with the file; None for "not modified"."""
    try:
        with _unreachable(url):
            answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=silence)
    except HTTPError as error:
        with error:
            if error.code != http.HTTPStatus.NOT_MODIFIED or len(headers) == len(_HEADERS):
                reason = error.reason.splitlines()[0] if error.reason else ""
                if 300 <= error.code < 400:
                    reason = f"and leads on more than {_REDIRECTS} times, or to other than http and https"
                raise UserError(
                    f"{shown_url(url)}: the server answers {error.code} {reason}; check the address"
                ) from None
        yield None
        return
    with answer:
        yield answer


@contextlib.contextmanager
def _unreachable(url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError:
        raise
    except (URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = str(getattr(error, "reason", "") or error or type(error).__name__).splitlines()[0][:120]
        raise Unreachable(f"{shown_url(url)}: cannot be fetched ({reason})") from None


def _received(
    url: str, answer: http.client.HTTPResponse, home: Path, limit: int, ends: float, time_limit: float
) -> Path:
    """The answer's body, under its hash."""
    packing = answer.headers.get("Content-Encoding", "identity").lower()
    if packing not in ("identity", "gzip", "x-gzip"):
        raise UserError(
            f'{shown_url(url)}: the server sends "{packing}", which is not unpacked here; fetch it yourself'
        )
    if answer.length is not None:
        if answer.length > limit:
            raise UserError(_too_large(url, limit))
        say(f"downloading {shown_url(url)} ({answer.length / 1e6:.1f} MB)")
    summary, size = hashlib.sha256(), 0
    partial = home / f".{os.getpid()}-{digest(url)}.partial"
    try:
        with partial.open("wb") as file:
            for chunk in _unpacked(url, _chunks(url, answer, ends, time_limit), packing != "identity"):
                size += len(chunk)
                if size > limit:
                    raise UserError(_too_large(url, limit))
                summary.update(chunk)
                file.write(chunk)
        return partial.replace(home / summary.hexdigest())
    finally:
        partial.unlink(missing_ok=True)


def _too_large(url: str, limit: int) -> str:
    return f"{shown_url(url)}: more than {limit:,} bytes; fetch it yourself and give its path"


def _chunks(url: str, answer: http.client.HTTPResponse, ends: float, time_limit: float) -> Iterator[bytes]:
    while True:
        if time.monotonic() > ends:
            raise UserError(
                f"{shown_url(url)}: not whole within {time_limit:.0f} s; fetch it yourself and give its path"
            )
        with _unreachable(url):
            chunk = answer.read1(_CHUNK)
        if not chunk:
            break
        yield chunk
    if answer.length:
        raise Unreachable(f"{shown_url(url)}: cut short by {answer.length:,} bytes; try again")


def _unpacked(url: str, chunks: Iterator[bytes], packed: bool) -> Iterator[bytes]:
    """Never more than a chunk at a time is unpacked: a small answer may claim to be terabytes."""
    if not packed:
        yield from chunks
        return
    stream = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            waiting = chunk
            while waiting and not stream.unused_data:
                yield stream.decompress(waiting, _CHUNK)
                waiting = stream.unconsumed_tail
        yield stream.flush(_CHUNK)
    except zlib.error as error:
        raise UserError(f"{shown_url(url)}: what the server sent cannot be unpacked ({error})") from None
    if stream.unused_data:
        raise UserError(
            f"{shown_url(url)}: the server packs it in several parts; fetch it yourself and give its path"
        )
    if not stream.eof:
        raise Unreachable(f"{shown_url(url)}: cut short; try again")
