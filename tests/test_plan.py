"""Claims to sets: which trials, which seeds, and what makes two plans the same."""

from __future__ import annotations

from typing import Any

import pytest
from toy import PAPER, MakePaper

from claimbench.errors import UserError
from claimbench.paper import Paper, load_paper
from claimbench.plan import FIRST_SEED, TUNING_SEED, Overrides, Plan, choose_tuned, make_plan, rules_digest
from claimbench.spec import canonical


def plan_of(make_paper: MakePaper, toml: str = PAPER, **options: Any) -> Plan:
    paper: Paper = load_paper(make_paper(toml=toml) / "paper.toml")
    return make_plan(paper, paper.claim[0], **{"scale": "quick", "subjects": {}, **options})


def test_a_set_is_arms_by_points_by_seeds(make_paper: MakePaper) -> None:
    plan = plan_of(make_paper)
    specs = plan.specs(plan.seeds(plan.schedule[0]))
    assert plan.schedule == (5, 8, 12)
    assert len(specs) == len({s.key for s in specs}) == 2 * 3 * 5
    assert {s.seed for s in specs} == set(range(FIRST_SEED, FIRST_SEED + 5))
    assert not plan.own


def test_identity_is_what_decides_the_numbers_and_nothing_else(make_paper: MakePaper) -> None:
    plain = plan_of(make_paper)
    words = plan_of(
        make_paper,
        PAPER.replace("Made for a test.", "Other words.").replace("at_least = 0.5", "at_least = 0.7"),
    )
    assert [s.key for s in plain.specs([1])] == [s.key for s in words.specs([1])]
    assert plain.fingerprint == words.fingerprint
    assert rules_digest(plain.claim) != rules_digest(words.claim)
    sizes = plan_of(make_paper, PAPER.replace("scale_of_noise = 0.1", "scale_of_noise = 0.2"))
    assert not {s.key for s in plain.specs([1])} & {s.key for s in sizes.specs([1])}
    assert plain.fingerprint != sizes.fingerprint


def test_the_users_changes_make_a_setting_of_their_own(make_paper: MakePaper) -> None:
    own = plan_of(
        make_paper, overrides=Overrides(sizes={"steps": "3"}, at={"n": ["2", "8"]}, arms=["method"])
    )
    assert own.own
    assert own.sizes["steps"] == 3
    assert own.points == ({"n": 2}, {"n": 8})  # 8 is not in the sweep: a point of the user's own
    assert own.arms == ("method",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "quik"}, '--scale: no scale "quik"; did you mean "quick"'),
        (
            {"scale": "paper"},
            '--scale: toy/larger has no scale "paper"; it can be seen at: smoke, quick, full',
        ),
        ({"overrides": Overrides(sizes={"step": "3"})}, 'no size "step"; did you mean "steps"'),
        (
            {"overrides": Overrides(sizes={"steps": "many"})},
            '--size steps: "many" is no int; the default is 1',
        ),
        ({"overrides": Overrides(at={"m": ["3"]})}, '--at: toy/larger does not sweep "m"'),
        ({"overrides": Overrides(arms=["metod"])}, 'no arm "metod"; did you mean "method"'),
    ],
)
def test_mistakes_name_the_flag_and_the_nearest_name(
    make_paper: MakePaper, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(make_paper, **options)
    assert words in str(caught.value)


def test_development_and_smoke_use_seeds_that_are_never_published(make_paper: MakePaper) -> None:
    assert plan_of(make_paper, development=True).first_seed == 0
    smoke = plan_of(make_paper, scale="smoke")
    assert (smoke.first_seed, smoke.schedule) == (0, (1,))
    assert not smoke.verdict_possible


def test_groups_follow_together(make_paper: MakePaper) -> None:
    alone = plan_of(make_paper)
    assert all(len(g.specs) == 1 and not g.listed for g in alone.groups(alone.specs([1, 2])))
    by_seed = plan_of(
        make_paper, PAPER.replace('method = "method"', 'together = ["seed"]\nmethod = "method"')
    )
    groups = by_seed.groups(by_seed.specs([1, 2]))
    assert len(groups) == 6
    assert all(g.listed and {s.seed for s in g.specs} == {1, 2} for g in groups)
    timed = PAPER.replace('method = "method"', 'timing = true\nmethod = "method"').replace(
        'kind = "mean"', 'kind = "time"'
    )
    rounds = plan_of(make_paper, timed)
    groups = rounds.groups(rounds.specs([1, 2]))
    assert rounds.schedule == (6, 9, 12)
    assert len(groups) == 6
    assert all(g.timing and [s.arm for s in g.specs] == ["method", "baseline"] for g in groups)


def test_tuning_never_sees_a_seed_that_is_measured(make_paper: MakePaper) -> None:
    plan = plan_of(
        make_paper,
        PAPER.replace("[claim.scales.smoke]", "[claim.tuning]\nlr = [0.1, 0.2]\n[claim.scales.smoke]"),
    )
    tuning = plan.tuning_specs()
    assert min(s.seed for s in tuning) >= TUNING_SEED > max(plan.seeds(12)) * 10
    assert all(s.size["tuning"] for s in tuning)
    assert {s.tuned["lr"] for s in tuning} == {0.1, 0.2}
    scored = [(s, {"size": s.tuned["lr"] if s.arm == "method" else -s.tuned["lr"]}) for s in tuning]
    chosen = choose_tuned(plan, scored)
    measured = plan.with_tuned(chosen).specs([1000])
    assert {(s.arm, s.tuned["lr"]) for s in measured} == {("method", 0.2), ("baseline", 0.1)}


def test_a_failed_tuning_trial_counts_as_its_on_failure(make_paper: MakePaper) -> None:
    plan = plan_of(
        make_paper,
        PAPER.replace("[claim.scales.smoke]", "[claim.tuning]\nlr = [0.1, 0.2]\n[claim.scales.smoke]"),
    )
    scored = [(s, {} if s.tuned["lr"] == 0.2 else {"size": 0.5}) for s in plan.tuning_specs()]
    assert all(values == {"lr": 0.1} for values in choose_tuned(plan, scored).values())


def tuned(words: str) -> str:
    return PAPER.replace("[claim.scales.smoke]", f"[claim.tuning]\n{words}\n[claim.scales.smoke]")


def test_ties_go_to_the_earlier_value_whichever_trial_finished_first(make_paper: MakePaper) -> None:
    plan = plan_of(make_paper, tuned("lr = [0.3, 0.1, 0.2]"))
    scored = [(spec, {"size": 1.0}) for spec in plan.tuning_specs()]
    assert all(values == {"lr": 0.3} for values in choose_tuned(plan, scored).values())
    assert choose_tuned(plan, scored) == choose_tuned(plan, scored[::-1])


def test_a_timing_round_of_tuning_holds_every_arm_once(make_paper: MakePaper) -> None:
    timed = tuned("block = [1, 2]").replace('method = "method"', 'timing = true\nmethod = "method"')
    plan = plan_of(make_paper, timed.replace('kind = "mean"', 'kind = "time"'))
    groups = plan.groups(plan.tuning_specs())
    assert len(groups) == 2 * 3 * 2
    assert all([s.arm for s in g.specs] == ["method", "baseline"] for g in groups)
    chosen = {canonical([a, p]): {"block": 1 + (a == "method")} for a in plan.arms for p in plan.points}
    rounds = plan.with_tuned(chosen).groups(plan.with_tuned(chosen).specs([1]))
    assert [len(g.specs) for g in rounds] == [2, 2, 2]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (tuned("lr = []"), "tuning.lr: [] names no values, or one of them twice"),
        (tuned("lr = [0.1, 0.1]"), "tuning.lr: [0.1, 0.1] names no values, or one of them twice"),
        (tuned("lr = [0.1]").replace(', better = "higher"', ""), "says which way is better"),
        (tuned("lr = [0.1]").replace("caveat", 'tune_for = "sise"\ncaveat'), 'did you mean "size"'),
    ],
)
def test_tuning_that_could_choose_nothing_is_an_error(make_paper: MakePaper, toml: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(make_paper, toml)
    assert words in str(caught.value)
