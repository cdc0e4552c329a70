"""What a user typed, taken apart: words, "phrases" and filters; any text at all is a query, and none is an error.

Filters are `group:NAME`, `verdict:STATE`, `author:NAME` and `year:` with 2023, 2020-2023, >=2021, <2020; a value with
spaces is quoted (`author:"Yoshua Bengio"`). An unknown filter is words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST = 400  # characters of a query that are read
MOST_TERMS = 32

_PART = re.compile(
    r'(?:(?P<filter>group|year|verdict|author):)?(?:"(?P<quoted>[^"]*)"?|(?P<bare>[^\s"]+))', re.I
)
_SPACED = re.compile(r"(?P<filter>group|year|verdict|author):(?P<value>[^\"]*\s[^\"]*)", re.I)
_TOKEN = re.compile(r"[^\W_]+")
_YEARS = re.compile(r"(?:(?P<sign>[<>]=?|=)?(?P<year>\d{4})|(?P<first>\d{4})?(?:-|\.\.)(?P<last>\d{4})?)")

_STOP_WORDS = """
a about all also an and any are as at be been but by can could did do does for from had has have how i if in into is it
its me my no not of on one or our should so some than that the their them then there these they this to very was we were
what when where which while who whose why will with without would you your paper papers
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Term:
    """One word, or the words of a phrase. `open_ended`: the user may still be typing it."""

    tokens: tuple[str, ...]
    phrase: bool = False
    open_ended: bool = False


@dataclass(frozen=True)
class Query:
    """`text`: the words as typed, for the encoder. Filters: one of each kind must hold, and every kind."""

    text: str
    terms: tuple[Term, ...]
    groups: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    authors: tuple[tuple[str, ...], ...] = ()
    years: tuple[tuple[int, int], ...] = ()

    @property
    def has_filters(self) -> bool:
        return bool(self.groups or self.verdicts or self.authors or self.years)

    def telling(self) -> tuple[Term, ...]:
        """The terms without stop words, unless there is nothing else."""
        return tuple(t for t in self.terms if t.phrase or t.tokens[0] not in STOP_WORDS) or self.terms


def joined(arguments: Iterable[str]) -> str:
    """A query from a command's arguments: the shell took the quotes from `author:"Yoshua Bengio"`."""
    return " ".join(
        f'{found["filter"]}:"{found["value"]}"' if (found := _SPACED.fullmatch(argument)) else argument
        for argument in arguments
    )


def tokens(text: str) -> list[str]:
    """Lower-case words without marks: letters and digits, as the index's tokenizer cuts them."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return [found.lower() for found in _TOKEN.findall(plain)]


def parse(text: str) -> Query:
    """The query in a text, of which at most LONGEST characters and MOST_TERMS terms are read. Never raises."""
    text = "".join(c if c.isprintable() else " " for c in text[:LONGEST]).rstrip("\ud800")
    terms: list[Term] = []
    shown: list[str] = []
    groups: list[str] = []
    verdicts: list[str] = []
    authors: list[tuple[str, ...]] = []
    years: list[tuple[int, int]] = []
    for part in _PART.finditer(text):
        kind = (part["filter"] or "").lower()
        quoted = part["quoted"] is not None
        value = part["quoted"] if quoted else part["bare"]
        span = _year_span(value) if kind == "year" else None
        if span is not None:
            years.append(span)
        elif kind in ("group", "verdict") and value.strip():
            (groups if kind == "group" else verdicts).append(value.strip().lower())
        elif kind == "author" and tokens(value):
            authors.append(tuple(tokens(value)))
        else:
            words = tokens(part[0] if kind else value)
            shown.append(value if not kind else part[0])
            if quoted and not kind and words:
                terms.append(Term(tuple(words), phrase=len(words) > 1))
            else:
                terms += [Term((word,)) for word in words]
    terms = terms[:MOST_TERMS]
    if terms and not terms[-1].phrase and len(terms[-1].tokens[0]) > 1 and text[-1:].isalnum():
        terms[-1] = Term(terms[-1].tokens, open_ended=True)
    return Query(
        text=" ".join(shown).strip(),
        terms=tuple(terms),
        groups=tuple(groups),
        verdicts=tuple(verdicts),
        authors=tuple(authors),
        years=tuple(years),
    )


def _year_span(value: str) -> tuple[int, int] | None:
    """First and last year that a filter lets through, or None where it names no years."""
    found = _YEARS.fullmatch(value.strip())
    if found is None or not any(found.group("year", "first", "last")):
        return None
    if found["year"]:
        year = int(found["year"])
        return {
            "<": (0, year - 1),
            "<=": (0, year),
            ">": (year + 1, 9999),
            ">=": (year, 9999),
        }.get(found["sign"] or "", (year, year))
    return int(found["first"] or 0), int(found["last"] or 9999)
