"""How often somebody may ask: counts in the store, shared by all of the page's processes, under keyed hashes."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from claimbench.community.schema import RATE
from claimbench.community.tokens import Keys, stamp
from claimbench.feed.store import PageStore


def allow(store: PageStore, keys: Keys, kind: str, who: str, most: int, now: datetime) -> bool:
    """Count one more in this hour. False beyond `most`."""
    name, span = keys.digest(f"rate {kind}", who), f"{now:%Y-%m-%dT%H}"
    where = (RATE.c.who == name) & (RATE.c.span == span)
    with store.write() as connection:
        count = connection.scalar(sa.select(RATE.c.count).where(where))
        if count is None:
            row = {"who": name, "span": span, "count": 1, "expires": stamp(now + timedelta(hours=1))}
            connection.execute(RATE.insert().values(**row))
        elif count < most:
            connection.execute(RATE.update().where(where).values(count=RATE.c.count + 1))
        return (count or 0) < most
