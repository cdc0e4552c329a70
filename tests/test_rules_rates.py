"""The published error rates: the simulation decides as `judge` does, and a short one keeps the promise."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from claimbench.paper import Claim
from claimbench.rules import Judged, judge
from claimbench.rules.intervals import Bounds
from claimbench.rules.levels import ALPHA

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("verdict_rates", ROOT / "benchmarks" / "verdict_rates.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["verdict_rates"] = module
    spec.loader.exec_module(module)
    return module


def claim_of(bench, seeds, effect, layout, bounds, log):
    """The claim whose sets the simulation draws, in the words of paper.toml."""
    metric = {"kind": seeds.kind, "resolution": seeds.resolution}
    if seeds.items:
        metric["items"] = seeds.items
    rule = {"effect": effect, "metric": "m"}
    for name in ("at_least", "at_most", "sure"):
        bound = getattr(bounds, name)
        if bound is not None:
            rule[name] = float(np.exp(bound)) if log and effect == "ratio" else bound
    cells = layout.mean or layout.cells
    sweep = {"cell": list(range(cells))}
    if effect == "slope":
        sweep["x"] = list(bench.SLOPE_AT)
        rule["along"] = "x"
    baselines = ["b0", "b1"][: layout.baselines] if effect in ("difference", "ratio") else []
    if baselines:
        rule["against"] = baselines
    rule |= {"at": "mean"} if layout.mean else {"need": f"{layout.need}/{layout.cells}"}
    return Claim.model_validate(
        {
            "id": "c",
            "statement": "s",
            "method": "ours",
            "baselines": baselines,
            "metrics": {"m": metric},
            "sweep": sweep,
            "varies": ["seed"],
            "rules": [rule],
            "caveat": "none",
            "scales": {"quick": {}},
        }
    )


def test_the_simulation_decides_as_judge_does(bench):
    """Every distribution, effect and layout, over all looks: the same states from the same numbers, each often."""
    seen = {"holds": 0, "fails": 0, "undecided": 0}
    rng = np.random.default_rng(5)
    for index, seeds in enumerate(bench.DISTRIBUTIONS):
        looks = (5, 8, 12) if seeds.kind in bench.STUDENT else (6, 9, 12)
        for effect in bench.EFFECTS:
            values, truth = bench.draw_values(seeds, effect, 2, rng)
            layouts = [layout for layout in bench.LAYOUTS if layout.possible_for(effect)]
            for offset, layout in enumerate(layouts):
                look = (index + offset) % 3
                drawn = bench.Drawn(seeds, effect, looks, values, layout.mean)
                shift = (offset % 3 - 1) * 2 * float(drawn.effects[..., 0].std())
                lower = truth + shift
                bounds = Bounds(
                    lower,
                    lower + 20 if layout.both and effect != "ratio" else None,
                    lower - 0.01 if layout.sure else None,
                )
                holds, fails = bench.verdicts(*bench.decide(drawn, layout, look, bounds), layout.need)
                claim = claim_of(bench, seeds, effect, layout, bounds, drawn.log)
                for s in range(2):
                    verdict = judge(claim, "quick", trials_of(claim, values, s, looks[look]))
                    wanted = "holds" if holds[s] else "fails" if fails[s] else "undecided"
                    assert verdict.state == wanted, (seeds, effect, layout, look, verdict.reason)
                    seen[wanted] += 1
    assert min(seen.values()) > 20


def trials_of(claim, values, s, count):
    points = claim.points("quick")
    return [
        Judged(arm, point, seed, "ok", {"m": float(values[a][s, seed, p])})
        for a, arm in enumerate(claim.arms("quick"))
        for seed in range(count)
        for p, point in enumerate(points)
    ]


@pytest.mark.parametrize("kind", ["mean", "jumpy"])
def test_a_short_simulation_keeps_the_promise(bench, kind):
    """False verdicts at most 2.5 % plus four standard errors of 4,000 sets, at looks that are really taken."""
    seeds = next(d for d in bench.DISTRIBUTIONS if d.kind == kind and d.name == "normal")
    looks = (5, 8, 12) if kind == "mean" else (6, 9, 12)
    found = list(bench.rates(seeds, "difference", looks, 4000, np.random.default_rng(11)))
    assert {rate.layout for rate in found} == {layout.name for layout in bench.LAYOUTS}
    for rate in found:
        assert rate.error == pytest.approx((ALPHA * (1 - ALPHA) / 4000) ** 0.5)
        assert max(rate.false_holds, rate.false_fails) <= ALPHA + 4 * rate.error
        assert rate.power >= rate.power_first
    single = next(rate for rate in found if rate.layout == "1 cell")
    # One cell spends all that its test can: t exactly alpha, the sign test 70/4096 (6 of 6, then 11 of 12).
    spent = ALPHA if kind == "mean" else 70 / 4096
    assert abs(single.false_holds - spent) < 4 * rate.error
    assert single.power > 0.85


def test_skewed_seeds_break_it_and_the_table_says_so(bench):
    seeds = next(d for d in bench.DISTRIBUTIONS if d.name.startswith("skewed"))
    found = list(bench.rates(seeds, "value", (5, 8, 12), 4000, np.random.default_rng(2)))
    single = next(rate for rate in found if rate.layout == "1 cell")
    assert not single.promised
    assert single.false_fails > 0.1
    text = bench.tables(found, full=True)
    assert f"**{100 * single.false_fails:.1f}**" in text
    assert bench.broken_promises(found) == []


def test_tables_are_written_between_the_markers(bench, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n")
    bench.write_between(page, "new")
    assert page.read_text() == f"before\n{bench.BEGIN}\nnew\n{bench.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="add both markers"):
        bench.write_between(page, "new")


def test_the_docs_carry_a_full_table(bench):
    text = (ROOT / "docs" / "verdicts.md").read_text()
    table = text.split(bench.BEGIN)[1].split(bench.END)[0]
    for seeds in bench.DISTRIBUTIONS:
        assert f"| {seeds.kind} | {seeds.name} |" in table
    assert "20,000 simulated sets" in table
