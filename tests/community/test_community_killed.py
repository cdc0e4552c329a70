"""A sender is killed at every step it makes: no letter is accepted twice, and no verdict is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from readers import DAY, NOW, Mailing, judge, subscribe
from smtp_server import PASSWORD, text_of


def test_a_sender_killed_at_any_step_sends_nothing_twice_and_loses_nothing(mailing: Mailing) -> None:
    subscribe(mailing.store, "reader@example.net", NOW - DAY)
    judge(mailing.store, "claim-one")
    mailing.compose()
    with (
        closing(sqlite3.connect(mailing.folder / "page.sqlite")) as page,
        closing(sqlite3.connect(mailing.folder / "before.sqlite")) as copy,
    ):
        page.backup(copy)
    orders = mailing.folder / "orders.json"
    orders.write_text(
        json.dumps(
            {
                "mail": mailing.settings.model_dump(),
                "folder": str(mailing.folder),
                "page": str(mailing.folder / "before.sqlite"),
                "password": PASSWORD,
            }
        )
    )
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed.py")), str(orders)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert outcomes[-1]["ended"]
    fates: Counter[str] = Counter()
    for outcome in outcomes:
        letters = mailing.inbox.to(f"step{outcome['step']}@example.net")
        names = [letter["Message-ID"] for letter in letters]
        assert len(names) == len(set(names)), outcome
        texts = [text_of(letter) for letter in letters]
        assert any("claim-one" in text for text in texts), outcome
        assert any("claim-two" in text for text in texts), outcome
        (_, first, _), (_, second, _) = outcome["letters"]
        assert second == "accepted", outcome
        assert outcome["told"] == 2, outcome
        if first == "in doubt":
            assert "claim-one" in texts[-1], outcome
            fates[f"in doubt, accepted {len(letters) - 1}"] += 1
        else:
            assert first == "accepted", outcome
            assert len(letters) == 2, outcome
            assert "claim-one" not in texts[1], outcome
            fates[first] += 1
    # Both sides of the final dot were met: killed with the server having nothing, and with it having the letter.
    assert fates["in doubt, accepted 0"] >= 1
    assert fates["in doubt, accepted 1"] >= 1
    assert fates["accepted"] >= 15
