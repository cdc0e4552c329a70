"""What `page.toml` says of mail and of what readers may do; without it the page only reads.

[mail]
host    = "smtp.example.org"
sender  = "papers@example.org"      # in From, and where bounces go
user    = "papers"                  # the password: CLAIMBENCH_SMTP_PASSWORD, or password_file (mode 0600)
[community]
url      = "https://papers.example.org"        # what links in mails begin with
actions  = ["subscribe", "vote", "submit"]
curators = ["editor@example.org"]              # feature, describe and hide papers
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from claimbench.rule import Strict

Action = Literal["subscribe", "vote", "submit"]
LONGEST = 254  # characters of an address, RFC 5321 4.5.3.1.3
_ADDRESS = re.compile(
    r"(?P<local>[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)@"
    r"(?P<domain>([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9])"
)


def valid_address(text: str) -> str:
    """An ASCII address, without blanks around it. Raises ValueError, whose message does not repeat it."""
    found = text.strip()
    match = _ADDRESS.fullmatch(found)
    if match is None or len(found) > LONGEST or len(match["local"]) > 64:
        raise ValueError("it is no e-mail address that letters can be sent to; write it as name@example.org")
    return found


Address = Annotated[str, AfterValidator(valid_address)]


class MailSettings(Strict):
    """The SMTP server that takes the page's letters, and how long it is tried."""

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: Address
    name: str = Field(default="claimbench", pattern=r"^[^\r\n<>\"]{1,60}$")
    user: str = ""
    password_file: str = ""  # relative to the settings file
    certificates: str = ""  # a file of authorities in place of the system's, relative to the settings file
    timeout: float = Field(default=30.0, gt=0, le=300)  # seconds for each answer of the server
    backoff: float = Field(
        default=300.0, gt=0, le=86400
    )  # seconds before the second attempt, doubled for each further
    give_up: float = Field(
        default=48.0, gt=0, le=240
    )  # hours after which a temporary error is a permanent one
    keep_days: int = Field(default=90, ge=15, le=3660)  # that letters are known after they are done with

    @model_validator(mode="after")
    def _check(self) -> MailSettings:
        if self.security == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError('security = "none" is for a server on this machine; use "starttls" or "tls"')
        return self

    @property
    def at(self) -> int:
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.security]


class CommunitySettings(Strict):
    """What readers may do, and how often."""

    url: str = ""
    actions: list[Action] = Field(default_factory=list)
    curators: list[Address] = Field(default_factory=list)
    client_header: str = Field(
        default="", pattern=r"^[a-z-]*$"
    )  # of the proxy before the page: x-forwarded-for
    links_per_address: int = Field(default=3, ge=1, le=100)  # letters an hour
    links_per_client: int = Field(default=10, ge=1, le=1000)  # an hour
    links_at_all: int = Field(default=300, ge=1, le=100_000)  # an hour
    actions_per_person: int = Field(default=60, ge=1, le=10_000)  # votes, submissions, descriptions an hour

    @model_validator(mode="after")
    def _check(self) -> CommunitySettings:
        parts = urlsplit(self.url)
        if (self.actions or self.curators) and not parts.hostname:
            raise ValueError('url is missing; say how readers reach the page: "https://papers.example.org"')
        if self.url and (parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query):
            raise ValueError(f'url = "{self.url}": only scheme and host, as "https://papers.example.org"')
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                f'url = "{self.url}": it must begin with https:// (http is for this machine alone)'
            )
        return self

    @property
    def address(self) -> str:
        return self.url.rstrip("/")

    @property
    def secure(self) -> bool:
        return self.url.startswith("https://")

    @property
    def accounts(self) -> bool:
        """Whether anything here needs a person who is signed in."""
        return bool(self.curators or {"vote", "submit"} & set(self.actions))


SECTIONS: dict[str, Any] = {"mail": MailSettings, "community": CommunitySettings}
