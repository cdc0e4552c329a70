"""A real SMTP server (aiosmtpd) with TLS and a password, which fails where it is told to."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

USER, PASSWORD = "papers", "correct horse"
HANG_UP = "hang up"


@dataclass
class Inbox:
    """What was accepted, and what is answered instead: `fail["RCPT"] = ["450 4.2.0 later"]`, one answer a letter."""

    accepted: list[tuple[str, EmailMessage]] = field(default_factory=list)  # recipient, message
    fail: dict[str, list[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def _answer(self, stage: str, otherwise: str) -> str:
        self.seen[stage] += 1
        waiting = self.fail.get(stage)
        return waiting.pop(0) if waiting else otherwise

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._answer("MAIL", "250 2.1.0 fine")
        if answer.startswith("250"):
            envelope.mail_from = address
        return answer

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._answer("RCPT", "250 2.1.5 fine")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = self._answer("DATA", "250 2.0.0 taken")
        if answer == HANG_UP or answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            self.accepted += [(recipient, message) for recipient in envelope.rcpt_tos]
        if answer == HANG_UP:
            server.transport.abort()
        return answer

    def to(self, recipient: str) -> list[EmailMessage]:
        return [message for to, message in self.accepted if to == recipient]


def text_of(message: EmailMessage, form: str = "plain") -> str:
    body = message.get_body((form,))
    assert body is not None
    return str(body.get_content())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    good = data is not None and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False)


def start(inbox: Inbox, context: ssl.SSLContext) -> Controller:
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=_login,
        auth_required=True,
    )
    controller.start()
    return controller
