"""paper.toml: what is accepted, and that every mistake is one line with file, field and fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import PAPER, MakePaper

from claimbench.errors import UserError
from claimbench.paper import Paper, expand, load_paper, select


def load(make_paper: MakePaper, old: str = "", new: str = "") -> Paper:
    assert old in PAPER
    return load_paper(make_paper(toml=PAPER.replace(old, new) if old else PAPER) / "paper.toml")


def test_the_example_is_valid_and_says_what_it_says(make_paper: MakePaper) -> None:
    claim = load(make_paper).claim[0]
    assert claim.arms("quick") == ["method", "baseline"]
    assert claim.points("quick") == [{"n": 1}, {"n": 2}, {"n": 4}]
    assert claim.sizes("quick") == {"scale_of_noise": 0.1, "steps": 1}
    assert claim.measured_by == "larger"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("caveat =", "caveats =", ['claim "larger"', "caveats", "unknown key", '"caveat"']),
        ('metric = "size", against', 'metric = "sise", against', ["rules[0].metric", '"sise"', '"size"']),
        ('against = "baseline"', 'against = "basline"', ['no arm "basline"', '"baseline"']),
        ("at_least = 0.5", "atleast = 0.5", ["atleast", "unknown key", '"at_least"']),
        ('kind = "mean"', 'kind = "time"', ["timing = true"]),
        (", at_least = 0.5", "", ["none has a bound"]),
        ('effect = "difference"', 'effect = "slope"', ["slope takes no against"]),
        ("year = 2024", "", ["year", "is missing"]),
        ('method = "method"', 'method = "baseline"', ["is the method"]),
        ('kind = "mean"', 'kind = "proportion"', ["items"]),
        ("rule = 0, at", "rule = 3, at", ["published.rule"]),
        (
            "[claim.scales.smoke]",
            "[claim.scales.smoke]\nbaselines = ['none']",
            ["scales.smoke.baselines", '"none"'],
        ),
        ("at_least = 0.5", "at = {{ n = 3 }}, at_least = 0.5", ["is no point of the sweep"]),
        ("at_least = 0.5", 'need = "2/4", at_least = 0.5', ['need = "2/4"', "3 cells"]),
        ("at_least = 0.5", "at_least = 0.5, sure = 1", ["sure must not exceed"]),
    ],
)
def test_a_mistake_is_one_line_with_file_field_and_fix(
    make_paper: MakePaper, old: str, new: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load(make_paper, old, new)
    message = str(caught.value)
    assert "\n" not in message
    assert "paper.toml" in message
    for word in words:
        assert word in message


def test_a_slope_needs_three_values(make_paper: MakePaper) -> None:
    slope = '{{ effect = "slope", metric = "size", along = "n", at_most = 1.5 }}'
    rule = '{{ effect = "difference", metric = "size", against = "baseline", at_least = 0.5 }}'
    toml = PAPER.replace(", rule = 0, at = {{ n = 4 }}", "").replace("on_failure = 0.0", "on_failure = 1.0")
    assert (
        load_paper(make_paper(toml=toml.replace(rule, slope)) / "paper.toml").claim[0].rules[0].along == "n"
    )
    toml = toml.replace(rule, slope).replace("n = [1, 2, 4]", "n = [1, 2]")
    with pytest.raises(UserError, match="at least 3 values of n"):
        load_paper(make_paper(toml=toml) / "paper.toml")


def test_a_claim_id_stands_once(make_paper: MakePaper) -> None:
    twice = PAPER + PAPER[PAPER.index("[[claim]]") :]
    with pytest.raises(UserError, match='"larger" stands twice'):
        load_paper(make_paper(toml=twice) / "paper.toml")


def test_malformed_and_undecodable_files(make_paper: MakePaper, tmp_path: Path) -> None:
    folder = make_paper()
    (folder / "paper.toml").write_text("id = ")
    with pytest.raises(UserError, match=r"paper\.toml: malformed TOML: .+"):
        load_paper(folder / "paper.toml")
    (folder / "paper.toml").write_bytes(b"id = '\xff'")
    with pytest.raises(UserError, match="not UTF-8 at byte 6"):
        load_paper(folder / "paper.toml")
    with pytest.raises(UserError, match="cannot be read"):
        load_paper(tmp_path / "nowhere.toml")


def test_the_folder_bears_the_id(make_paper: MakePaper) -> None:
    folder = make_paper("one")
    folder.rename(folder.with_name("two"))
    with pytest.raises(UserError, match='does not match its folder "two"'):
        load_paper(folder.with_name("two") / "paper.toml")


def test_a_sweep_is_crossed_in_file_order() -> None:
    assert expand({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert expand({}) == [{}]


def test_at_selects_points() -> None:
    points = expand({"a": [1, 2], "b": [3, 4]})
    assert select(points, "first") == [{"a": 1, "b": 3}]
    assert select(points, "last") == [{"a": 2, "b": 4}]
    assert select(points, {"a": 2}) == [{"a": 2, "b": 3}, {"a": 2, "b": 4}]
    assert select(points, [{"a": 1, "b": 4}, {"a": 2, "b": 3}]) == [{"a": 1, "b": 4}, {"a": 2, "b": 3}]
