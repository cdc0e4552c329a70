"""Chain of thought: transformers made by hand, and the depth of direct answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from claimbench.papers.theory import chain_of_thought_theory as cot
from claimbench.papers.theory.chain_of_thought_theory import direct
from claimbench.papers.theory.chain_of_thought_theory.checking import check_arithmetic
from claimbench.papers.theory.chain_of_thought_theory.exactness import (
    fewest_bits,
    program_for,
    rounds_right,
    write,
)
from claimbench.papers.theory.chain_of_thought_theory.machine import (
    bump,
    copy_best,
    copy_from,
    mean,
    rounded,
    step,
)
from claimbench.papers.theory.chain_of_thought_theory.programmes import write_edits, write_subsequences
from claimbench.papers.theory.chain_of_thought_theory.programs import places

SIZES = [("arithmetic", 5, 24), ("subsequences", 14, 24), ("edits", 7, 16)]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


def small(layers: list, logits: dict, time: int = 12) -> cot.HandMade:
    """A machine over two words, of which word 1 has a mark."""
    program = cot.Program([{}, {"mark": 1.0}], places(time), layers, logits)
    return cot.HandMade(program)


def outcome(heads: list, units: list, form: dict, ids: list[int]) -> np.ndarray:
    """What a form of one layer's stream is at each position: read off the logit of word 0."""
    machine = small([(heads, units)], {0: form})
    return machine.logits(torch.tensor([ids]))[0, :, 0].numpy()


def test_copy_reads_its_target_and_the_best() -> None:
    ids = [0, 1, 1, 0, 1, 0, 0]
    target = {"position": 1.0, "one": -2.0}
    found = outcome([copy_from(target, {"read": {"position": 1.0}}, 60.0)], [], {"read": 1.0}, ids)
    np.testing.assert_allclose(found, [0, 0, 0, 1, 2, 3, 4], atol=1e-9)
    last_mark = copy_best({"mark": 20.0, "position": 1.0}, {"read": {"position": 1.0}}, 60.0)
    found = outcome([last_mark], [], {"read": 1.0}, ids)
    np.testing.assert_allclose(found, [0, 1, 2, 2, 4, 4, 4], atol=1e-9)


def test_mean_counts() -> None:
    ids = [0, 1, 1, 0, 1, 0, 0]
    found = outcome([mean({"read": {"mark": 1.0}})], [], {"read": 1.0}, ids)
    np.testing.assert_allclose(found, np.cumsum(ids) / np.arange(1, 8), atol=1e-12)


def test_steps_and_bumps() -> None:
    form = {"position": 1.0, "one": -3.0}
    found = outcome([], step(form, "flag"), {"flag": 1.0}, [0] * 7)
    np.testing.assert_allclose(found, [0, 0, 0, 0, 1, 1, 1])
    found = outcome([], bump(form, "flag"), {"flag": 1.0}, [0] * 7)
    np.testing.assert_allclose(found, [0, 0, 0, 1, 0, 0, 0])


@pytest.mark.parametrize("bits", [3, 11, 24, 52])
def test_rounding_is_to_the_nearest_with_so_many_bits(bits: int) -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e3
    near = rounded(x, bits)
    mantissa, exponent = torch.frexp(x)
    expected = torch.ldexp(torch.round(mantissa * 2.0**bits) / 2.0**bits, exponent)
    torch.testing.assert_close(near, expected, rtol=0, atol=0)
    assert ((near - x).abs() <= x.abs() * 2.0**-bits).all()
    if bits == 24:
        torch.testing.assert_close(near, x.float().double(), rtol=0, atol=0)


@pytest.mark.parametrize(("task", "n", "count"), SIZES)
def test_machines_write_without_an_error(task: str, n: int, count: int) -> None:
    given = cot.drawing(task, n, number_range=40)(count, rng(1))
    time = cot.longest(task, n) + 2
    machine = cot.HandMade(program_for(task, given.words, time))
    written = write(machine, task, given, time)
    assert written.right == count
    if task != "arithmetic":  # these derivations are the only ones
        assert written.texts == [given.text(row) for row in range(count)]
    assert machine.depth <= 4
    assert machine.heads <= 5


@pytest.mark.parametrize(("task", "n", "count"), SIZES)
def test_writing_token_by_token_is_predicting_all_at_once(task: str, n: int, count: int) -> None:
    given = cot.drawing(task, n, number_range=40)(3, rng(2))
    time = cot.longest(task, n) + 2
    machine = cot.HandMade(program_for(task, given.words, time))
    ids = write(machine, task, given, time).ids
    predicted = machine.predictions(ids[:, :-1])
    for row in range(3):
        ends = ids[row].tolist().index(given.end)
        start = int(given.prompt[row])
        assert torch.equal(predicted[row, start - 1 : ends], ids[row, start : ends + 1])


@pytest.mark.parametrize(("task", "n", "count"), SIZES)
def test_bits_that_suffice_are_the_fewest(task: str, n: int, count: int) -> None:
    given = cot.drawing(task, n, number_range=40)(3, rng(3))
    time = cot.longest(task, n) + 2
    program = program_for(task, given.words, time)
    ids = write(cot.HandMade(program), task, given, time).ids
    bits = fewest_bits(program, ids, given.prompt, given.end)
    assert 8 < bits < 50

    def wrong(bits: int) -> int:
        """Texts that are written with a wrong step or answer, token by token."""
        return len(given) - write(cot.HandMade(program, bits=bits), task, given, time).right

    assert wrong(bits) == 0
    assert wrong(bits - 1) > 0
    # What is needed grows with the logarithm of the largest score: three times that of the text's length, and some.
    assert bits <= 3 * np.log2(time) + 14


def test_sizes_do_not_depend_on_the_length() -> None:
    for task in ("arithmetic", "subsequences", "edits"):
        machines = [
            cot.HandMade(program_for(task, cot.drawing(task, 6, number_range=40)(1, rng()).words, time))
            for time in (40, 400)
        ]
        small, large = ((m.depth, m.heads, m.width, m.hidden) for m in machines)
        assert small == large
        assert machines[0].largest_weight < machines[1].largest_weight


def test_every_expression_of_two_operators_mod_2() -> None:
    """All strings `a op b op c`, brackets on either side or none, whose value exists: judged step by step."""
    words = cot.arithmetic(1, 1, rng(), prime=2).words
    known = {word: place for place, word in enumerate(words)}
    texts = []
    for a, b, c in itertools.product("01", repeat=3):
        for p, q in itertools.product("+-*/", repeat=2):
            texts += [f"{a} {p} {b} {q} {c}"]
            texts += [f"( {a} {p} {b} ) {q} {c}"] * (p in "+-" and q in "*/")
            texts += [f"{a} {p} ( {b} {q} {c} )"] * (p == "/" or (q in "+-" and p in "*-"))
    kept = []
    for text in texts:
        try:
            cot.value_mod(text, 2)
            kept.append(f"{text} =".split())
        except ValueError:
            continue
    assert len(kept) > 100
    prompts = torch.zeros(len(kept), 9, dtype=torch.long)
    for row, tokens in enumerate(kept):
        prompts[row, : len(tokens)] = torch.tensor([known[token] for token in tokens])
    machine = cot.HandMade(cot.arithmetic_program(2, 20))
    ids = machine.generate(prompts, torch.tensor([len(tokens) for tokens in kept]), 16)
    for row in ids.tolist():
        text = " ".join(words[token] for token in row[: row.index(2)])
        assert check_arithmetic(text, 2).right, text


def test_every_short_pair_of_strings_and_every_permutation() -> None:
    strings = [np.array(s) for k in (1, 2, 3) for s in itertools.product([1, 2], repeat=k)]
    pairs = [(a, b) for a in strings for b in strings if len(a) <= len(b)]
    first = np.array([np.pad(a, (0, 3 - len(a))) for a, _ in pairs])
    second = np.array([np.pad(b, (0, 3 - len(b))) for _, b in pairs])
    sizes = np.array([[len(a), len(b)] for a, b in pairs])
    given = write_edits(first, second, sizes[:, 0], sizes[:, 1], 4)
    machine = cot.HandMade(cot.edit_program(len(given.words), 30))
    assert write(machine, "edits", given, 30).right == len(pairs)
    orders = np.array(list(itertools.product(range(1, 5), repeat=4)))
    given = write_subsequences(orders, 6)
    machine = cot.HandMade(cot.subsequence_program(6, 14))
    assert write(machine, "subsequences", given, 14).right == len(orders)


def test_a_machine_cannot_read_what_nothing_writes() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        small([([], step({"nowhere": 1.0}, "flag"))], {0: {"flag": 1.0}})


@pytest.mark.parametrize("task", ["arithmetic", "subsequences", "edits"])
def test_rounds_end_with_the_answer_and_a_chain_needs_them_all(task: str) -> None:
    given = cot.drawing(task, 9, number_range=60)(20, rng(4))
    for row in range(20):
        right, settled = rounds_right(task, given, row)
        assert right[-1]
        assert 1 <= settled <= len(right)
    assert len(direct.arithmetic_rounds(list("1+1+1+1+1+1"), 11)) == 5
    assert direct.arithmetic_rounds(["(", "1", "+", "1", ")", "*", "(", "2", "+", "5", ")"], 11) == [
        ["2", "*", "7"],
        ["3"],
    ]
    assert direct.subsequence_rounds(np.arange(7)) == [1, 2, 3, 4, 5, 6, 7]
    letters = np.zeros(6, dtype=int)
    assert len(direct.edit_rounds(letters, letters + 1)) >= 6


@pytest.mark.parametrize("task", ["subsequences", "edits"])
def test_doubling_gives_the_same_answers_in_logarithmic_depth(task: str) -> None:
    for n in (5, 16, 33):
        given = cot.drawing(task, n, number_range=90)(6, rng(n))
        for row in range(6):
            right, settled = rounds_right(task, given, row, doubling=True)
            assert right[-1]
            assert settled <= np.ceil(np.log2(n)) + 1
    lines = np.arange(17)
    assert direct.subsequence_doubling(lines) == [2, 3, 5, 9, 17]
