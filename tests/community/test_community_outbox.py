"""Letters over a real server that fails: retried, refused, stopped or in doubt, and never twice."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import pytest
from readers import DAY, KEYS, NOW, Mailing, judge, states, subscribe
from smtp_server import HANG_UP, text_of

from claimbench.community.smtp import dotted
from claimbench.community.store import active, unsubscribe

READER = "reader@example.net"


@pytest.fixture
def due(mailing: Mailing) -> Mailing:
    """One subscriber with a digest that tells one verdict."""
    subscribe(mailing.store, READER, NOW - DAY)
    judge(mailing.store, "claim-one")
    assert mailing.compose()["queued"] == 1
    return mailing


def test_a_digest_arrives_once_in_both_forms_with_the_headers(due: Mailing) -> None:
    assert due.send().accepted == 1
    assert due.send(NOW + DAY).accepted == 0
    (message,) = due.inbox.to(READER)
    assert message["To"] == READER
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    found = re.fullmatch(r"<https://papers\.example\.org/unsubscribe\?t=(\S+)>", message["List-Unsubscribe"])
    assert found
    assert KEYS.read("unsubscribe", found[1], now=NOW + 300 * DAY) == active(due.store)[0].id
    for form in ("plain", "html"):
        assert "claim-one" in text_of(message, form)
        assert "Beta works" in text_of(message, form)
        assert found[1] in text_of(message, form)
    assert states(due.store) == [("2025-03-03", "accepted", "")]
    assert active(due.store)[0].told == 1


def test_the_stored_digest_has_no_address_and_goes_once_it_is_done_with(due: Mailing) -> None:
    def letters() -> list[str]:
        with due.store.read() as connection:
            return list(connection.exec_driver_sql("SELECT message FROM letter").scalars())

    assert "claim-one" in letters()[0]
    assert "reader@" not in letters()[0]
    due.send()
    assert letters() == [""]


def test_letters_are_forgotten_after_a_time_that_is_set_and_nothing_is_sent_again(due: Mailing) -> None:
    due.send()
    due.settings = due.settings.model_copy(update={"keep_days": 20})
    for days, known in ((1, 1), (19, 1), (21, 0)):
        now = NOW + days * DAY
        due.send(now)
        assert len([one for one in states(due.store) if one[0] == "2025-03-03"]) == known
        due.compose(now)
    assert active(due.store)[0].told == 1
    judge(due.store, "claim-two", judged=NOW + 21 * DAY)
    due.compose(NOW + 22 * DAY)
    due.send(NOW + 22 * DAY)
    texts = [text_of(message) for message in due.inbox.to(READER)]
    assert [sum(claim in text for text in texts) for claim in ("claim-one", "claim-two")] == [1, 1]


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
def test_temporary_errors_are_tried_again_after_growing_waits(due: Mailing, stage: str) -> None:
    due.inbox.fail[stage] = ["450 4.2.0 later, reader@example.net"] * 2
    assert due.send().later == 1
    assert states(due.store) == [("2025-03-03", "queued", "450 4.2.0")]  # without the server's words
    assert due.send(NOW + timedelta(seconds=59)).of == {}
    assert due.send(NOW + timedelta(seconds=60)).later == 1
    assert due.send(NOW + timedelta(seconds=179)).of == {}
    assert due.send(NOW + timedelta(seconds=180)).accepted == 1
    assert len(due.inbox.to(READER)) == 1


def test_a_temporary_error_is_given_up_at_last_and_the_next_digest_tells_what_it_told(due: Mailing) -> None:
    due.inbox.fail["RCPT"] = ["450 4.2.0 later"] * 2
    due.send()
    assert due.compose(NOW + DAY) == {"queued": 0, "waiting": 1, "done": 0, "empty": 0}
    assert due.send(NOW + 3 * DAY).refused == 1
    assert due.compose(NOW + 3 * DAY)["queued"] == 1
    assert due.send(NOW + 3 * DAY).accepted == 1
    assert "claim-one" in text_of(due.inbox.to(READER)[0])


def test_an_address_that_is_refused_for_good_is_stopped_until_confirmed_anew(due: Mailing) -> None:
    due.inbox.fail["RCPT"] = ["550 5.1.1 no such user"]
    assert due.send().refused == 1
    assert active(due.store) == []
    judge(due.store, "claim-while-stopped")
    assert due.compose(NOW + DAY)["queued"] == 0
    subscribe(due.store, READER, NOW + DAY)
    judge(due.store, "claim-after")
    due.compose(NOW + DAY)
    assert due.send(NOW + DAY).accepted == 1
    assert "claim-after" in text_of(due.inbox.to(READER)[0])
    assert "claim-while-stopped" not in text_of(due.inbox.to(READER)[0])


@pytest.mark.parametrize(("stage", "answer"), [("DATA", "554 5.7.1 spam"), ("RCPT", "550 5.7.1 policy")])
def test_a_letter_that_is_refused_for_what_it_is_does_not_stop_the_address(
    due: Mailing, stage: str, answer: str
) -> None:
    due.inbox.fail[stage] = [answer]
    assert due.send().refused == 1
    assert len(active(due.store)) == 1
    due.compose(NOW + DAY)
    assert due.send(NOW + DAY).accepted == 1
    assert "claim-one" in text_of(due.inbox.to(READER)[0])


def test_no_answer_after_the_final_dot_is_in_doubt_and_covered_by_the_next(due: Mailing) -> None:
    due.inbox.fail["DATA"] = [HANG_UP]
    assert due.send().in_doubt == 1
    assert due.send(NOW + timedelta(hours=3)).of == {}
    assert due.compose(NOW + timedelta(hours=3))["done"] == 1
    judge(due.store, "claim-two")
    due.compose(NOW + DAY)
    assert due.send(NOW + DAY).accepted == 1
    first, second = due.inbox.to(READER)
    assert first["Message-ID"] != second["Message-ID"]
    assert "claim-one" in text_of(second)
    assert "claim-two" in text_of(second)


def test_a_server_that_cannot_be_used_costs_no_letter_an_attempt(due: Mailing) -> None:
    assert due.send(password="wrong").trouble.startswith("535")
    bare = due.settings.model_copy(update={"certificates": ""})
    right, due.settings = due.settings, bare
    assert "certificate is not trusted" in due.send().trouble
    due.settings = right.model_copy(update={"port": 1})
    assert due.send().trouble == "Connection refused"
    due.settings = right
    due.inbox.fail["MAIL"] = ["553 5.7.1 you may not send as this"]
    assert due.send().trouble == "it refuses the sender: 553 5.7.1"
    assert due.send().accepted == 1


def test_who_unsubscribes_gets_nothing_that_was_queued(due: Mailing) -> None:
    unsubscribe(due.store, active(due.store)[0].id)
    unsubscribe(due.store, "whoever")
    assert due.send().of == {}
    assert due.inbox.accepted == []


def test_thirty_letters_and_four_senders_at_once_send_each_once(mailing: Mailing) -> None:
    for number in range(30):
        subscribe(mailing.store, f"reader{number}@example.net", NOW - DAY)
    judge(mailing.store, "claim-one")
    composing = [threading.Thread(target=mailing.compose) for _ in range(3)]
    for thread in composing:
        thread.start()
    for thread in composing:
        thread.join()
    sending = [threading.Thread(target=mailing.send) for _ in range(4)]
    for thread in sending:
        thread.start()
    for thread in sending:
        thread.join()
    assert sorted(to for to, _ in mailing.inbox.accepted) == sorted(
        f"reader{n}@example.net" for n in range(30)
    )


def test_lines_that_begin_with_a_dot_arrive_as_they_are() -> None:
    assert dotted(b".\n..a\r\nb.\rc") == b"..\r\n...a\r\nb.\r\nc\r\n"
