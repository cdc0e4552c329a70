"""Chain of thought: training, the claims and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from claimbench.errors import NotApplicable, UserError
from claimbench.paper import Paper, load_paper
from claimbench.papers.theory import chain_of_thought_theory as cot
from claimbench.papers.theory.chain_of_thought_theory import __main__ as command_line
from claimbench.papers.theory.chain_of_thought_theory import claims
from claimbench.papers.theory.chain_of_thought_theory.derivations import Derivations, shortened
from claimbench.papers.theory.chain_of_thought_theory.learning import (
    IGNORED,
    answered,
    batches_of,
    generate,
    majority,
    pairs_of,
    same_answers,
    supervised_loss,
    train,
    train_together,
)
from claimbench.testing import Given, check_derived, check_registry, declared, measured, smoke_trials
from claimbench.trial import Row, Table, registry

FOUND = registry(claims.__name__)


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper(Path(cot.__file__).parent / "paper.toml")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


class Knower(nn.Module):
    """Gives the next token of the row whose beginning it is shown, else the padding."""

    def __init__(self, given: Derivations, lies: int = 0) -> None:
        super().__init__()
        self.rows = torch.from_numpy(given.ids.astype(np.int64))
        self.words, self.lies = len(given.words), lies

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*ids.shape, self.words)
        for place in range(ids.shape[1]):
            same = (self.rows[None, :, : place + 1] == ids[:, None, : place + 1]).all(-1)
            which = same.int().argmax(1)
            tokens = self.rows[which, min(place + 1, self.rows.shape[1] - 1)]
            tokens = torch.where(which < self.lies, 4, tokens)
            logits[:, place].scatter_(1, torch.where(same.any(1), tokens, 0)[:, None], 1.0)
        return logits


@pytest.mark.parametrize("task", ["arithmetic", "equations", "subsequences", "edits"])
@pytest.mark.parametrize("kind", ["derivation", "direct", "filler"])
def test_who_knows_all_answers_all(task: str, kind: str) -> None:
    whole = cot.different(cot.drawing(task, 2 if task == "equations" else 4), 20, rng())
    given = whole if kind == "derivation" else whole.direct() if kind == "direct" else whole.filler()
    found = answered(Knower(given), given, at_once=8)
    assert (found.free, found.forced) == (1.0, 1.0)
    found = answered(Knower(given, lies=5), given)
    assert found.free == found.forced == 0.75
    ids = generate(Knower(given), given, time=given.ids.shape[1])
    assert (ids == given.ids).all()


def test_only_the_answer_decides_and_it_must_end() -> None:
    given = cot.equations(2, 6, rng())
    ids = given.ids.astype(np.int64)
    first = given.words.index("0")
    ids[0, given.prompt[0]] = first + (ids[0, given.prompt[0]] - first + 1) % 11  # a wrong step
    ids[1, given.length[1] - 1] = first + (ids[1, given.length[1] - 1] - first + 1) % 11  # a wrong answer
    ids[2, given.length[2]] = 0  # no end
    ids[3, given.length[3]] = given.words.index("0")  # more than the answer
    assert same_answers(ids, given).tolist() == [True, False, False, False, True, True]


def test_targets_of_the_prompt_get_no_gradient() -> None:
    given = cot.arithmetic(3, 8, rng())
    inputs, targets = pairs_of(given)
    logits = torch.randn(*inputs.shape, len(given.words), requires_grad=True)
    supervised_loss(logits, targets).backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(-1) > 0
    np.testing.assert_array_equal(touched.numpy(), given.supervised())
    assert (targets == IGNORED).any()


def test_every_problem_is_met_before_any_comes_again() -> None:
    given = cot.different(cot.drawing("equations", 2), 20, rng())
    source = batches_of(given, 8, rng())
    met = torch.cat([next(source)[0] for _ in range(5)])
    keys, counts = np.unique(met.numpy(), axis=0, return_counts=True)
    assert len(keys) == 20
    assert (counts == 2).all()


def make_small(vocabulary: int, context: int) -> nn.Module:
    from claimbench.blocks.tiny_transformer import TinyTransformer

    return TinyTransformer(
        vocabulary=vocabulary, context=context, layers=1, width=16, heads=2, mlp="gelu", positions="learned"
    )


def test_training_learns_and_repeats() -> None:
    given = cot.arithmetic(1, 400, rng(), prime=2).direct()
    model = train(given, make_small, steps=80, batch=32, learning_rate=0.02, seed=4)
    assert answered(model, given).free > 0.95 > majority(given, given)
    one, two = (train(given, make_small, steps=3, batch=8, learning_rate=0.02, seed=4) for _ in range(2))
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second)


def test_models_trained_together_are_those_trained_alone() -> None:
    parts = [cot.arithmetic(2, 60, rng(seed)) for seed in (0, 1)]
    options = {"steps": 12, "batch": 8, "learning_rate": 0.01}
    together = train_together(parts, make_small, seeds=[4, 5], **options)  # type: ignore[arg-type]
    context = max(part.ids.shape[1] for part in parts)
    for part, seed, model in zip(parts, (4, 5), together, strict=True):
        alone = train(part, make_small, seed=seed, context=context, **options)  # type: ignore[arg-type]
        assert isinstance(model, nn.Module)
        for one, other in zip(alone.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_majority_answer() -> None:
    given = cot.arithmetic(2, 3000, rng(), prime=3)
    answers = given.ids[np.arange(3000), given.answer]
    best = np.bincount(answers).argmax()
    assert majority(given, given.take(slice(500))) == pytest.approx((answers[:500] == best).mean())


def test_steps_are_left_out_at_their_rate_and_the_rest_stays() -> None:
    given = cot.arithmetic(5, 500, rng())
    cut = shortened(given, 0.3, rng(1))
    whole, left = 0, 0
    for full, short in zip(given.records(), cut.records(), strict=True):
        assert short["prompt"] == full["prompt"]
        assert short["answer"] == full["answer"]
        lines, kept = full["derivation"].split("=")[:-1], short["derivation"].split("=")[:-1]
        remaining = iter(line.strip() for line in lines)
        assert all(line.strip() in remaining for line in kept)  # in their order
        whole, left = whole + len(lines), left + len(kept)
    assert left / whole == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / whole))
    assert (cut.ids[np.arange(500), cut.length] == cut.end).all()
    assert (shortened(given, 0.0, rng()).ids == given.ids).all()
    with pytest.raises(UserError, match="rate -1"):
        shortened(given, -1, rng())


# ---- claims ----


def test_every_claim_has_its_measure(paper: Paper) -> None:
    check_registry(paper, FOUND)


@pytest.mark.parametrize(
    "name", ["cot-constant-size", "cot-token-cost", "cot-beats-direct", "cot-robust-to-noise"]
)
def test_smoke(paper: Paper, name: str) -> None:
    claim = paper.find_claim(name)
    rows = []
    for point in claim.points("smoke"):
        for trial in smoke_trials(claim, point):
            try:
                (numbers,) = measured(claim, FOUND, [trial]).values()
            except NotApplicable:
                assert trial.arm == "doubling"
                continue
            assert set(numbers) == declared(claim)
            assert all(np.isfinite(list(numbers.values())))
            rows.append(Row(trial.arm, point, trial.seed, numbers))
    if declared(claim, derived=True):
        derived = check_derived(claim, FOUND, Table(rows))
        if name == "cot-constant-size":
            assert derived["growth"] == 0
            assert sum(row.metrics["wrong"] for row in rows) == 0
        if name == "cot-token-cost":
            assert derived["always"] == 0


def test_the_powers_are_those_of_the_closed_forms(paper: Paper) -> None:
    claim = paper.find_claim("cot-token-cost")
    rows = []
    for point in claim.points("quick"):
        task, n = str(point["task"]), int(point["n"])
        for arm, tokens in (("derivation", cot.longest(task, n)), ("direct", cot.longest_direct(task, n))):
            names = ("tokens", "longest", "shortest")
            rows.append(Row(arm, point, 0, dict.fromkeys(names, float(tokens))))
    found = check_derived(claim, FOUND, Table(rows))
    assert found["published_gap"] == found["always"] == 0
    assert found["equations_power"] == pytest.approx(3, abs=0.1)
    assert found["subsequences_power"] == pytest.approx(1, abs=0.01)
    assert found["edits_power"] == pytest.approx(2, abs=0.05)
    assert found["arithmetic_power"] == pytest.approx(2, abs=0.05)
    assert found["edits_early"] < 1.75
    assert found["factor_gap"] == pytest.approx(65 * 66 / 64**2 - 1, abs=1e-4)


def test_the_gap_widens_by_the_least_gap(paper: Paper) -> None:
    claim = paper.find_claim("cot-beats-direct")
    first, last = claim.points("quick")[0], claim.points("quick")[-1]
    others = claim.arms("quick")[1:]
    rows = [
        Row(arm, point, 0, {"accuracy": value if arm == others[0] else value - 0.1})
        for point, value in ((first, 0.8), (last, 0.5))
        for arm in others
    ]
    rows += [Row("derivation", point, 0, {"accuracy": 0.95}) for point in (first, last)]
    assert check_derived(claim, FOUND, Table(rows))["widening"] == pytest.approx(0.3)


def test_arms_see_the_same_problems_and_none_twice(paper: Paper) -> None:
    claim = paper.find_claim("cot-beats-direct")
    trials = smoke_trials(claim)
    splits = [claims.split_of(trial) for trial in trials]
    assert len({tuple(test.prompts()) for _, test in splits}) == 1
    assert len({tuple(train.prompts()) for train, _ in splits}) == 1
    train, test = splits[0]
    assert not set(train.prompts()) & set(test.prompts())


def test_a_model_and_a_problem_of_ones_own_take_part(paper: Paper) -> None:
    made: list[tuple[int, int]] = []

    def make(vocabulary: int, context: int) -> nn.Module:
        made.append((vocabulary, context))
        return make_small(vocabulary, context)

    own = cot.Recurrence(
        draw=lambda generator: generator.integers(1, 9, size=4).tolist(),
        cells=lambda prompt: range(len(prompt)),
        value=lambda prompt, cell, known: (prompt[cell] + known.get(cell - 1, 0)) % 10,
        answer=lambda prompt, known: known[3],
    )
    trial = smoke_trials(paper.find_claim("cot-beats-direct"), subject=Given(architecture=make, problem=own))[
        0
    ]
    numbers = claims.beats_direct([trial])[0]
    assert isinstance(numbers, dict)
    assert made == [(3 + 10, 4 + 1 + 4 + 1 + 1 + 1)]
    assert numbers["tokens"] == 12
    few = replace(own, draw=lambda generator: generator.integers(1, 3, size=4).tolist())
    trial = smoke_trials(paper.find_claim("cot-beats-direct"), subject=Given(architecture=make, problem=few))[
        0
    ]
    with pytest.raises(UserError, match="problem: 16 different prompts"):
        claims.beats_direct([trial])


# ---- the command line ----


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "claimbench.papers.theory.chain_of_thought_theory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_the_command_line_generates_what_python_does_and_checks_it(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    assert (
        run("arithmetic", "--operators", "3", "--count", "40", "--seed", "2", "--out", str(data)).returncode
        == 0
    )
    records = [json.loads(line) for line in data.read_text().splitlines()]
    expected = cot.different(cot.drawing("arithmetic", 3), 40, rng(2))
    assert records == list(expected.records())
    assert "40 derivations: 100.00% right in every step" in run("check", str(data)).stdout
    records[0]["answer"] = "12"
    data.write_text("\n".join(map(json.dumps, records)))
    assert "97.50% right in the answer" in run("check", str(data)).stdout


def test_the_command_line_takes_a_recurrence_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMBENCH_CACHE", str(tmp_path))
    (tmp_path / "sums.py").write_text(
        "from claimbench.papers.theory.chain_of_thought_theory import Recurrence\n"
        "recurrence = Recurrence(\n"
        "    draw=lambda generator: generator.integers(1, 9, size=3).tolist(),\n"
        "    cells=lambda prompt: range(3),\n"
        "    value=lambda prompt, cell, known: prompt[cell] + known.get(cell - 1, 0),\n"
        "    answer=lambda prompt, known: known[2],\n"
        ")\n"
    )
    made = run("own", str(tmp_path / "sums.py"), "--count", "5")
    assert "a cell reads up to 1 others" in made.stderr
    for record in map(json.loads, made.stdout.splitlines()):
        numbers = [int(token) for token in record["prompt"].split()[:-1]]
        assert record["derivation"].split()[:-1] == [str(total) for total in np.cumsum(numbers)]
        assert record["answer"] == str(sum(numbers))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("edits", "--kind", "dirct"), 'did you mean "direct"'),
        (("equations", "--prime", "4"), "prime 4"),
        (("check", "nowhere.jsonl"), "nowhere.jsonl: cannot be read"),
        (("cost", "edits", "--sizes", "4,x"), "--sizes 4,x"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["chain_of_thought_theory", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("claimbench: ")
    assert message in said
    assert len(said.splitlines()) == 1


def test_costs_and_checks_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["chain_of_thought_theory", "cost", "equations", "--sizes", "3,64"])
    with pytest.raises(SystemExit):
        command_line.main()
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [["3", "89", "44"], ["64", "411839", "12671"]]
    given = cot.arithmetic(3, 6, rng())
    wrong = [given.text(0), given.text(1) + " 5", "nonsense", *(given.text(row) for row in range(2, 6))]
    (tmp_path / "said.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in wrong))
    monkeypatch.setattr(sys, "argv", ["chain_of_thought_theory", "check", str(tmp_path / "said.jsonl")])
    with pytest.raises(SystemExit):
        command_line.main()
    assert "7 derivations: 71.43% right in every step, 71.43% right in the answer" in capsys.readouterr().out
