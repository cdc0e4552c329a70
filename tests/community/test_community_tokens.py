"""Secrets and what is signed with them."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from readers import KEYS, NOW

from claimbench.community.settings import CommunitySettings, MailSettings, valid_address
from claimbench.community.tokens import BadToken, Keys, load_keys
from claimbench.errors import UserError
from claimbench.feed.settings import load_settings
from claimbench.paths import config_dir


def test_a_token_is_for_its_purpose_its_time_and_its_secret() -> None:
    token = KEYS.sign("sign-in", "row", now=NOW, lasts=timedelta(hours=2))
    assert KEYS.read("sign-in", token, now=NOW + timedelta(minutes=119)) == "row"
    for keys, purpose, now in [
        (KEYS, "subscribe", NOW),
        (KEYS, "sign-in", NOW + timedelta(hours=2)),
        (Keys("other" * 8), "sign-in", NOW),
    ]:
        with pytest.raises(BadToken):
            keys.read(purpose, token, now=now)  # type: ignore[arg-type]  # purposes


@given(st.text(max_size=80))
def test_whatever_was_not_signed_is_no_token(text: str) -> None:
    with pytest.raises(BadToken):
        KEYS.read("sign-in", text, now=NOW)


def test_a_changed_character_makes_it_no_token() -> None:
    token = KEYS.sign("sign-in", "row", now=NOW)
    for place in range(len(token) - 1):  # the last character of base64 has bits that say nothing
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(BadToken):
            KEYS.read("sign-in", changed, now=NOW)


def test_the_secret_is_made_once_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLAIMBENCH_SECRET", raising=False)
    first = load_keys()
    where = config_dir() / "secret"
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert load_keys().address_hash("a@example.org") == first.address_hash(" A@Example.org ")
    assert where.read_text().strip() not in repr(first)
    where.chmod(0o644)
    with pytest.raises(UserError, match="others may read it; chmod 600"):
        load_keys()
    monkeypatch.setenv("CLAIMBENCH_SECRET", "short")
    with pytest.raises(UserError, match="CLAIMBENCH_SECRET: a secret has at least 32 characters"):
        load_keys()


@pytest.mark.parametrize(
    "address",
    [
        *("", "a", "a@b", "a@b..org", "a b@example.org", "a@example.org\r\nBcc: b@example.org", "a@-b.org"),
        *(
            "<a@example.org>",
            "ä@example.org",
            ".a@example.org",
            f"{'a' * 65}@example.org",
            f"a@{'b.' * 130}org",
        ),
    ],
)
def test_what_is_no_address_is_not_repeated(address: str) -> None:
    with pytest.raises(ValueError, match="write it as name@example.org") as raised:
        valid_address(address)
    assert not address or "@" not in address or address not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[community]\nurl = "https://a.org"\nactions = ["vote"]', "actions and curators need mail"),
        ('[mail]\nhost = "a.org"\nsender = "me"', r"mail\.sender: it is no e-mail address"),
        ('[mail]\nhost = "a.org"\nsender = "a@b.org"\npasword = "x"', r"mail\.pasword: unknown key"),
        ('[mail]\nhost = "a.org"\nsender = "a@b.org"\nsecurity = "none"', "is for a server on this machine"),
        ('[community]\nactions = ["vote"]', "url is missing"),
        ('[community]\nurl = "http://a.org"', "it must begin with https://"),
    ],
)
def test_settings_say_what_is_wrong_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "page.toml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_settings(tmp_path / "page.toml")
    assert "\n" not in str(raised.value)


def test_nothing_is_allowed_unless_the_owner_says_so() -> None:
    settings = load_settings()
    assert settings.mail is None
    assert settings.community == CommunitySettings()
    assert not settings.community.accounts
    assert MailSettings(host="a.org", sender="a@b.org").at == 587
