"""One letter over SMTP (RFC 5321), with a say before its final dot: up to there a server has accepted nothing.

smtplib's `sendmail` sends the text and its end in one go, so the dialogue is led here command by command. Of what a
server says only the codes are kept: its words may name the address.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path

from claimbench.community.settings import MailSettings
from claimbench.errors import UserError

_ENHANCED = re.compile(rb"([245])\.(\d{1,3})\.(\d{1,3})\b")
_LINE_END = re.compile(rb"\r\n|\r|\n")
TOO_LARGE = 552
CLOSING = 421


class NotNow(Exception):
    """The server has not taken this letter; it may later. The message is its status."""


class Never(Exception):
    """The server will not take this letter. about_address: it is the address that it does not take."""

    def __init__(self, status: str, *, about_address: bool) -> None:
        super().__init__(status)
        self.about_address = about_address


class InDoubt(Exception):
    """The final dot may have arrived and no answer has: the letter may have been taken or not."""


class Withdrawn(Exception):
    """The letter was given up before its final dot; the server has nothing of it."""


class Unreachable(Exception):
    """No letter can be sent to this server for now: it is not there, or does not trust us, or we do not trust it."""


class Session:
    """A connection that letters are handed over by, one after the other. Use it as a context manager."""

    def __init__(self, settings: MailSettings, password: str, folder: Path) -> None:
        """folder: what the settings' paths are relative to. Raises Unreachable, or UserError for unusable files."""
        self._settings = settings
        context = _context(settings, folder)
        try:
            self._smtp = self._connect(context)
            self._smtp.ehlo_or_helo_if_needed()
            if settings.security == "starttls":
                self._smtp.starttls(context=context)
                self._smtp.ehlo()
            if settings.user:
                self._smtp.login(settings.user, password)
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise Unreachable(_plainly(error)) from None

    def _connect(self, context: ssl.SSLContext) -> smtplib.SMTP:
        host, port, timeout = self._settings.host, self._settings.at, self._settings.timeout
        if self._settings.security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
        return smtplib.SMTP(host, port, timeout=timeout)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._smtp.quit()
        except (smtplib.SMTPException, OSError):
            self.close()  # the letters' fates are known; a farewell that fails changes none

    def close(self) -> None:
        """Hang up without a word."""
        if hasattr(self, "_smtp"):
            self._smtp.close()

    def send(self, recipient: str, message: bytes, before_end: Callable[[], bool]) -> None:
        """Hand over a letter. before_end is asked when all but the final dot is sent: False withdraws the letter.

        Returns once the server has taken it. Raises NotNow, Never, InDoubt, Withdrawn or Unreachable; whether the next
        letter can go the same way says `usable`.
        """
        try:
            self._open(recipient)
            self._smtp.send(dotted(message))
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise NotNow(_plainly(error)) from None
        try:
            if not before_end():
                raise Withdrawn
        except BaseException:
            self.close()  # a farewell would be read as a line of the letter
            raise
        try:
            self._smtp.send(b".\r\n")
            code, status = _reply(*self._smtp.getreply())
        except (smtplib.SMTPException, OSError):
            code, status = -1, ""
        if not 200 <= code < 600:
            self.close()
            raise InDoubt
        self._judge(code, status, about_address=" 5.1." in status or " 5.2.1" in status)

    def _open(self, recipient: str) -> None:
        """Everything before the text."""
        code, status = _reply(*self._smtp.rset())
        if code != 250:
            self.close()
            raise NotNow(status)
        code, status = _reply(*self._smtp.mail(self._settings.sender))
        if code >= 500 and code != TOO_LARGE:
            raise Unreachable(f"it refuses the sender: {status}")
        self._judge(code, status, about_address=False)
        code, status = _reply(*self._smtp.rcpt(recipient))
        self._judge(code, status, about_address=" 5.7." not in status)
        code, status = _reply(*self._smtp.docmd("DATA"))
        self._judge(code, status, about_address=False)
        if code != 354:
            self.close()
            raise NotNow(status)

    def _judge(self, code: int, status: str, *, about_address: bool) -> None:
        if code == CLOSING or code < 200:
            self.close()
        if code >= 500:
            raise Never(status, about_address=about_address)
        if code >= 400 or code < 200:
            raise NotNow(status)

    @property
    def usable(self) -> bool:
        return self._smtp.sock is not None


def _reply(code: int, words: bytes) -> tuple[int, str]:
    """The code, and with it the enhanced one (RFC 3463) if there is one."""
    enhanced = _ENHANCED.match(words)
    return code, f"{code} {enhanced[0].decode()}" if enhanced else str(code)


def dotted(message: bytes) -> bytes:
    """The text as it travels, without its final dot: CRLF ends every line, a dot that begins one is doubled."""
    lines = _LINE_END.split(message)
    if lines[-1] == b"":
        lines.pop()
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)


def _context(settings: MailSettings, folder: Path) -> ssl.SSLContext:
    where = folder / settings.certificates if settings.certificates else None
    try:
        context = ssl.create_default_context(cafile=where)
    except OSError as error:
        raise UserError(f"mail.certificates: {where}: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _plainly(error: Exception) -> str:
    """A failure in words that hold no address."""
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error or b"")[1]  # type: ignore[arg-type]  # bytes, always
    if isinstance(error, smtplib.SMTPServerDisconnected | TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, smtplib.SMTPException):
        return error.strerror
    return type(error).__name__
