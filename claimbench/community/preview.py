"""A digest as a reader who subscribed a day or a week ago would get it, from what is stored; nothing is written."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from claimbench.community.digest import CANDIDATES, Digest, News, Statements, gather, last_day
from claimbench.community.letters import Letters, render
from claimbench.community.searches import Finds, holds_words
from claimbench.community.settings import MailSettings
from claimbench.community.store import Choices, Subscription
from claimbench.community.tokens import Keys, stamp, utc_now
from claimbench.feed.listing import from_row
from claimbench.feed.schema import LISTING, MEASURED
from claimbench.feed.settings import Settings
from claimbench.feed.store import PageStore
from claimbench.feed.trending import rank

ADDRESS = "https://papers.example.org"  # where the settings name none


def preview_digest(
    store: PageStore,
    settings: Settings,
    choices: Choices,
    statements: Statements,
    now: datetime | None = None,
    finds: Finds = holds_words,
) -> tuple[str, str]:
    """The text and the HTML form."""
    moment = now or utc_now()
    since = moment - timedelta(days=1 if choices.every == "day" else 7)
    nobody = Subscription("preview", "", choices, "active", 0, stamp(since))
    digest: Digest = gather(
        nobody,
        lambda window: (
            rank(
                store, settings.score, window=window, day=last_day(moment), limit=CANDIDATES, now=moment
            ).papers
        ),
        lambda _: _judged_since(store, since),
        0,
        moment,
        finds,
    )
    mail = settings.mail or MailSettings(host="localhost", sender="papers@example.org")
    address = settings.community.address or ADDRESS
    letters = Letters(mail, Keys("preview"), address, statements)
    view = letters.view(digest, choices, f"{address}/unsubscribe?t=PREVIEW")
    return render("mail/digest.txt", view), render("mail/digest.html", view)


def _judged_since(store: PageStore, since: datetime) -> list[News]:
    query = (
        sa.select(MEASURED.c.claim, MEASURED.c.scale, MEASURED.c.state, MEASURED.c.judged, LISTING)
        .join(LISTING, LISTING.c.id == MEASURED.c.listing)
        .where(MEASURED.c.judged > stamp(since), LISTING.c.hidden == 0)
        .order_by(MEASURED.c.judged, MEASURED.c.set_uid)
    )
    with store.read() as connection:
        return [
            News(place, from_row(row), row.claim, row.scale, row.state, row.judged)
            for place, row in enumerate(connection.execute(query), 1)
        ]
