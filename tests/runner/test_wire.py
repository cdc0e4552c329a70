"""Frames arrive whole however the stream was cut, and groups come out as they went in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimbench.runner.wire import LARGEST, LENGTH, Frames, frame, group_from_message, group_to_message
from claimbench.spec import Group, SubjectRef, TrialSpec

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=5),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_frames_survive_any_cut(messages: list[dict[str, object]], cuts: list[int]) -> None:
    stream = b"".join(map(frame, messages))
    frames, received, at, turn = Frames(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        received += list(frames.feed(stream[at : at + step]))
        at, turn = at + step, turn + 1
    assert received == messages


def test_half_a_frame_is_no_message() -> None:
    data = frame({"kind": "results"})
    assert list(Frames().feed(data[:-1])) == []


def test_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame of"):
        list(Frames().feed(LENGTH.pack(LARGEST + 1)))


def test_groups_come_out_as_they_went_in() -> None:
    model = SubjectRef("causal-lm", "own", "abc", path=os.fsdecode(b"/m\xf6del"), private=True)
    spec = TrialSpec(
        paper="p",
        measure="m",
        arm="a",
        point={"n": 4, "x": 0.1, "name": "é"},
        seed=1000,
        size={"steps": 600, "layers": [1, 2]},
        subjects={"model": model},
        tuned={"lr": 1e-3},
        company=("a", "b"),
        threads=2,
    )
    group = Group(
        specs=(spec,),
        folder=Path(os.fsdecode(b"/shelf/gr\xf6sse")),
        metrics=("x", "y"),
        timing=True,
        method="a",
        listed=True,
        time_limit=float("inf"),
        memory_limit=1.5e9,
    )
    (message,) = Frames().feed(frame(group_to_message(group)))
    assert group_from_message(message) == group
    assert group_from_message(message).key == group.key
