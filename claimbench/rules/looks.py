"""At how many seeds a set may be looked at: what the kinds of the deciding metrics need."""

from __future__ import annotations

from claimbench.paper import Claim

MEAN_LOOKS, SIGN_LOOKS, EXACT_LOOKS = (5, 8, 12), (6, 9, 12), (2,)


def schedule(claim: Claim) -> tuple[int, ...]:
    """The numbers of seeds at which the claim's sets may be judged: what its deciding rules' metrics need."""
    kinds = {claim.metrics[rule.metric].kind for rule in [*claim.rules, *claim.given] if rule.bounded}
    if claim.timing or kinds & {"jumpy", "time"}:
        return SIGN_LOOKS
    return EXACT_LOOKS if kinds == {"exact"} else MEAN_LOOKS
