"""The page's secret, what it signs, and the keyed hashes by which addresses are looked up.

A token names a row and when it expires, and is bound to its purpose: one that was made to sign in confirms nothing
else. That it works once is recorded with the row (`mail_link.used`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from itsdangerous import BadSignature, Signer

from claimbench.errors import UserError
from claimbench.paths import config_dir

VARIABLE = "CLAIMBENCH_SECRET"
LEAST = 32  # characters of a secret
Purpose = Literal["sign-in", "subscribe", "unsubscribe", "form"]
FOREVER = timedelta(days=3650)  # a letter's unsubscribe link outlives the reader's interest in it


class BadToken(Exception):
    """Not signed here, for another purpose, or too old."""


class Keys:
    """Everything that is derived from the secret. It shows neither the secret nor what is derived from it."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def sign(self, purpose: Purpose, name: str, *, now: datetime, lasts: timedelta = FOREVER) -> str:
        """A token for the row `name`, valid for `lasts`."""
        expires = int((now + lasts).timestamp())
        return self._signer(purpose).sign(f"{name}.{expires}").decode()

    def read(self, purpose: Purpose, token: str, *, now: datetime) -> str:
        """The row's name. Raises BadToken."""
        try:
            name, _, expires = self._signer(purpose).unsign(token).decode().rpartition(".")
        except (BadSignature, UnicodeError):
            raise BadToken from None
        if now.timestamp() >= int(expires):
            raise BadToken
        return name

    def address_hash(self, address: str) -> str:
        """Of the address in lower case: servers that tell a local part's cases apart are not met with."""
        return self.digest("address", address.strip().lower())

    def digest(self, kind: str, text: str) -> str:
        """HMAC-SHA256 in hexadecimal, for lookups that must not be turned back."""
        return hmac.new(self._secret, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()

    def _signer(self, purpose: Purpose) -> Signer:
        return Signer(
            self._secret,
            salt=f"claimbench {purpose}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )


def load_keys(path: Path | None = None) -> Keys:
    """From CLAIMBENCH_SECRET, else from a file that only its owner may read, made where there is none.

    Raises UserError if the secret is short, or the file open to others.
    """
    given = os.environ.get(VARIABLE)
    where = path or config_dir() / "secret"
    secret = given.strip() if given is not None else read_secret(where) or _make(where)
    if len(secret) < LEAST:
        named = VARIABLE if given is not None else str(where)
        raise UserError(f"{named}: a secret has at least {LEAST} characters; openssl rand -hex 32 makes one")
    return Keys(secret)


def read_secret(path: Path) -> str:
    """A secret file's text; empty if there is no such file. Raises UserError unless it is its owner's alone."""
    try:
        status = path.stat()
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise UserError(f"{path}: others may read it; chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _make(path: Path) -> str:
    """Written whole before it gets its name, so that two first runs end with one secret."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; set {VARIABLE}") from None
    return read_secret(path)


def utc_now() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC to the second, as the store keeps it: texts of one length, so that they sort by time."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")
