"""The append-only store of trials, and the sets and verdicts that refer to them.

SQLite (WAL, BEGIN IMMEDIATE, busy timeout) by default. A trial's row is written once and never changed; a set's
members point at the rows that count for it, so that a verdict is a function of one set and nothing else.
The ledger holds names, numbers and hashes, never code or pickles.
"""

from claimbench.ledger.database import Unreachable, default_url
from claimbench.ledger.leases import LEASE_SECONDS
from claimbench.ledger.planned import PlannedRow
from claimbench.ledger.rows import JSON_COLUMNS, SetRow, moment, spec_of
from claimbench.ledger.schema import (
    CODE,
    ENVIRONMENT,
    MEMBER,
    SCHEMA_VERSION,
    SUMMARY,
    TRIAL,
    TRIAL_SET,
    VERDICT,
)
from claimbench.ledger.store import Ledger
from claimbench.ledger.verdicts import SetSummary

__all__ = [
    "CODE",
    "ENVIRONMENT",
    "JSON_COLUMNS",
    "LEASE_SECONDS",
    "MEMBER",
    "SCHEMA_VERSION",
    "SUMMARY",
    "TRIAL",
    "TRIAL_SET",
    "VERDICT",
    "Ledger",
    "PlannedRow",
    "SetRow",
    "SetSummary",
    "Unreachable",
    "default_url",
    "moment",
    "spec_of",
]
