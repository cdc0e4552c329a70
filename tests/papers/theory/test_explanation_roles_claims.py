"""The claims of explanation-roles: every arm at smoke, what is derived, retrieval by encoders, and the
instrument on users' data.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claimbench.errors import NotApplicable, UserError
from claimbench.paper import load_paper
from claimbench.papers.theory import explanation_roles
from claimbench.papers.theory.explanation_roles import (
    Outcome,
    SyntheticTask,
    claims,
    compare,
    compare_on_texts,
    difference,
    draw_problem,
    embed,
    told_of,
)
from claimbench.papers.theory.explanation_roles.__main__ import explain as command
from claimbench.papers.theory.explanation_roles.encoders import find_by_encoder, untrained, written
from claimbench.papers.theory.explanation_roles.natural import ARMS, arm_features, met, retrieve
from claimbench.papers.theory.explanation_roles.preconditions import PRECONDITIONS
from claimbench.subjects import open_subject, resolve_subject
from claimbench.testing import Given, check_derived, check_registry, declared, made_up, measured, smoke_trials
from claimbench.trial import Row, Table, registry

pytestmark = pytest.mark.usefixtures("one_thread")

PAPER = load_paper(Path(explanation_roles.__file__).parent / "paper.toml")
FOUND = registry(claims.__name__)


@pytest.fixture(scope="module")
def encoder() -> Any:
    """A BERT of one small block over bytes: an encoder that is real, though it was never trained."""
    pytest.importorskip("transformers")
    import torch
    from transformers import BertConfig, BertModel

    from claimbench.subjects.byte_model import byte_tokenizer
    from claimbench.subjects.sentence_encoder import Recipe, SentenceEncoder

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=257,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=80,
        pad_token_id=256,
    )
    return SentenceEncoder(BertModel(config).eval(), byte_tokenizer(), Recipe(), 80)


def letters(texts: Any) -> np.ndarray:
    """A user's encoder as plain as can be: how often each letter occurs."""
    return np.array(
        [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float
    )


THINGS = ("anvil", "feather", "boulder", "leaf", "engine", "balloon", "girder", "ribbon")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things that are heavy or light, which the explanations of other rows about the same thing say."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("told") / "told.csv"
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "explanation", "size", "label"])
        for row in range(96):
            thing = int(rng.integers(len(THINGS)))
            told = f"{THINGS[thing]} {'qqq' if thing % 2 else 'zzz'}" if row % 8 else ""
            writer.writerow([f"{THINGS[thing]} {row}", told, row, ("light", "heavy")[thing % 2]])
    return path


@pytest.fixture(scope="module")
def table(file: Path) -> Any:
    return open_subject(resolve_subject("table", f"{file}#target=label"))


# ---- claims ----


def test_every_claim_is_measured_and_derived() -> None:
    check_registry(PAPER, FOUND)
    for claim in PAPER.claim:
        if declared(claim, derived=True):
            numbers = check_derived(claim, FOUND, made_up(claim, lambda point: 0.25))
            assert all(math.isfinite(value) for value in numbers.values())


@pytest.mark.parametrize("claim", PAPER.claim, ids=lambda claim: claim.id)
def test_every_arm_measures_every_metric(claim: Any, encoder: Any, table: Any) -> None:
    subject = Given(encoder=encoder, examples=table) if claim.subjects else Given()
    for point in claim.points("smoke"):
        trials = smoke_trials(claim, point, subject=subject)
        for metrics in measured(claim, FOUND, trials).values():
            assert set(metrics) == declared(claim, derived=False)
            assert all(math.isfinite(value) for value in metrics.values())


def test_results_stay_with_their_trials() -> None:
    """Seeds of one call are those of calls of their own, and tuning is scored on other points."""
    claim = PAPER.find_claim("retrieval-beats-memorising")
    trials = [smoke_trials(claim, seed=seed, steps=8)[1] for seed in (3, 4)]
    together = claims.retrieval_beats_memorising(trials)
    alone = [claims.retrieval_beats_memorising([trial])[0] for trial in trials]
    assert [numbers["accuracy"] for numbers in together] == pytest.approx(
        [numbers["accuracy"] for numbers in alone]
    )
    tuning = smoke_trials(claim, tuning=True, validation=4)
    assert claims.retrieval_beats_memorising([tuning[5]])[0]["accuracy"] * 4 % 1 == 0


def test_sizes_of_readers_are_no_knobs_of_the_task() -> None:
    for claim in PAPER.claim:
        if "length" in claim.size:
            for trial in smoke_trials(claim)[:1]:
                drawn = claims.task_of(trial)
                assert drawn == SyntheticTask(
                    tasks=drawn.tasks,
                    points=drawn.points,
                    length=12,
                    integers=30,
                    eps=trial.size.get("eps", 1),
                )


def test_arms_read_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = PAPER.find_claim("retrieval-beats-memorising")
    tokens = {
        trial.arm: claims.retrieval_beats_memorising([trial])[0]["tokens"] for trial in smoke_trials(claim)
    }
    assert tokens["oracle-retrieval"] == 12 + 5
    assert tokens["no-explanation"] == tokens["no-explanation-tenfold"] == tokens["auxiliary-target"] == 12
    assert tokens["fixed-retrieval"] == tokens["learnt-retrieval"] == 4 * (12 + 4 * 5)
    assert tokens["other-examples"] == 12 + 6 * 13
    drawn: list[int] = []
    draw = claims.draw_problem
    monkeypatch.setattr(
        claims, "draw_problem", lambda task, **sizes: drawn.append(task.points) or draw(task, **sizes)
    )
    claims.retrieval_beats_memorising(smoke_trials(claim)[1:2])
    claims.retrieval_beats_memorising(smoke_trials(claim)[2:3])
    assert drawn == [6, 60]


def test_the_fall_is_of_the_method_alone() -> None:
    rows = [
        Row(arm, {"tasks": tasks}, 0, {"accuracy": accuracy, "tokens": 12})
        for arm, values in (
            ("no-explanation", (0.99, 0.9, 0.7, 0.6)),
            ("oracle-retrieval", (0.5, 0.6, 0.7, 0.8)),
        )
        for tasks, accuracy in zip((2, 10, 50, 100), values, strict=True)
    ]
    assert claims.fall(Table(rows)) == pytest.approx({"correlation": -1, "drop": 0.39})


def test_the_formula_of_averaging_is_measured() -> None:
    task = SyntheticTask(tasks=5, kind="evidential", eps=3)
    for together in (1, 5):
        assert claims.error_ratio(task, together, 20_000, 0) == pytest.approx(
            1, abs=4 * math.sqrt(2 / 80_000)
        )


def test_excess_is_half_the_gain_where_nothing_is_lost(encoder: Any) -> None:
    claim = PAPER.find_claim("preconditions")
    trials = smoke_trials(claim, {"knob": "hidden-index"}, steps=30)
    found = {trial.arm: numbers for trial, numbers in zip(trials, claims.preconditions(trials), strict=True)}
    gain = found["intact"]["accuracy"] - found["no-explanation"]["accuracy"]
    assert found["intact"]["gain"] == pytest.approx(gain)
    assert found["intact"]["excess"] == pytest.approx(gain / 2)
    assert found["no-explanation"]["excess"] == pytest.approx(-gain / 2)
    assert found["broken"]["excess"] == pytest.approx(
        found["broken"]["accuracy"] - found["no-explanation"]["accuracy"] - gain / 2
    )
    with pytest.raises(UserError, match="hidden-index"):
        claims.preconditions(smoke_trials(claim, {"knob": "hiden-index"}))


def test_broken_preconditions_are_broken(encoder: Any) -> None:
    """What the broken retriever and data give, beside what the intact ones do."""
    task = SyntheticTask(tasks=20, points=6, length=12, integers=30)
    problem = draw_problem(task, seed=0, validation=20, test=200)

    def relevant(find: Any, problem: Any = problem) -> float:
        found = find(problem, problem.test, None, 1)
        return float((problem.train.place[found[:, 0]] == problem.test.place).mean())

    for name in ("weak-feature", "translated", "causal-only"):
        assert relevant(PRECONDITIONS[name].broken(0, None)) == 1
    tokens = PRECONDITIONS["hidden-index"]
    veiled = draw_problem(SyntheticTask(**{**vars(task), **tokens.changes}), seed=0, validation=20, test=200)
    seen, unseen = relevant(tokens.intact(0, None)), relevant(tokens.broken(0, None), veiled)
    assert seen > unseen + 0.02
    trained = PRECONDITIONS["random-retriever"]
    assert trained.intact(0, encoder)(problem, problem.test, None, 1).shape == (200, 1)
    other = untrained(encoder, 1)
    assert not np.allclose(other.encode(["7 8"]), encoder.encode(["7 8"]))
    assert np.allclose(other.encode(["7 8"]), untrained(encoder, 1).encode(["7 8"]))


def test_encoders_read_numbers_as_text_and_search_exactly(encoder: Any) -> None:
    problem = draw_problem(
        SyntheticTask(tasks=6, points=4, length=12, integers=30), seed=0, validation=12, test=12
    )
    assert written(np.array([[1, 20, 3]])) == ["1 20 3"]
    own = np.arange(len(problem.train))
    found = find_by_encoder(encoder)(problem, problem.train, own, 3)
    rows = encoder.encode(written(problem.train.sequences))
    pool = encoder.encode(written(problem.train.explanations))
    similarity = rows @ pool.T
    similarity[own, own] = -np.inf
    taken = np.take_along_axis(similarity, found, axis=1)
    assert np.allclose(taken, -np.sort(-similarity, axis=1)[:, :3], atol=1e-5)
    assert (found != own[:, None]).all()


# ---- natural data ----


def test_a_claim_on_data_says_that_it_needs_them() -> None:
    with pytest.raises(NotApplicable, match="--subject examples="):
        claims.no_gain_on_natural_data(smoke_trials(PAPER.find_claim("no-gain-on-natural-data")))


def test_a_query_meets_neither_its_own_text_nor_rows_that_are_not_trained_on() -> None:
    texts = [f"row {place % 20}" for place in range(60)]
    explanations = ["" if place % 7 == 0 else f"because {place}" for place in range(60)]
    rows = embed(texts, [place % 2 for place in range(60)], explanations, letters)
    train = np.arange(0, 45)
    for by in ("explanation", "text", "random", "examples"):
        found = retrieve(rows, train, 3, by, np.random.default_rng(0))
        assert np.isin(found, train).all()
        assert (rows.groups[found] != rows.groups[:, None]).all()
        assert by == "examples" or rows.explained[found].all()
    with pytest.raises(UserError, match="too few"):
        retrieve(rows, train[:3], 3, "explanation", np.random.default_rng(0))


def test_ones_own_relevance_is_searched_by() -> None:
    texts, explanations = [f"t{place}" for place in range(30)], [f"e{place}" for place in range(30)]

    def next_one(queries: Any, told: Any) -> np.ndarray:
        places = np.array([[int(text[1:]) for text in part] for part in (queries, told)])
        return -np.abs(places[0][:, None] + 1 - places[1][None, :]).astype(float)

    rows = embed(texts, [place % 2 for place in range(30)], explanations, letters, relevance=next_one)
    found = retrieve(rows, np.arange(30), 1, "explanation", np.random.default_rng(0))
    assert found[:-1, 0].tolist() == list(range(1, 30))
    with pytest.raises(UserError, match="relevance"):
        embed(texts, [0, 1] * 15, explanations, letters, relevance=lambda queries, told: np.zeros((2, 2)))


def test_what_is_met_is_averaged() -> None:
    rng = np.random.default_rng(0)
    queries, pool = rng.random((3, 2)).astype(np.float32), rng.random((5, 2)).astype(np.float32)
    found = np.array([[0, 1], [2, 3], [4, 4]])
    expected = [
        np.mean([[*u, *v, *(u * v), *np.abs(u - v)] for v in pool[row]], axis=0)
        for u, row in zip(queries, found, strict=True)
    ]
    assert np.allclose(met(queries, pool, found), expected)


@pytest.mark.parametrize("reader", ["logistic", "mlp"])
def test_explanations_that_say_the_class_help_and_others_do_not(reader: str) -> None:
    """Ten things, each met in many texts by a code that no letter count tells apart; explanations name thing
    and class.
    """
    rng = np.random.default_rng(0)
    rows = 300 if reader == "logistic" else 160
    things = rng.integers(10, size=rows)
    classes = rng.permutation(10) % 2
    codes = np.eye(10)[things] + 0.1 * rng.standard_normal((rows, 10))
    side = np.where(classes[things] == 1, 1.0, -1.0)
    told = np.column_stack([np.eye(10)[things], 0.5 * side])
    of_text = {f"text {row}": np.append(codes[row], 0.0) for row in range(rows)}
    of_told = {f"told {row}": told[row] for row in range(rows)}
    labels = np.where(rng.random(rows) < 0.15, 1 - classes[things], classes[things])
    found = compare_on_texts(
        list(of_text),
        labels,
        list(of_told),
        lambda texts: np.array([{**of_text, **of_told}[text] for text in texts]),
        reader=reader,
        arms=("retrieved-explanations", "random-explanations", "own-explanation"),
        folds=2,
        each=2,
    )
    best = (labels == classes[things]).mean()
    assert found["retrieved-explanations"].accuracy > best - 0.04
    assert found["own-explanation"].accuracy > best - 0.04
    assert found["random-explanations"].accuracy < found["own-explanation"].accuracy + 0.02


def test_the_interval_covers_the_difference_of_paired_rows() -> None:
    """Against the normal interval of the paired differences; groups of equal rows count once."""
    rng = np.random.default_rng(0)
    covered, width = 0, []
    for _ in range(200):
        one, other = rng.random(400) < 0.7, rng.random(400) < 0.6
        found = difference(Outcome(one), Outcome(other), np.arange(400))
        covered += found.low <= 0.1 <= found.high
        width.append(found.high - found.low)
    assert 0.9 <= covered / 200 <= 0.99
    assert np.mean(width) == pytest.approx(2 * 1.96 * math.sqrt((0.21 + 0.24) / 400), rel=0.05)
    twice = difference(Outcome(np.repeat(one, 2)), Outcome(np.repeat(other, 2)), np.repeat(np.arange(400), 2))
    assert (twice.low, twice.high) == pytest.approx((found.low, found.high))


def test_tables_as_texts(table: Any, file: Path) -> None:
    told = told_of(table, rows=40, seed=1)
    assert len(told) == 40
    assert set(told.labels) == {"light", "heavy"}
    assert "" in told.explanations
    both = told_of(table, text="text, explanation", rows=40, seed=1)
    assert both.texts[0] == f"{told.texts[0]}\n{told.explanations[0]}"
    with pytest.raises(UserError, match="text"):
        told_of(table, text="texts")
    with pytest.raises(UserError, match='"size" holds no text'):
        told_of(table, text="size")
    numbers = open_subject(resolve_subject("table", f"{file}#target=size"))
    with pytest.raises(UserError, match="task=classification"):
        told_of(numbers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reader": "forest"}, "reader"),
        ({"by": "label"}, "by"),
        ({"arms": ["own-explanations"]}, "own-explanation"),
        ({"each": 0}, "each = 0"),
        ({"each": 30}, "too few"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    rows = embed(
        [f"t{place}" for place in range(30)], [0, 1] * 15, [f"e{place}" for place in range(30)], letters
    )
    with pytest.raises(UserError, match=message):
        compare(rows, **options)


def test_wrong_columns_are_told() -> None:
    with pytest.raises(UserError, match="2 labels"):
        embed(["a"] * 30, [0, 1], ["b"] * 30, letters)
    with pytest.raises(UserError, match="of 1 classes"):
        embed(["a"] * 30, [0] * 30, ["b"] * 30, letters)
    with pytest.raises(UserError, match="encoder"):
        embed([f"t{place}" for place in range(30)], [0, 1] * 15, ["b"] * 30, lambda texts: np.zeros(3))


def test_every_arm_sees_the_query_alike() -> None:
    rows = embed([f"abc {'x' * (place % 5)}{place}" for place in range(40)], [0, 1] * 20, ["b"] * 40, letters)
    for arm in ARMS:
        features = arm_features(arm, rows, np.arange(30), 2, "explanation", np.random.default_rng(0))
        assert np.array_equal(features[:, :26], rows.texts)
        assert len(features) == 40


def test_the_command_prints_what_python_returns(
    file: Path, table: Any, encoder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    command(
        f"{file}#target=label",
        encoder=str(tmp_path),
        explanation_encoder="",
        relevance="",
        folds=2,
        **{
            "text": "text",
            "explanation": "explanation",
            "by": "explanation",
            "each": 2,
            "reader": "logistic",
            "rows": 60,
            "seed": 0,
        },
    )
    told = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[2:]}
    rows = told_of(table, rows=60)
    found = compare_on_texts(
        rows.texts, rows.labels, rows.explanations, open_subject(resolve_subject("sentence-encoder", str(tmp_path))),
        folds=2, each=2,
    )  # fmt: skip
    assert {arm: float(value) for arm, value in told.items()} == pytest.approx(
        {arm: outcome.accuracy for arm, outcome in found.items()}, abs=6e-4
    )


def test_the_command_tells_mistakes_in_one_line(file: Path) -> None:
    wrong = subprocess.run(
        [
            sys.executable,
            "-m",
            explanation_roles.__name__,
            f"{file}#target=label",
            "--explanation",
            "explanations",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "explanation" in wrong.stderr
