"""The letters as messages: RFC 5322 text in ASCII, without To, which is added when one is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from claimbench.community.digest import Digest, News, Statements, message_id
from claimbench.community.settings import MailSettings
from claimbench.community.store import LINK_LASTS, Choices, Subscription
from claimbench.community.tokens import Keys
from claimbench.feed.listing import Listing

WIRE = policy.SMTP.clone(max_line_length=None)  # folding would break long links, and encode them
SPANS = {"day": "yesterday", "week": "in the last 7 days", "month": "in the last 30 days"}


@dataclass(frozen=True)
class Line:
    """A paper or a verdict as both forms of a digest show it."""

    title: str
    address: str
    about: str
    state: str = ""


class Letters:
    """Composes. address: how readers reach the page, without a slash at its end."""

    def __init__(
        self, mail: MailSettings, keys: Keys, address: str, statements: Statements | None = None
    ) -> None:
        self._mail, self._keys, self._address = mail, keys, address
        self._statements: Mapping[tuple[str, str], str] = statements or {}

    def digest(self, digest: Digest, subscription: Subscription, now: datetime) -> str:
        """A digest with both forms, and the headers that a mail program unsubscribes by (RFC 2369, RFC 8058)."""
        token = self._keys.sign("unsubscribe", subscription.id, now=now)
        leave = f"{self._address}/unsubscribe?t={token}"
        view = self.view(digest, subscription.choices, leave)
        domain = self._mail.sender.rpartition("@")[2]
        name = f"<{message_id(self._keys, subscription, digest.period)}@{domain}>"
        message = self._begin(f"claimbench: {view['subject']}", name, now)
        message["List-Id"] = f"claimbench digest <digest.{domain}>"
        message["List-Unsubscribe"] = f"<{leave}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(render("mail/digest.txt", view), cte="quoted-printable")
        message.add_alternative(render("mail/digest.html", view), subtype="html", cte="quoted-printable")
        return message.as_bytes(policy=WIRE).decode("ascii")

    def link(self, row: Any, name: str, now: datetime) -> bytes:
        """The letter of a `mail_link` row; name: its Message-ID."""
        token = self._keys.sign(
            row.purpose, row.id, now=datetime.fromisoformat(row.expires) - LINK_LASTS, lasts=LINK_LASTS
        )
        page = {"sign-in": "sign-in/link", "subscribe": "subscribe/link"}[row.purpose]
        view = {
            "purpose": row.purpose,
            "address": self._address,
            "link": f"{self._address}/{page}?t={token}",
            "until": f"{datetime.fromisoformat(row.expires):%H:%M} UTC",
        }
        subject = {"sign-in": "sign in", "subscribe": "confirm your subscription"}[row.purpose]
        message = self._begin(f"claimbench: {subject}", name, now)
        message.set_content(render("mail/link.txt", view), cte="quoted-printable")
        return message.as_bytes(policy=WIRE)

    def view(self, digest: Digest, choices: Choices, leave: str) -> dict[str, Any]:
        """What the templates show."""
        counts = f"{len(digest.verdicts)} new verdict{'s' if len(digest.verdicts) != 1 else ''}"
        papers = f"{len(digest.papers)} trending paper{'s' if len(digest.papers) != 1 else ''}"
        return {
            "subject": ", ".join(([counts] if digest.verdicts else []) + ([papers] if digest.papers else [])),
            "period": digest.period,
            "span": SPANS[digest.window],
            "papers": [
                Line(one_line(p.listing.title), self._paper(p.listing), _about(p.listing, p.votes, p.upvotes))
                for p in digest.papers
            ],
            "verdicts": [self._verdict(news) for news in digest.verdicts],
            "more": digest.more,
            "choices": "; ".join([*choices.groups, *(f'"{search}"' for search in choices.searches)]),
            "every": choices.every,
            "address": self._address,
            "leave": leave,
        }

    def _verdict(self, news: News) -> Line:
        paper = news.listing.shelf_id or ""
        statement = self._statements.get((paper, news.claim), f"{news.listing.title}: {news.claim}")
        path = f"/claim/{quote(paper, safe='')}/{quote(news.claim, safe='')}"
        address = self._address + path if paper else self._paper(news.listing)
        about = f"{one_line(news.listing.title)}, {news.scale}, judged {news.judged[:10]}"
        return Line(one_line(statement), address, about, news.state)

    def _paper(self, listing: Listing) -> str:
        return f"{self._address}/paper/{quote(listing.shelf_id or listing.key, safe=':/')}"

    def _begin(self, subject: str, name: str, now: datetime) -> EmailMessage:
        message = EmailMessage(policy=policy.SMTP)
        message["From"] = formataddr((self._mail.name, self._mail.sender))
        message["Subject"] = subject
        message["Date"] = format_datetime(now.astimezone(UTC))
        message["Message-ID"] = name
        message["Auto-Submitted"] = "auto-generated"
        return message


def _about(listing: Listing, votes: int, upvotes: int) -> str:
    authors = ", ".join(listing.authors[:3]) + (" et al." if len(listing.authors) > 3 else "")
    words = [
        one_line(authors),
        listing.published,
        f"{votes} vote{'s' if votes != 1 else ''}" if votes else "",
        f"{upvotes} upvotes" if upvotes else "",
    ]
    return " · ".join(word for word in words if word)


def one_line(text: str) -> str:
    return " ".join(text.split())


def render(template: str, view: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(view)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("claimbench.community", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
