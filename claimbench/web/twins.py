"""A page's `.json` twin: its view as plain data. Drawings are left out; the numbers they show are there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel

from claimbench.report import ReportRow
from claimbench.rules.verdict import Verdict


def plain(value: Any) -> Any:
    """Data for any JSON writer. NaN and infinities become {"$float": "nan"}, as in the ledger."""
    if isinstance(value, ReportRow | Verdict):
        return plain(value.to_json())
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json", exclude={"folder"}))
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(found)
            for field in fields(value)
            if not isinstance(found := getattr(value, field.name), Markup)
        }
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def encode(value: Any) -> bytes:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
