"""What becomes of whatever a measure returns or raises."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from claimbench.errors import NotApplicable, UserError
from claimbench.runner.measure import Refused, number, run_group
from claimbench.spec import Group, TrialSpec
from claimbench.trial import Trial


def call(
    measure: Callable[..., Any], *, count: int = 0, metrics: tuple[str, ...] = ("accuracy",)
) -> list[dict[str, Any]]:
    """Results of a measure for one trial, or for `count` of them as a list: two seeds at each point."""
    specs = tuple(
        TrialSpec("paper", "recall", "ours" if i % 2 else "base", {"n": i // 2}, 1000)
        for i in range(count or 1)
    )
    group = Group(specs=specs, folder=Path("/shelf/theory/paper"), metrics=metrics, listed=count > 0)
    sent: list[Mapping[str, Any]] = []
    message = run_group(group, {"recall": measure}, sent.append)
    assert not sent
    return list(message["results"])


def of(returned: object, **options: Any) -> dict[str, Any]:
    (result,) = call(lambda trial: returned, **options)
    return result


def raising(error: BaseException) -> dict[str, Any]:
    def measure(trial: Trial) -> None:
        raise error

    (result,) = call(measure)
    return result


@pytest.mark.parametrize(
    "value",
    [
        *(0.5, Fraction(1, 2), Decimal("0.5")),
        *(np.float32(0.5), np.float64(0.5), np.array(0.5), np.array([0.5])),
        *(
            torch.tensor(0.5),
            torch.tensor([0.5]),
            torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True),
        ),
    ],
)
def test_numbers_of_all_kinds_become_floats(value: object) -> None:
    result = of({"accuracy": value})
    assert (result["status"], result["metrics"]) == ("ok", {"accuracy": 0.5})
    assert type(result["metrics"]["accuracy"]) is float


def test_truth_values_and_integers_are_numbers() -> None:
    metrics = {"a": True, "b": np.bool_(False), "c": 7, "d": np.int64(-3), "e": torch.tensor(True)}
    assert of(metrics, metrics=("a",))["metrics"] == {"a": 1.0, "b": 0.0, "c": 7.0, "d": -3.0, "e": 1.0}


def test_an_integer_beyond_floats_is_infinite() -> None:
    assert (number(10**400), number(-(10**400))) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("returned", "failure"),
    [
        (
            {"acc": 1.0, "loss": 2.0},
            "metric accuracy is missing from the result of recall; it returned: acc, loss",
        ),
        ({}, "metric accuracy is missing from the result of recall; it returned: nothing"),
        ({"accuracy": "high"}, "metric accuracy is a str ('high'), not a number"),
        ({"accuracy": None}, "metric accuracy is a NoneType (None), not a number"),
        ({"accuracy": 1 + 2j}, "metric accuracy is a complex ((1+2j)), not a number"),
        ({"accuracy": [0.5]}, "metric accuracy is a list ([0.5]), not a number"),
        ({"accuracy": np.zeros(3)}, "metric accuracy is a ndarray of shape (3,), not a number"),
        ({"accuracy": torch.zeros(2, 2)}, "metric accuracy is a Tensor of shape (2, 2), not a number"),
        ({"accuracy": 1.0, 3: 1.0}, "recall returned a metric named 3; names are strings"),
        (0.5, "recall returned a float, not a mapping of names to numbers"),
        (None, "recall returned a NoneType, not a mapping of names to numbers"),
        ({"accuracy": float("nan")}, "metric accuracy is nan"),
        ({"accuracy": np.float64("-inf")}, "metric accuracy is -inf"),
    ],
)
def test_what_is_no_result(returned: object, failure: str) -> None:
    result = of(returned)
    assert (result["status"], result["failure"]) == ("failed", failure)
    assert "accuracy" not in result["metrics"]


def test_a_diverged_metric_leaves_the_finite_ones() -> None:
    result = of({"accuracy": float("nan"), "bytes": 12}, metrics=("accuracy", "bytes"))
    assert (result["status"], result["metrics"]) == ("failed", {"bytes": 12.0})


def test_metrics_that_another_claim_reads_are_kept() -> None:
    assert of({"accuracy": 1.0, "state_bytes": 8})["metrics"] == {"accuracy": 1.0, "state_bytes": 8.0}


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (NotApplicable("needs a GPU"), "not-applicable", "needs a GPU"),
        (UserError("too little text"), "failed", "too little text"),
        (ValueError("of two\n  lines"), "failed", "ValueError: of two lines"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
        (MemoryError(), "failed", "memory: MemoryError"),
        (OSError(errno.ENOMEM, "no memory"), "failed", "memory: OSError: [Errno 12] no memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            "failed",
            "memory: OutOfMemoryError: CUDA out of memory.",
        ),
        (OSError(errno.EIO, "bad disk"), "lost", "machine: OSError: [Errno 5] bad disk"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "lost", None),
        (FileNotFoundError(errno.ENOENT, "gone"), "failed", "FileNotFoundError: [Errno 2] gone"),
    ],
)
def test_whose_doing_an_exception_is(error: BaseException, status: str, failure: str | None) -> None:
    result = raising(error)
    assert result["status"] == status
    assert failure in (None, result["failure"])
    assert "\n" not in result["failure"]


def test_torch_on_the_cpu_says_memory_in_words() -> None:
    def measure(trial: Trial) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    (result,) = call(measure)
    assert result["status"] == "failed"
    assert result["failure"].startswith("memory: RuntimeError: ")


def test_an_exception_keeps_its_traceback() -> None:
    detail = raising(ValueError("x"))["detail"]
    assert "Traceback" in detail
    assert "in measure" in detail


# --- listed groups ---


def test_a_listed_group_returns_one_result_for_each_trial() -> None:
    def recall(trials: list[Trial]) -> list[object]:
        assert [type(t) for t in trials] == [Trial] * 4
        return [
            {"accuracy": trials[0].point["n"]},
            NotApplicable("no GPU"),
            ValueError("diverged"),
            {"loss": 1.0},
        ]

    results = call(recall, count=4)
    assert [r["status"] for r in results] == ["ok", "not-applicable", "failed", "failed"]
    assert [r["failure"] for r in results[1:3]] == ["no GPU", "ValueError: diverged"]


@pytest.mark.parametrize(
    ("returned", "failure"),
    [
        ([{"accuracy": 1.0}], "recall returned 1 results for 2 trials"),
        ({"accuracy": 1.0}, "recall returned a dict, not a list of one result for each trial"),
        (None, "recall returned a NoneType, not a list of one result for each trial"),
    ],
)
def test_a_listed_group_that_returns_something_else(returned: object, failure: str) -> None:
    assert [r["failure"] for r in call(lambda trials: returned, count=2)] == [failure] * 2


def test_a_listed_group_that_raises_fails_as_a_whole() -> None:
    def recall(trials: list[Trial]) -> None:
        raise NotApplicable("no GPU")

    assert [r["status"] for r in call(recall, count=3)] == ["not-applicable"] * 3


def test_a_missing_package_refuses_the_paper() -> None:
    def recall(trial: Trial) -> None:
        import no_such_package_here  # noqa: F401

    with pytest.raises(Refused, match="needs the package no_such_package_here; pip install"):
        call(recall)


# --- the context ---


@dataclass
class Timed:
    seconds: dict[str, float]
    aa: np.float64
    disturbed: bool
    discarded: int
    _raw: object = None


def test_timing_goes_to_the_trials_of_its_round() -> None:
    def recall(trials: list[Trial]) -> list[dict[str, float]]:
        trials[2].context.timed(Timed({"ours": 1.0}, np.float64(1.01), False, 2, object()))
        return [{"accuracy": 1.0} for _ in trials]

    record = {"seconds": {"ours": 1.0}, "aa": 1.01, "disturbed": False, "discarded": 2}
    assert [r["timing"] for r in call(recall, count=6)] == [{}, {}, record, record, {}, {}]


def test_two_rounds_at_one_point_are_an_error() -> None:
    def recall(trials: list[Trial]) -> list[dict[str, float]]:
        for trial in trials[:2]:
            trial.context.timed(Timed({}, np.float64(1.0), False, 0))
        return []

    assert "called twice" in call(recall, count=4)[0]["failure"]


def test_pauses_are_told_once_and_left_out_of_the_seconds() -> None:
    import time

    def recall(trial: Trial) -> dict[str, float]:
        with trial.context.paused("outer"):
            with trial.context.paused("inner"):
                time.sleep(0.2)
            time.sleep(0.1)
        return {"accuracy": 1.0}

    sent: list[Mapping[str, Any]] = []
    group = Group((TrialSpec("paper", "recall", "ours", {}, 1),), Path("/shelf/theory/paper"), ("accuracy",))
    message = run_group(group, {"recall": recall}, sent.append)
    assert sent == [{"kind": "paused", "label": "outer"}, {"kind": "resumed"}]
    assert message["common"]["seconds"] < 0.1


def test_generators_follow_the_seed() -> None:
    def recall(trial: Trial) -> dict[str, float]:
        return {"accuracy": np.random.rand(), "torch": torch.rand(()), "threads": torch.get_num_threads()}

    first, second = call(recall)[0]["metrics"], call(recall)[0]["metrics"]
    assert first == second
    assert first["threads"] == 1.0
