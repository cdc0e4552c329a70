"""How many tokens a derivation takes, in closed form, and what generating them costs (arXiv 2305.15408, section 5).

Derived here from the texts' grammar; two less than the buffers of the published training instructions, which have
room for an end token and one of padding.
"""

from __future__ import annotations

TASKS = ("arithmetic", "equations", "subsequences", "edits")


def longest(task: str, n: int) -> int:
    """The most tokens of prompt, derivation and answer. n: operators, unknowns, numbers or letters.

    Arithmetic: lines of at most 4k - 1 tokens for k operators, and their signs of equality: 2n^2 + 2n + 1. Equations:
    3n(n + 1)(n + 2)/2 - 1, for every system. LIS: 2n + 3, always. ED: ab + 2a + b + 4 for strings of a and b letters,
    at most n^2 + 5n + 6.
    """
    match task:
        case "arithmetic":
            return 2 * n * n + 2 * n + 1
        case "equations":
            return 3 * n * (n + 1) * (n + 2) // 2 - 1
        case "subsequences":
            return 2 * n + 3
        case "edits":
            return n * n + 5 * n + 6
        case _:
            raise ValueError(f"no task {task}; there are {', '.join(TASKS)}")


def longest_direct(task: str, n: int) -> int:
    """The most tokens of prompt and answer alone."""
    match task:
        case "arithmetic":
            return 4 * n + 1
        case "equations":
            return n * (3 * n + 2) + 4 * n - 1
        case "subsequences":
            return n + 2
        case "edits":
            return 2 * n + 5
        case _:
            raise ValueError(f"no task {task}; there are {', '.join(TASKS)}")


def leading(task: str) -> tuple[int, float]:
    """The growth of `longest` for large n: (power, factor), so that it tends to factor x n^power."""
    return {"arithmetic": (2, 2.0), "equations": (3, 1.5), "subsequences": (1, 2.0), "edits": (2, 1.0)}[task]


def cache_bytes(tokens: int, *, layers: int = 3, width: int = 256, bytes_each: int = 2) -> int:
    """Keys and values of so many tokens; the defaults are the paper's model in 16 bits."""
    return 2 * layers * width * tokens * bytes_each
