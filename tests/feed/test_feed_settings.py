"""Settings: defaults without a file, and one line with file, field and fix for what is wrong in one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from claimbench.community.settings import CommunitySettings, MailSettings
from claimbench.errors import UserError
from claimbench.feed.settings import (
    FetchSettings,
    PullSettings,
    ScoreSettings,
    Settings,
    SourceSettings,
    load_settings,
)
from claimbench.paths import config_dir


def test_defaults_ask_arxiv_and_a_list_politely() -> None:
    made = load_settings()
    assert [source.kind for source in made.source] == ["arxiv", "daily"]
    assert made.source[0].seconds_between == 3.0
    assert made.source[0].allowed_hosts == {"export.arxiv.org"}


def test_the_default_place_is_read(tmp_path: Path) -> None:
    config_dir().mkdir(parents=True)
    (config_dir() / "page.toml").write_text('[score]\nvote = 2\n[groups]\nvision = ["cs.CV"]\n')
    made = load_settings()
    assert made.score.vote == 2.0
    assert (made.group_of(("cs.LG", "cs.CV")), made.group_of(("cs.LG",))) == ("vision", "")


ARXIV = '[[source]]\nname = "a"\nkind = "arxiv"\ncategories = ["cs.LG"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fetch]\ntimeot = 3", r'fetch\.timeot: unknown key; did you mean "timeout"\?'),
        ("[score.half_life_days]\nday = 0", r"score\.half_life_days\.day: Input should be greater than 0"),
        ("[score]\nvote = nan", r"score\.vote: "),
        ("[score", r"malformed TOML"),
        ('[[source]]\nname = "a"\nkind = "arxiv"', r'source "a": an arxiv source needs categories'),
        (ARXIV + 'url = "http://arxiv.org/x"', r'source "a": url = .* must begin with https://'),
        (ARXIV + 'url = "https://me:pw@arxiv.org/"', r'source "a": .*password does not belong'),
        (ARXIV + 'pasword = "x"', r'source "a"\.pasword: unknown key'),
        (ARXIV + ARXIV, r'source name "a" stands twice'),
        (ARXIV.replace('"a"', '"submitted"'), r'source name "submitted" is the page\'s own'),
        (ARXIV.replace("cs.LG", "cs LG) OR (all"), r'source "a"\.categories'),
        ('[[source]]\nname = "a"\nkind = "rss"', r'source "a": an rss source needs either url'),
        ('[[source]]\nname = "a"\nkind = "rss"\nurl = "ftp://x"', r"must begin with https://"),
        ("[groups]\na = ['cs.LG']\nb = ['cs.LG']", r'"cs.LG" is in a and in b; keep it in one'),
        ("source = 3", r"source: "),
        ("[[source]]\nkind = 'rss'\npath = 'x'", r'source "1"\.name: is missing; add it'),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "page.toml").write_text(text)
    with pytest.raises(UserError, match=rf"page\.toml: .*{message}") as raised:
        load_settings(tmp_path / "page.toml")
    assert "\n" not in str(raised.value)


def test_http_is_for_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "page.toml").write_text(ARXIV + 'url = "http://127.0.0.1:8000/q"')
    assert load_settings(tmp_path / "page.toml").source[0].allowed_hosts == {"127.0.0.1"}


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config: no file .*other\.toml"):
        load_settings(tmp_path / "other.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8 at byte 0"):
        load_settings(tmp_path / "x.toml")


def test_sources_are_named_or_all() -> None:
    made = load_settings()
    assert [source.name for source in made.find_sources(["arxiv"])] == ["arxiv"]
    with pytest.raises(UserError, match='--source: no source "arxv"; did you mean "arxiv"'):
        made.find_sources(["arxv"])


def test_the_document_names_every_setting_with_its_default(tmp_path: Path) -> None:
    """Except what it marks as the owner's own: sources, groups, and who runs mail and page."""
    text = (Path(__file__).parents[2] / "docs" / "page.md").read_text()
    example = re.search(r"```toml\n(.*?)```", text, re.S)
    assert example
    (tmp_path / "page.toml").write_text(example[1])
    made, default = load_settings(tmp_path / "page.toml"), Settings()
    assert (made.fetch, made.pull, made.score) == (default.fetch, default.pull, default.score)
    assert made.mail == MailSettings(host="smtp.example.org", sender="papers@example.org", user="papers")
    own = {name: getattr(made.community, name) for name in ("url", "actions", "curators")}
    assert made.community == CommunitySettings(**own)
    sections = (SourceSettings, FetchSettings, PullSettings, ScoreSettings, MailSettings, CommunitySettings)
    names = {name for section in sections for name in section.model_fields} | set(Settings.model_fields)
    assert [n for n in sorted(names - {"folder"}) if not re.search(rf"\b{n}\b", example[1])] == []
