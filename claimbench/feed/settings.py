"""The page's settings: `config_dir()/page.toml`, validated, with errors that name file, field and fix.

    [[source]]                      # without any, arXiv and one community list
    name       = "arxiv"
    kind       = "arxiv"            # arxiv, daily (a community list's daily-papers JSON) or rss (RSS or Atom)
    categories = ["cs.LG", "cs.CL"]
    [[source]]
    name = "lab"
    kind = "rss"
    path = "lab.xml"                # or url; relative to the settings file
    [pull]
    overlap_days = 7                # looked at again each time: a paper is announced days after its submission
    [score]
    half_life_days = { day = 0.5, week = 2, month = 8 }
    [groups]
    vision = ["cs.CV"]              # which group of the shelf an arXiv category belongs to
    [mail]                          # the server that sends digests and links, and
    [community]                     # what readers may do: both in `claimbench.community.settings`

Every setting stands in docs/page.md. No secret belongs here: passwords, also those of a database URL, go into the
environment.
"""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator

from claimbench.community.settings import SECTIONS, CommunitySettings, MailSettings
from claimbench.errors import UserError, nearest
from claimbench.paths import config_dir
from claimbench.rule import Name, Strict

Category = Annotated[str, Field(pattern=r"^[a-z-]+(\.[A-Za-z-]+)?$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

DEFAULT_URLS = {
    "arxiv": "https://export.arxiv.org/api/query",
    "daily": "https://huggingface.co/api/daily_papers",
}
EVERY = {"arxiv": 3.0, "daily": 1.0, "rss": 1.0}  # arXiv asks for 3 seconds between two requests
PAGE_SIZES = {"arxiv": 200, "daily": 50, "rss": 1}
SUBMITTED = "submitted"  # the describer of papers that readers submitted
RESERVED = ("shelf", SUBMITTED)


class SourceSettings(Strict):
    """One place that papers come from."""

    name: Name
    kind: Literal["arxiv", "daily", "rss"]
    url: str = ""
    path: str = ""
    categories: list[Category] = Field(default_factory=list)  # arxiv: papers of any of these
    page_size: int | None = Field(default=None, ge=1, le=2000)  # arXiv gives at most 2000 at a time
    every: float | None = Field(default=None, ge=0, le=600, allow_inf_nan=False)  # seconds between requests
    hosts: list[str] = Field(default_factory=list)  # further hosts that a redirect may lead to

    @model_validator(mode="after")
    def _check(self) -> SourceSettings:
        if self.kind == "arxiv" and not self.categories:
            raise ValueError('an arxiv source needs categories = ["cs.LG", ...]')
        if self.kind != "arxiv" and self.categories:
            raise ValueError(f"categories belong to an arxiv source, not to {self.kind}")
        if self.kind == "rss" and bool(self.url) == bool(self.path):
            raise ValueError('an rss source needs either url = "https://..." or path = "feed.xml"')
        if self.kind != "rss" and self.path:
            raise ValueError(f"path belongs to an rss source, not to {self.kind}; use url")
        if self.kind == "rss" and self.page_size is not None:
            raise ValueError("an rss source has no pages; leave page_size out")
        if self.address and (complaint := bad_address(self.address)):
            raise ValueError(f'url = "{self.address}": {complaint}')
        return self

    @property
    def address(self) -> str:
        return self.url or DEFAULT_URLS.get(self.kind, "")

    @property
    def seconds_between(self) -> float:
        return EVERY[self.kind] if self.every is None else self.every

    @property
    def size(self) -> int:
        return self.page_size or PAGE_SIZES[self.kind]

    @property
    def allowed_hosts(self) -> frozenset[str]:
        own = urlsplit(self.address).hostname
        return frozenset(host.lower() for host in [*self.hosts, *([own] if own else [])])


def bad_address(url: str) -> str:
    """Why an address may not be asked; empty if it may."""
    try:
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username or parts.password
    except ValueError:
        return "it is no web address"
    if parts.scheme not in ("http", "https") or not host:
        return "it must begin with https://"
    if user:
        return "a name or password does not belong in the settings"
    if parts.scheme == "http" and not is_loopback(host):
        return "it must begin with https:// (http is for this machine alone)"
    return ""


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class FetchSettings(Strict):
    """Limits of one request, and how often it is tried again."""

    timeout: Positive = 20.0  # seconds without a byte
    total: Positive = 90.0  # seconds for a whole answer
    max_bytes: int = Field(default=32 << 20, ge=1024)
    attempts: int = Field(default=5, ge=1, le=20)
    backoff: Weight = 3.0  # seconds before the second attempt, doubled for each further one
    longest_wait: Weight = 60.0  # a longer Retry-After ends the pull of this source; it resumes later


class PullSettings(Strict):
    """Which days a pull asks for unless the command says."""

    first_days: int = Field(default=7, ge=1, le=3660)  # by a source's first pull
    overlap_days: int = Field(default=7, ge=0, le=365)


class HalfLives(Strict):
    """Days after which what happened counts half, for each length of the trending window."""

    day: Positive = 0.5
    week: Positive = 2.0
    month: Positive = 8.0


class ScoreSettings(Strict):
    """The constants of the trending score; the formula stands in `claimbench.feed.trending`."""

    vote: Weight = 1.0
    upvote: Weight = 1.0
    verdict: Weight = 3.0
    fresh: Weight = 0.5
    half_life_days: HalfLives = HalfLives()


DEFAULT_SOURCES = [
    SourceSettings(
        name="arxiv", kind="arxiv", categories=["cs.LG", "cs.CL", "cs.CV", "cs.AI", "cs.NE", "stat.ML"]
    ),
    SourceSettings(name="daily-papers", kind="daily"),
]


class Settings(Strict):
    """Everything that `page.toml` may say: where papers come from, how they are ranked, what readers may do."""

    source: list[SourceSettings] = DEFAULT_SOURCES
    fetch: FetchSettings = FetchSettings()
    pull: PullSettings = PullSettings()
    score: ScoreSettings = ScoreSettings()
    groups: dict[Name, list[Category]] = Field(default_factory=dict)
    mail: MailSettings | None = None
    community: CommunitySettings = CommunitySettings()
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.mail is None and (self.community.actions or self.community.curators):
            raise ValueError("community: actions and curators need mail; add [mail] with host and sender")
        seen: set[str] = set()
        for source in self.source:
            if source.name in seen:
                raise ValueError(f'source name "{source.name}" stands twice; rename one')
            if source.name in RESERVED:
                raise ValueError(f'source name "{source.name}" is the page\'s own; choose another')
            seen.add(source.name)
        owners: dict[str, str] = {}
        for group, categories in self.groups.items():
            for category in categories:
                if owners.setdefault(category, group) != group:
                    raise ValueError(
                        f'groups: "{category}" is in {owners[category]} and in {group}; keep it in one'
                    )
        return self

    def group_of(self, categories: tuple[str, ...]) -> str:
        """The group of the first category that has one; empty if none has."""
        owners = {category: group for group, members in self.groups.items() for category in members}
        return next((owners[category] for category in categories if category in owners), "")

    def find_sources(self, names: list[str] | None = None) -> list[SourceSettings]:
        known = {source.name: source for source in self.source}
        for name in names or []:
            if name not in known:
                raise UserError(f'--source: no source "{name}"{nearest(name, known)}')
        return [source for source in self.source if not names or source.name in names]


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings; the default place may be missing, a named one may not. Raises UserError in one line."""
    where = path or config_dir() / "page.toml"
    try:
        text = where.read_bytes().decode("utf-8")
    except FileNotFoundError:
        if path is None:
            return Settings(folder=where.parent)
        raise UserError(f"--config: no file {where}") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: malformed TOML: {error}") from None
    try:
        return Settings.model_validate({**data, "folder": where.parent})
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error, data)}") from None


_MODELS: dict[str, type[BaseModel]] = {
    "source": SourceSettings,
    "fetch": FetchSettings,
    "pull": PullSettings,
    "score": ScoreSettings,
    "half_life_days": HalfLives,
    **SECTIONS,
}


def _first(error: ValidationError, data: dict[str, Any]) -> str:
    """The first problem in one line; sources are named rather than numbered."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where: list[str] = []
    model: type[BaseModel] = Settings
    for part in problem["loc"]:
        if isinstance(part, int) and where == ["source"]:
            named = data["source"][part]
            where = [f'source "{named.get("name", part + 1) if isinstance(named, dict) else part + 1}"']
            continue
        where.append(str(part))
        if part != problem["loc"][-1]:
            model = _MODELS.get(str(part), model)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"unknown key{nearest(str(problem['loc'][-1]), model.model_fields)}"
    elif problem["type"] == "missing":
        message = "is missing; add it"
    return f"{'.'.join(where)}: {message}" if where else message
