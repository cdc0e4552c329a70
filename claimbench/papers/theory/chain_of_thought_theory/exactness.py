"""Whether the hand-made transformers are right, how many bits they need, and how deep a direct answer must be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from claimbench.papers.theory.chain_of_thought_theory import direct
from claimbench.papers.theory.chain_of_thought_theory.arithmetic_program import arithmetic_program
from claimbench.papers.theory.chain_of_thought_theory.checking import CHECKS, check_arithmetic
from claimbench.papers.theory.chain_of_thought_theory.derivations import Derivations
from claimbench.papers.theory.chain_of_thought_theory.machine import HandMade, Program
from claimbench.papers.theory.chain_of_thought_theory.programs import edit_program, subsequence_program

MOST_BITS = 52


def program_for(task: str, words: tuple[str, ...], time: int) -> Program:
    """The transformer that writes a task's derivations, for a vocabulary and texts of up to `time` tokens.

    Raises ValueError for equations, whose transformer is not built here.
    """
    match task:
        case "arithmetic":
            return arithmetic_program(len(words) - 10, time)
        case "subsequences":
            return subsequence_program(len(words) - 3, time)
        case "edits":
            return edit_program(len(words), time)
        case _:
            raise ValueError(f"no hand-made transformer writes {task}")


@dataclass(frozen=True)
class Written:
    """What a machine wrote: ids [count, time]; the text of each row up to its end; how many texts are right."""

    ids: Int[Tensor, "count time"]
    texts: list[str]
    right: int


def write(machine: HandMade, task: str, given: Derivations, time: int) -> Written:
    """Let the machine continue each prompt, token by token, and judge every step of what it wrote from its text."""
    prompts = torch.from_numpy(given.ids[:, : int(given.prompt.max())].astype(np.int64))
    ids = machine.generate(prompts, torch.from_numpy(given.prompt), time)
    texts = []
    for row in ids.tolist():
        ended = row.index(given.end) if given.end in row else len(row)
        texts.append(" ".join(given.words[token] for token in row[:ended]))
    prime = len(given.words) - 10
    judged = [check_arithmetic(text, prime) if task == "arithmetic" else CHECKS[task](text) for text in texts]
    return Written(ids, texts, sum(found.right for found in judged))


def fewest_bits(
    program: Program, ids: Int[Tensor, "count time"], prompts: Int[np.ndarray, " count"], end: int
) -> int:
    """The fewest bits of mantissa with which a machine writes these texts again, by bisection; 53 if 52 are too few.

    Each token is predicted from the text before it. As all predictions are right, so is what is written freely.
    """
    place = torch.arange(1, ids.shape[1])
    ends = (ids == end).int().argmax(1)
    counted = (place >= torch.from_numpy(prompts)[:, None]) & (place <= ends[:, None])

    def right(bits: int) -> bool:
        found = HandMade(program, bits=bits).predictions(ids[:, :-1])
        return bool(((found == ids[:, 1:]) | ~counted).all())

    low, high = 2, MOST_BITS + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if right(middle) else (middle + 1, high)
    return high


def rounds_right(
    task: str, given: Derivations, row: int, *, doubling: bool = False
) -> tuple[list[bool], int]:
    """Whether a direct answer is right after each round, and after how many rounds it is right for good."""
    words, ids = given.words, given.ids[row]
    prompt = [words[token] for token in ids[: given.prompt[row] - 1]]
    answer = words[ids[given.answer[row]]]
    if task == "subsequences":
        sequence = np.array([int(token) for token in prompt])
        rounds = direct.subsequence_doubling if doubling else direct.subsequence_rounds
        right = [str(value) == answer for value in rounds(sequence)]
    elif task == "edits":
        bar = prompt.index("|")
        first, second = np.array(prompt[:bar]), np.array(prompt[bar + 1 :])
        found = (direct.edit_doubling if doubling else direct.edit_rounds)(first, second)
        right = [str(value) == answer for value in found]
    else:
        right = [line == [answer] for line in direct.arithmetic_rounds(prompt, len(words) - 10)]
    settled = len(right) - next((k for k, ok in enumerate(reversed(right)) if not ok), len(right))
    return right, settled + (not doubling)
