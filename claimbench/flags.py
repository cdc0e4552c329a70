"""Words of the command line as values: pairs, times, sizes of memory. Each mistake names its flag and the fix."""

from __future__ import annotations

from claimbench.errors import UserError


def pairs(flag: str, given: list[str] | None) -> list[tuple[str, str]]:
    out = []
    for item in given or []:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise UserError(f'{flag}: "{item}" is not NAME=VALUE')
        out.append((name.replace("-", "_") if flag != "--subject" else name, value))
    return out


def quantity(flag: str, text: str | None, units: dict[str, float], example: str) -> float | None:
    if text is None:
        return None
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(number) :].strip().lower()
    try:
        value = float(number) * units[unit]
    except (ValueError, KeyError):
        raise UserError(f'{flag}: "{text}" is not understood; write it like {example}') from None
    if not 0 < value < float("inf"):
        raise UserError(f'{flag}: "{text}" must be above zero')
    return value


def seconds(text: str | None) -> float | None:
    return quantity("--time-limit", text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}, "90s, 5m or 1h")


def size(text: str | None) -> float | None:
    units = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    return quantity("--memory-limit", text, units, "4GiB or 500MB")


def states(text: str) -> set[str]:
    states = {part.strip() for part in text.split(",") if part.strip()}
    for state in states - {"holds", "fails", "undecided"}:
        raise UserError(f'--fail-on: "{state}" is none of holds, fails, undecided')
    return states
