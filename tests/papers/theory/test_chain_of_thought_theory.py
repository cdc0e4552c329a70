"""Chain of thought: problems and their derivations, judged by independent references."""

from __future__ import annotations

import numpy as np
import pytest

from claimbench.errors import UserError
from claimbench.papers.theory import chain_of_thought_theory as cot
from claimbench.papers.theory.chain_of_thought_theory.checking import check_arithmetic, check_equations
from claimbench.papers.theory.chain_of_thought_theory.derivations import joined
from claimbench.papers.theory.chain_of_thought_theory.expressions import (
    apply_operators,
    arithmetic_words,
    rewritings,
)
from claimbench.papers.theory.chain_of_thought_theory.programmes import (
    edit_words,
    subsequence_words,
    write_edits,
    write_subsequences,
)
from claimbench.papers.theory.chain_of_thought_theory.systems import equation_words

DRAWS = [
    ("arithmetic", 1, 60),
    ("arithmetic", 6, 200),
    ("equations", 1, 60),
    ("equations", 3, 100),
    ("equations", 6, 20),
    ("subsequences", 3, 100),
    ("subsequences", 40, 60),
    ("edits", 4, 100),
    ("edits", 13, 60),
]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


@pytest.mark.parametrize(("task", "n", "count"), DRAWS)
def test_every_step_and_answer_is_right(task: str, n: int, count: int) -> None:
    given = cot.drawing(task, n)(count, rng(1))
    assert len(given) == count
    for row in range(count):
        found = cot.CHECKS[task](given.text(row))
        assert found.right, given.text(row)


@pytest.mark.parametrize("prime", [2, 3, 5, 7])
def test_other_fields(prime: int) -> None:
    sums, systems = cot.arithmetic(4, 100, rng(), prime=prime), cot.equations(3, 60, rng(), prime=prime)
    assert all(check_arithmetic(sums.text(row), prime).right for row in range(100))
    assert all(check_equations(systems.text(row), prime).right for row in range(60))


@pytest.mark.parametrize(("task", "n", "count"), DRAWS)
def test_a_wrong_number_anywhere_is_found(task: str, n: int, count: int) -> None:
    """Every number of a derivation, and the answer, is changed in turn."""
    given = cot.drawing(task, n)(1, rng(2))
    first = given.words.index("0")
    numbers = len(given.words) - first
    places = np.arange(int(given.prompt[0]), int(given.length[0]))
    for place in places[given.ids[0, places] >= first]:
        changed = given.ids[0].copy()
        changed[place] = first + (changed[place] - first + 1) % numbers
        text = " ".join(given.words[token] for token in changed[: given.length[0]])
        assert not cot.CHECKS[task](text).right


def test_vocabularies_have_the_published_sizes() -> None:
    assert len(arithmetic_words()) == 21
    assert len(equation_words(5)) == 22
    assert len(subsequence_words()) == 253
    assert len(edit_words(16)) == 91


def test_rewritings_are_what_the_published_rejection_sampling_draws() -> None:
    """The chance of each (number, sign, number) given a value, counted from the procedure itself, p = 3."""
    cumulative, choices = rewritings(3)
    assert cumulative.shape == (3, len(choices))
    generator = rng(4)
    for value in range(3):
        counts = np.zeros(len(choices))
        for _ in range(1500):
            counts[_published_choice(value, generator)] += 1
        chances = np.diff(cumulative[value], prepend=0.0)
        error = np.sqrt(np.abs(chances * (1 - chances)) / 1500)
        np.testing.assert_allclose(counts / 1500, chances, atol=5 * error.max())
        assert counts[chances < 1e-9].sum() == 0


def _published_choice(value: int, generator: np.random.Generator) -> int:
    while True:
        first, sign = int(generator.integers(3)), int(generator.integers(4))
        fits = [
            second
            for second in range(3)
            if (sign != 3 or second) and int(apply_operators(*np.array([first, sign, second]), 3)) == value
        ]
        if first == 0 and sign >= 2 and value == 0:
            second = int(generator.integers(3))  # any will do, but 0 / 0
            if second not in fits:
                continue
        elif len(fits) == 1:
            second = fits[0]
        else:
            continue
        return first * 12 + sign * 3 + second


def test_nothing_is_divided_by_zero() -> None:
    with pytest.raises(ValueError, match="no value mod 11"):
        cot.value_mod("3 / (5 - 5)", 11)
    with pytest.raises(ValueError, match="no value mod 11"):
        cot.value_mod("3 / (5 + 6)", 11)
    assert cot.value_mod("3 / 2 - (1 - 4) * 10", 11) == (3 * 6 + 30) % 11
    for text in ("3 +", "a + 1", "2 ** 3", "-3"):
        with pytest.raises(ValueError, match="no "):
            cot.value_mod(text, 11)


def test_elimination_rejects_what_has_no_single_solution() -> None:
    systems = np.array([[[1, 2, 3], [2, 4, 6]], [[0, 1, 4], [3, 0, 6]], [[0, 0, 0], [0, 1, 1]]])
    history, known = cot.eliminate(systems, 11)
    assert known.tolist() == [False, True, False]
    np.testing.assert_array_equal(history[1, -1], [[1, 0, 2], [0, 1, 4]])
    np.testing.assert_array_equal(history[1, 1], [[1, 0, 2], [0, 1, 4]])


def test_all_regular_systems_of_a_small_field_are_found() -> None:
    """2 unknowns mod 2: 6 regular matrices of 16, each with 4 right-hand sides."""
    every = np.array(np.unravel_index(np.arange(64), [2] * 6)).T.reshape(64, 2, 3)
    _, known = cot.eliminate(every, 2)
    assert known.sum() == 24
    assert len(cot.different(cot.drawing("equations", 2, prime=2), 24, rng())) == 24
    with pytest.raises(UserError, match="only 24 different"):
        cot.different(cot.drawing("equations", 2, prime=2), 25, rng())


def test_lengths_are_the_closed_forms_and_those_published() -> None:
    buffers = {"arithmetic": {4: 43, 5: 63, 6: 87}, "equations": {3: 91, 4: 181, 5: 316}}
    buffers |= {"subsequences": {50: 105, 80: 165, 100: 205}, "edits": {12: 212, 16: 344, 20: 508}}
    short = {"arithmetic": {4: 19, 5: 23, 6: 27}, "equations": {3: 46, 4: 73, 5: 106}}
    short |= {"subsequences": {50: 54, 80: 84, 100: 104}, "edits": {12: 31, 16: 39, 20: 47}}
    for task, sizes in buffers.items():
        for n, buffer in sizes.items():
            assert cot.longest(task, n) == buffer - 2
            assert cot.longest_direct(task, n) == short[task][n] - 2
    for task, n, count in DRAWS:
        given = cot.drawing(task, n)(count, rng(3))
        assert given.length.max() <= cot.longest(task, n)
        assert given.direct().length.max() <= cot.longest_direct(task, n)
        if task in ("equations", "subsequences"):
            assert set(given.length.tolist()) == {cot.longest(task, n)}
    assert cot.arithmetic(3, 4000, rng()).length.max() == cot.longest("arithmetic", 3)
    assert cot.edit_distances(6, 400, rng()).length.max() == cot.longest("edits", 6)


def test_the_first_system_has_the_tokens_of_the_brief() -> None:
    for unknowns in (1, 2, 5):
        assert cot.equations(unknowns, 1, rng()).prompt[0] == unknowns * (3 * unknowns + 2)


def test_a_row_without_derivation_has_the_same_prompt_and_answer() -> None:
    for task, n, count in DRAWS:
        given = cot.drawing(task, n)(count, rng(5))
        direct, filler = given.direct(), given.filler()
        assert given.prompts() == direct.prompts()
        rows = zip(given.records(), direct.records(), filler.records(), strict=True)
        for whole, short, empty in rows:
            assert short == {**whole, "derivation": ""}
            size = len(whole["derivation"].split())
            assert empty == {**short, "prompt": " ".join([whole["prompt"], *["..."] * size])}
        assert (filler.length == given.length).all()
        ends = given.ids[np.arange(count), given.length], direct.ids[np.arange(count), direct.length]
        assert all((end == given.end).all() for end in ends)
        assert (np.array([len(set(row)) for row in direct.ids[:, direct.length.max() + 1 :]]) <= 1).all()


def test_only_what_follows_the_prompt_is_supervised() -> None:
    given = cot.arithmetic(3, 50, rng())
    kept = given.supervised()
    for row in range(50):
        targets = given.ids[row, 1:][kept[row]]
        words = " ".join(given.words[token] for token in targets)
        record = next(given.take([row]).records())
        assert words == f"{record['derivation']} {record['answer']} <eos>".strip()


def test_problems_are_different_and_sets_disjoint() -> None:
    given = cot.drawing("arithmetic", 1)(2000, rng())
    once = given.unique()
    assert len(once) == len({given.text(row).split("=")[0] for row in range(2000)}) < 2000
    train, test = once.take(slice(0, 100)), given.without(once.take(slice(0, 100)))
    assert not set(train.prompts()) & set(test.prompts())
    assert len(joined([train, test])) == len(train) + len(test)
    with pytest.raises(UserError, match="vocabularies"):
        joined([given, cot.arithmetic(1, 3, rng(), prime=7)])


def test_noise_changes_its_share_of_the_numbers_and_no_answer() -> None:
    given = cot.equations(3, 400, rng())
    first = given.words.index("0")
    noisy = cot.corrupted(given, 0.2, rng(1), first)
    place = np.arange(given.ids.shape[1])
    steps = (place >= given.prompt[:, None]) & (place < given.answer[:, None])
    numbers = steps & (given.ids >= first)
    changed = noisy.ids != given.ids
    assert not changed[~numbers].any()
    assert changed[numbers].mean() == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / numbers.sum()))
    assert noisy.ids[changed].min() >= first
    assert (cot.corrupted(given, 0.0, rng(), first).ids == given.ids).all()
    with pytest.raises(UserError, match="rate 1.5"):
        cot.corrupted(given, 1.5, rng(), first)


def test_given_instances_are_written_as_they_are() -> None:
    one = write_subsequences(np.array([[3, 1, 4, 1, 5, 9, 2, 6]]), 10)
    assert one.text(0) == "3 1 4 1 5 9 2 6 <sep> 1 1 2 1 3 4 2 4 <sep> 4"
    cat, cart = np.array([[3, 1, 20]]), np.array([[3, 1, 18, 20]])
    pair = write_edits(cat, cart, np.array([3]), np.array([4]), 4)
    assert pair.text(0) == "c a t | c a r t <sep> 0 2 4 6 , 2 0 2 4 , 4 2 3 2 , <sep> 2"
    with pytest.raises(UserError, match="number_range 5"):
        write_subsequences(np.array([[3, 7, 4]]), 5)


def test_the_published_border_gives_no_edit_distance() -> None:
    """The published code counts 1, not 2, for a letter against the empty prefix: its tables differ from the costs'."""
    same = cot.edit_distances(8, 200, rng(), border=2)
    other = cot.edit_distances(8, 200, rng(), border=1)
    assert same.prompts() == other.prompts()
    wrong = [not cot.CHECKS["edits"](other.text(row)).answer for row in range(200)]
    assert 0 < sum(wrong) < 200


def test_sequences_have_planted_runs_and_pairs_of_strings_differ() -> None:
    given = cot.subsequences(30, 300, rng())
    numbers = given.ids[:, :30] - 3
    assert numbers.min() >= 31  # none of the table's
    assert numbers.max() < 250
    longest = given.ids[np.arange(300), given.answer] - 3
    assert np.median(longest) > 2 * np.sqrt(30)  # that of random sequences, about
    given = cot.edit_distances(10, 300, rng())
    for row in range(300):
        first, second = given.text(row).split(" <sep>")[0].split(" | ")
        sizes = len(first.split()), len(second.split())
        assert sizes[0] <= sizes[1]
        assert 7 <= sizes[0] <= 10 <= sizes[1] <= 12
        assert first != second


def knapsack() -> cot.Recurrence:
    """0/1 knapsack: prompt value weight value weight ... ; a cell is (items, capacity)."""
    capacity = 4
    return cot.Recurrence(
        draw=lambda generator: generator.integers(1, 4, size=6).tolist(),
        cells=lambda prompt: [
            (item, room) for item in range(1, len(prompt) // 2 + 1) for room in range(capacity + 1)
        ],
        value=lambda prompt, cell, known: max(
            known.get((cell[0] - 1, cell[1]), 0),
            known.get((cell[0] - 1, cell[1] - prompt[2 * cell[0] - 1]), 0) + prompt[2 * cell[0] - 2]
            if prompt[2 * cell[0] - 1] <= cell[1]
            else 0,
        ),
        answer=lambda prompt, known: known[len(prompt) // 2, capacity],
    )


def test_a_recurrence_of_ones_own() -> None:
    given = cot.own_derivations(knapsack(), 40, rng())
    for record in given.records():
        numbers = [int(token) for token in record["prompt"].split()[:-1]]
        items = [(numbers[2 * k], numbers[2 * k + 1]) for k in range(3)]
        sets = [[item for k, item in enumerate(items) if mask >> k & 1] for mask in range(8)]
        best = max(sum(v for v, _ in chosen) for chosen in sets if sum(w for _, w in chosen) <= 4)
        assert record["answer"] == str(best)
        assert len(record["derivation"].split()) == 16  # 15 cells and the separator
    assert given.words[:3] == ("<pad>", "<sep>", "<eos>")
    assert knapsack().lookups(rng()) == 2


def test_a_recurrence_that_reads_ahead_is_told_so() -> None:
    ahead = cot.Recurrence(
        draw=lambda generator: [1, 2],
        cells=lambda prompt: range(2),
        value=lambda prompt, cell, known: known[cell + 1],
        answer=lambda prompt, known: 0,
    )
    with pytest.raises(UserError, match="value of cell 0 reads cell 1"):
        cot.own_derivations(ahead, 1, rng())
    with pytest.raises(UserError, match="each a list"):
        cot.own_derivations(lambda generator: (1, 2), 1, rng())  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="empty prompt or answer"):
        cot.own_derivations(lambda generator: ([1], [2], []), 1, rng())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cot.arithmetic(0, 1, rng()), "operators 0"),
        (lambda: cot.arithmetic(2, 1, rng(), prime=9), "prime 9"),
        (lambda: cot.equations(0, 1, rng()), "unknowns 0"),
        (lambda: cot.subsequences(2, 1, rng()), "length 2"),
        (lambda: cot.subsequences(9, 1, rng(), number_range=3), "number_range 3"),
        (lambda: cot.edit_distances(3, 1, rng()), "length 3"),
        (lambda: cot.edit_distances(9, 1, rng(), letters=30), "letters 30"),
        (lambda: cot.drawing("sums", 3), 'no task "sums"'),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        call()
