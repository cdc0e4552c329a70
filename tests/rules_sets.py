"""Claims and sets to judge, for the tests of the rules."""

from claimbench.paper import Claim
from claimbench.rules import Judged

KINDS = {"mean": {}, "proportion": {"items": 100}, "jumpy": {}, "exact": {}, "time": {}}


def claim(rules, *, kind="mean", metric=None, points=(1,), baselines=("base",), timing=None, **more):
    fields = {
        "id": "claim",
        "statement": "s",
        "method": "ours",
        "baselines": list(baselines),
        "metrics": {"m": {"kind": kind, **KINDS[kind], **(metric or {})}},
        "sweep": {"n": list(points)},
        "varies": ["seed"],
        "rules": rules if isinstance(rules, list) else [rules],
        "caveat": "none",
        "timing": kind == "time" if timing is None else timing,
        "scales": {"quick": {}, "smoke": {}},
    }
    return Claim.model_validate({**fields, **more})


def trials(values, *, points=(1,), first=1000, aa=None):
    """values: arm -> (seeds, points)."""
    return [
        Judged(arm, {"n": n}, first + s, "ok", {"m": float(array[s][p])}, aa=aa)
        for arm, array in values.items()
        for s in range(len(array))
        for p, n in enumerate(points)
    ]


def one(values, **more):
    """A set with one point from arm -> one value a seed."""
    return trials({arm: [[v] for v in column] for arm, column in values.items()}, **more)


DIFFERENCE = {"effect": "difference", "metric": "m", "against": "base", "at_least": 0.0}
VALUE = {"effect": "value", "metric": "m", "at_least": 0.0}
