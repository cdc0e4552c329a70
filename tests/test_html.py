"""The page of what was measured: everything is on it, everything is escaped, and it needs nothing from outside."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from toy import CLAIMS, PAPER, MakePaper
from typer.testing import CliRunner

from claimbench import bench, html
from claimbench.cli import app
from claimbench.errors import UserError
from claimbench.ledger import Ledger
from claimbench.report import ReportRow, cell_value, markdown, number, report
from claimbench.shelf import Shelf
from claimbench.summaries import panels, summarise

VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})
HOSTILE = "</h3><script>alert(1)</script><img src=x onerror='alert(2)'> & \"q\""


class Page(HTMLParser):
    """Elements, attributes and words; raises where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes what it did not open"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def tags(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def measure(tmp_path: Path, target: str = "toy", **options: Any) -> list[ReportRow]:
    shelf = Shelf.find([tmp_path / "shelf"])
    store = Ledger(tmp_path / "l.sqlite")
    bench.run(target, shelf=shelf, ledger=store, may_trust=lambda root: True, jobs=2, **options)
    return report(target, ledger=store, shelf=shelf)


@pytest.fixture
def rows(make_paper: MakePaper, tmp_path: Path) -> list[ReportRow]:
    make_paper()
    return measure(tmp_path)


def test_the_page_says_all_there_is_to_say(rows: list[ReportRow]) -> None:
    (row,) = rows
    page = Page(html.render(rows))
    assert row.verdict is not None
    said = [
        row.claim.statement,
        row.claim.caveat,
        row.verdict.state,
        row.verdict.reason,
        row.machine["cpu"],
        row.set.created[:10],
        "5 (1000 to 1004; look 1 of 3)",
        "Varied noise",
        "Fixed nothing else",
        "scale_of_noise=0.1, steps=1",
        "1 abstract",
        "inside our interval" if row.verdict.figures[0].inside else "outside our interval",
        "claimbench run toy/larger --scale quick --device cpu --shelf SHELF",
        *row.verdict.notes,
    ]
    for words in said:
        assert " ".join(words.split()) in page.text
    for cell in row.verdict.rules[0].cells:
        assert cell_value(cell) in page.text
    for cell in summarise(row.claim, row.set.plan, row.judged):
        assert f"{number(cell.middle)} ({number(cell.low)} to {number(cell.high)})" in page.text


def test_each_comparison_and_each_sweep_has_a_plot(rows: list[ReportRow]) -> None:
    page = Page(html.render(rows))
    plots = page.tags("svg")
    assert [(p["class"] or "").split()[1] for p in plots] == ["intervals", "curves"]
    marks = [c for tag in ("circle", "path") for c in page.tags(tag) if c.get("data-value")]
    (row,) = rows
    assert row.verdict is not None
    assert [float(m["data-value"] or "") for m in marks] == [c.estimate for c in row.verdict.rules[0].cells]
    arms = [c["data-arm"] for tag in ("circle", "path") for c in page.tags(tag) if c.get("data-arm")]
    assert sorted(arms) == ["baseline"] * 3 + ["method"] * 3
    identities = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identities) == len(set(identities))


def test_the_page_needs_nothing_from_outside(rows: list[ReportRow]) -> None:
    text = html.render(rows)
    page = Page(text)
    for tag in ("script", "link", "img", "iframe", "object"):
        assert page.tags(tag) == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    targets = [a["href"] or "" for a in page.tags("a")]
    anchors = {a.get("id") for _, a in page.elements}
    assert targets
    assert all(t.startswith("https://") or t[1:] in anchors for t in targets)
    assert "default-src 'none'" in text


def test_hostile_words_stay_words(make_paper: MakePaper, tmp_path: Path) -> None:
    quoted = HOSTILE.replace('"', '\\"')
    toml = PAPER.replace('"The method is larger than the baseline."', f'"{quoted}"')
    toml = toml.replace('"Made for a test."', f'"{quoted}"').replace('["noise"]', f'["{quoted}"]')
    toml = toml.replace('where = "abstract"', f'where = "{quoted}"')
    toml = toml.replace('summary = "', f'code = "javascript:alert(3)"\nsummary = "{quoted}')
    toml = toml.replace("resolution = 1e-6", f'resolution = 1e-6, label = "{quoted}", unit = "{quoted}"')
    make_paper(toml=toml)
    found = measure(tmp_path)
    text = html.render(found)
    page = Page(text)
    assert page.tags("script") == page.tags("img") == []
    assert "<script" not in text
    assert HOSTILE in page.text
    assert not [a for a in page.tags("a") if "javascript" in (a["href"] or "")]
    assert "<" not in markdown(found)


def test_a_stale_set_and_a_scale_without_verdict_are_said(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    measure(tmp_path, scale="smoke")
    make_paper(claims=CLAIMS.replace("random.Random(", "random.Random(str() + "))
    shelf = Shelf.find([tmp_path / "shelf"])
    found = report("toy", ledger=Ledger(tmp_path / "l.sqlite"), shelf=shelf)
    page = Page(html.render(found))
    assert "no verdict" in page.text
    assert "Stale: changed since it was measured" in page.text
    assert "claimbench recheck toy" in page.text


def test_failures_are_counted_where_they_happened(make_paper: MakePaper, tmp_path: Path) -> None:
    raising = (
        'if trial.arm == "baseline" and trial.point["n"] == 2:\n        raise RuntimeError("no")\n    noise ='
    )
    make_paper(claims=CLAIMS.replace("noise =", raising))
    found = measure(tmp_path)
    page = Page(html.render(found))
    assert "0, 5 failed" in page.text
    cells = summarise(found[0].claim, found[0].set.plan, found[0].judged)
    assert [c.failed for c in cells] == [0, 0, 0, 0, 5, 0]


def test_rules_that_have_changed_since_draw_no_wrong_bound(rows: list[ReportRow]) -> None:
    (row,) = rows
    changed = row.claim.model_copy(
        update={"rules": [row.claim.rules[0].model_copy(update={"at_least": 0.7})]}
    )
    text = html.render([replace(row, claim=changed)])
    assert "the claim's rules have been changed since" in Page(text).text
    assert 'class="bound"' not in text
    assert 'class="bound"' in html.render(rows)


def test_the_command_of_an_own_setting_makes_the_same_set(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    (row,) = measure(tmp_path, sizes={"scale_of_noise": "0.2"}, at={"n": ["2", "8"]}, scale="quick")
    assert row.set.own
    words = shlex.split(row.command)
    assert "scale_of_noise=0.2" in words
    assert "n=2,8" in words
    words[words.index("SHELF")] = str(tmp_path / "shelf")
    again = CliRunner().invoke(app, [*words[1:], "--ledger", str(tmp_path / "l.sqlite"), "--json"])
    assert again.exit_code == 0, again.output
    assert f'"set_uid": "{row.set.uid}"' in again.stdout
    assert '"ran": 0' in again.stdout


def test_the_command_line_writes_the_page(make_paper: MakePaper, tmp_path: Path) -> None:
    make_paper()
    measure(tmp_path, scale="smoke")
    where = ["--ledger", str(tmp_path / "l.sqlite"), "--shelf", str(tmp_path / "shelf")]
    target = tmp_path / "pages" / "toy.html"
    done = CliRunner().invoke(app, ["report", "toy", *where, "--html", str(target)])
    assert done.exit_code == 0, done.output
    assert Page(target.read_text(encoding="utf-8")).tags("svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--html: .* cannot be written"):
        html.write([], tmp_path / "file" / "page.html")


def test_an_empty_ledger_makes_a_page_that_says_so() -> None:
    assert "Nothing was measured yet" in Page(html.render([])).text


def test_markdown_states_intervals_against_bounds_and_every_arm(rows: list[ReportRow]) -> None:
    text = markdown(rows)
    (row,) = rows
    assert row.verdict is not None
    for cell in row.verdict.rules[0].cells:
        line = (
            f"| against baseline at n={cell.point['n']} | {cell_value(cell)} | at least 0.5 | {cell.state} |"
        )
        assert line in text
    for cell in summarise(row.claim, row.set.plan, row.judged):
        assert f"{number(cell.middle)} ({number(cell.low)} to {number(cell.high)})" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "    claimbench run toy/larger" in text


def test_panels_show_every_point_and_vary_one_thing(make_paper: MakePaper) -> None:
    from claimbench.paper import load_paper

    claim = load_paper(make_paper() / "paper.toml").claim[0]
    crossed = [{"n": n, "mode": mode} for n in (1, 2, 4) for mode in ("a", "b")]
    shown = panels(claim, crossed)
    assert [(p.along, p.rest) for p in shown] == [("n", {"mode": "a"}), ("n", {"mode": "b"})]
    star = [{"n": n, "length": 4096} for n in (32, 64, 128)] + [{"n": 64, "length": m} for m in (1024, 2048)]
    shown = panels(claim, star)
    assert {(p.along, len(p.points)) for p in shown} == {("n", 3), ("length", 3)}
    lonely = [{"n": 1, "mode": "a"}, {"n": 2, "mode": "b"}]
    for points in (crossed, star, lonely, [{"n": 1}]):
        found = panels(claim, points)
        assert all(any(point in p.points for p in found) for point in points)
        for panel in found:
            assert all({k: v for k, v in p.items() if k != panel.along} == panel.rest for p in panel.points)
    assert panels(claim, [{}]) == []
