"""Fragments of English that express 3SAT, both ways: formulas as theories, and theories back as formulas.

Richardson and Sabharwal, arXiv 2112.09054. A clause (l1 or l2 or l3) is a rule whose condition holds the first two
literals negated and whose conclusion is the third. Words are of this package, not the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from claimbench.errors import UserError, nearest

FRUITS = [
    "apple",
    "banana",
    "cherry",
    "grape",
    "lemon",
    "mango",
    "melon",
    "olive",
    "orange",
    "papaya",
    "peach",
    "pear",
    "pineapple",
    "plum",
    "quince",
    "raisin",
    "strawberry",
    "tangerine",
    "apricot",
    "blueberry",
    "coconut",
    "cranberry",
    "date",
    "fig",
    "gooseberry",
    "guava",
    "kiwi",
    "lime",
    "lychee",
    "mulberry",
    "nectarine",
    "pomegranate",
]
PEOPLE = [
    "Ann",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Iris",
    "Jack",
    "Karen",
    "Leo",
    "Maria",
    "Noah",
    "Olga",
    "Paul",
    "Quentin",
    "Rosa",
    "Sam",
    "Tina",
    "Ulrich",
    "Vera",
    "Walter",
    "Xenia",
    "Yves",
    "Zoe",
]
TRADES = [
    "baker",
    "carpenter",
    "doctor",
    "farmer",
    "gardener",
    "judge",
    "lawyer",
    "mechanic",
    "nurse",
    "painter",
    "pilot",
    "plumber",
    "poet",
    "sailor",
    "singer",
    "tailor",
    "teacher",
    "waiter",
    "writer",
    "actor",
    "architect",
    "artist",
    "engineer",
    "inventor",
    "optician",
    "author",
]


class Fragment(Protocol):
    """Sentences for formulas. `write` and `read` are inverse to each other."""

    def write(self, clauses: Sequence[Sequence[int]]) -> str:
        """A theory: sentences joined by ". "."""

    def read(self, theory: str) -> list[list[int]]:
        """Its clauses, over as many variables as the vocabulary has. Raises UserError for a sentence that is none."""


def article(noun: str) -> str:
    """`a baker`, `an actor`: by the first letter, which is right for the vocabularies here."""
    return f"{'an' if noun[0].lower() in 'aeiou' and not noun.startswith('uni') else 'a'} {noun}"


def _sentences(theory: str) -> list[str]:
    return [part.strip() for part in re.split(r"\.(?:\s+|$)", theory) if part.strip()]


def _check_vocabulary(words: Sequence[str]) -> None:
    if len(set(words)) < len(words) or not all(re.fullmatch(r"[\w-]+", word) for word in words):
        raise UserError("vocabulary: words must differ and hold letters, digits and hyphens alone")


@dataclass(frozen=True)
class GroundedRules:
    """The grounded rule language: `If no apple and banana then cherry` is (apple or not banana or cherry).

    words: one for each variable, in their order. Clauses of two literals have one condition.

        >>> GroundedRules().write([[1, -2, 3]])
        'If no apple and banana then cherry'
    """

    words: Sequence[str] = tuple(FRUITS)

    def __post_init__(self) -> None:
        _check_vocabulary(self.words)
        if {"If", "no", "and", "then"} & set(self.words):
            raise UserError("vocabulary: If, no, and, then are the fragment's own words")

    def _word(self, literal: int, positive: str = "{}", negative: str = "no {}") -> str:
        if abs(literal) > len(self.words):
            raise UserError(f"variable {abs(literal)}: the vocabulary has {len(self.words)} words; give more")
        return (positive if literal > 0 else negative).format(self.words[abs(literal) - 1])

    def write(self, clauses: Sequence[Sequence[int]]) -> str:
        rules = []
        for clause in clauses:
            if len(clause) not in (2, 3):
                raise UserError(f"clause {list(clause)}: a rule has 2 or 3 literals")
            conditions = " and ".join(self._word(-literal) for literal in clause[:-1])
            rules.append(f"If {conditions} then {self._word(clause[-1])}")
        return ". ".join(rules)

    def read(self, theory: str) -> list[list[int]]:
        return [self._rule(sentence) for sentence in _sentences(theory)]

    def _rule(self, sentence: str) -> list[int]:
        found = re.fullmatch(r"If (.+) then (.+)", sentence)
        if not found:
            raise UserError(f'"{sentence}": a rule reads "If no A and B then C"')
        conditions = [self._literal(part, sentence) for part in found[1].split(" and ")]
        return [*(-literal for literal in conditions), self._literal(found[2], sentence)]

    def _literal(self, part: str, sentence: str) -> int:
        word = part.strip()
        negative = word.startswith("no ")
        word = word.removeprefix("no ").strip()
        if word not in self.words:
            raise UserError(f'"{sentence}": no word "{word}" in the vocabulary{nearest(word, self.words)}')
        return (-1 if negative else 1) * (list(self.words).index(word) + 1)


@dataclass(frozen=True)
class SentenceRules:
    """The same with a person and a trade for each variable: `If Ann is not a baker and Ben is an actor then ...`.

    phrases: (person, trade) for each variable.
    """

    phrases: Sequence[tuple[str, str]] = tuple(zip(PEOPLE, TRADES, strict=True))

    def sentence(self, literal: int) -> str:
        """A literal as a sentence without its full stop: `Ann is not a baker`."""
        if abs(literal) > len(self.phrases):
            raise UserError(
                f"variable {abs(literal)}: the vocabulary has {len(self.phrases)} phrases; give more"
            )
        person, trade = self.phrases[abs(literal) - 1]
        return f"{person} is {'not ' if literal < 0 else ''}{article(trade)}"

    def write(self, clauses: Sequence[Sequence[int]]) -> str:
        return ". ".join(
            f"If {' and '.join(self.sentence(-literal) for literal in clause[:-1])} then {self.sentence(clause[-1])}"
            for clause in clauses
        )

    def read(self, theory: str) -> list[list[int]]:
        known = {
            self.sentence(sign * v): sign * v for v in range(1, len(self.phrases) + 1) for sign in (1, -1)
        }
        clauses = []
        for sentence in _sentences(theory):
            found = re.fullmatch(r"If (.+) then (.+)", sentence)
            parts = [*found[1].split(" and "), found[2]] if found else []
            if not found or not all(part in known for part in parts):
                raise UserError(
                    f'"{sentence}": a rule reads "If Ann is not a baker and Ben is an actor then ..."'
                )
            clauses.append([*(-known[part] for part in parts[:-1]), known[parts[-1]]])
        return clauses


@dataclass(frozen=True)
class RelativeTheory:
    """Rules over predicates, which hold for every individual, and facts about individuals.

    rules: clauses of three predicate literals. facts: (individual, clause of predicate literals). Predicates and
    individuals count from 1.
    """

    rules: list[list[int]]
    facts: list[tuple[int, list[int]]]

    def expand(self, predicates: int, individuals: int) -> list[list[int]]:
        """Facts and every rule for every individual, as propositional clauses: facts + rules * individuals of them.

        Predicate p of individual i is variable (i - 1) * predicates + p.
        """

        def ground(literal: int, individual: int) -> int:
            return (1 if literal > 0 else -1) * ((individual - 1) * predicates + abs(literal))

        facts = [[ground(literal, who) for literal in clause] for who, clause in self.facts]
        everyone = range(1, individuals + 1)
        return facts + [[ground(literal, who) for literal in rule] for rule in self.rules for who in everyone]


@dataclass(frozen=True)
class RelativeClauses:
    """The relative clause fragment: `Every baker who is not a doctor is a judge`, `No actor who is a pilot is a
    poet`, `Everyone who is not a nurse and a singer is a tailor`; facts `Ann is a baker or not a judge or a poet`.

        >>> RelativeClauses().write(RelativeTheory([[-1, 2, 3]], [(1, [1, -2, 3])]))
        'Every baker who is not a carpenter is a doctor. Ann is a baker or not a carpenter or a doctor'
    """

    trades: Sequence[str] = tuple(TRADES)
    people: Sequence[str] = tuple(PEOPLE)

    def __post_init__(self) -> None:
        _check_vocabulary(self.trades)
        _check_vocabulary(self.people)

    def _is(self, literal: int) -> str:
        if abs(literal) > len(self.trades):
            raise UserError(
                f"predicate {abs(literal)}: the vocabulary has {len(self.trades)} trades; give more"
            )
        return f"{'not ' if literal < 0 else ''}{article(self.trades[abs(literal) - 1])}"

    def write(self, theory: RelativeTheory) -> str:
        sentences = [self._rule(rule) for rule in theory.rules]
        for who, clause in theory.facts:
            if who > len(self.people):
                raise UserError(f"individual {who}: the vocabulary has {len(self.people)} people; give more")
            sentences.append(f"{self.people[who - 1]} is {' or '.join(map(self._is, clause))}")
        return ". ".join(sentences)

    def _rule(self, rule: Sequence[int]) -> str:
        if len(rule) != 3:
            raise UserError(f"rule {list(rule)}: 3 literals are needed")
        first, second, third = rule
        if first > 0:  # its condition is negative, for which there is no noun
            return f"Everyone who is {self._is(-first)} and {self._is(-second)} is {self._is(third)}"
        noun = self.trades[-first - 1]
        if third < 0:
            return f"No {noun} who is {self._is(-second)} is {self._is(-third)}"
        return f"Every {noun} who is {self._is(-second)} is {self._is(third)}"

    def read(self, text: str) -> RelativeTheory:
        """A theory's rules and facts. Raises UserError for a sentence of another form or with an unknown word."""
        rules: list[list[int]] = []
        facts: list[tuple[int, list[int]]] = []
        for sentence in _sentences(text):
            if found := re.fullmatch(r"Everyone who is (.+) and (.+) is (.+)", sentence):
                a, b, c = (self._literal(part, sentence) for part in found.groups())
                rules.append([-a, -b, c])
            elif found := re.fullmatch(r"(Every|No) ([\w-]+) who is (.+) is (.+)", sentence):
                a, b, c = (self._literal(part, sentence) for part in (article(found[2]), found[3], found[4]))
                rules.append([-a, -b, c if found[1] == "Every" else -c])
            elif (found := re.fullmatch(r"([\w-]+) is (.+)", sentence)) and found[1] in self.people:
                clause = [self._literal(part, sentence) for part in found[2].split(" or ")]
                facts.append((list(self.people).index(found[1]) + 1, clause))
            else:
                raise UserError(f'"{sentence}": no sentence of the relative clause fragment')
        return RelativeTheory(rules, facts)

    def _literal(self, part: str, sentence: str) -> int:
        found = re.fullmatch(r"(not )?an? ([\w-]+)", part.strip())
        if not found or found[2] not in self.trades:
            raise UserError(f'"{sentence}": "{part}" is no "(not) a TRADE" of the vocabulary')
        return (-1 if found[1] else 1) * (list(self.trades).index(found[2]) + 1)
