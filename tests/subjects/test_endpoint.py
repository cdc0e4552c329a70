from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from claimbench.errors import UserError
from claimbench.spec import canonical
from claimbench.subjects import chat, downloads, open_subject, prepare, resolve_subject
from claimbench.subjects.conversation import Reply
from claimbench.subjects.endpoint import KEYS, Bounds, Endpoint, parse_address
from claimbench.subjects.wheels import Unreachable

KEY = "sk-a-key-that-is-never-shown"
SECRET = "path-that-is-a-secret"
ASK = [{"role": "user", "content": "Name a colour."}]
QUICK = Bounds(connect=5.0, read=5.0, total=20.0, size=20_000, retries=3, backoff=0.01, longest_wait=2.0)
Script = list[Callable[[BaseHTTPRequestHandler, dict], None]]


def says(
    status: int, content: bytes | dict, **headers: str
) -> Callable[[BaseHTTPRequestHandler, dict], None]:
    def answer(handler: BaseHTTPRequestHandler, request: dict) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def completion(text: str, finish_reason: str = "stop") -> dict:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": len(text.split())}}


def echoes(handler: BaseHTTPRequestHandler, request: dict) -> None:
    says(200, completion("echo of " + request["messages"][-1]["content"]))(handler, request)


def hangs_up(handler: BaseHTTPRequestHandler, request: dict) -> None:
    handler.close_connection = True


def never_ends(handler: BaseHTTPRequestHandler, request: dict) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(10_000):
            handler.wfile.write(b" " * 1000)
    except OSError:
        handler.server.cut.set()  # type: ignore[attr-defined]  # set by the fixture
    handler.close_connection = True


@dataclass
class Server:
    """An endpoint that plays its script, one entry a request, then echoes."""

    port: int
    script: Script = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    cut: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{SECRET}/v1#small-model"

    def endpoint(self, **bounds: float) -> Endpoint:
        return Endpoint(parse_address(self.address), Bounds(**{**vars(QUICK), **bounds}))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None: ...

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with played.lock:
                played.requests.append(request)
                played.keys.append(self.headers.get("Authorization"))
                step = played.script.pop(0) if played.script else echoes
                played.busy += 1
                played.busiest = max(played.busiest, played.busy)
            try:
                right = self.path == f"/{SECRET}/v1/chat/completions"
                (step if right else says(404, b""))(self, request)
            finally:
                with played.lock:
                    played.busy -= 1

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played = Server(served.server_address[1])
    served.cut = played.cut  # type: ignore[attr-defined]  # for `never_ends`
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield played
    served.shutdown()
    served.server_close()


def _refused(server: Server, **bounds: float) -> str:
    """The one line of an endpoint that gives up; it shows neither the key nor the path."""
    with pytest.raises(UserError) as caught:
        server.endpoint(**bounds).complete(ASK, max_tokens=5)
    line = str(caught.value)
    assert "\n" not in line
    assert f"127.0.0.1:{server.port}" in line
    assert KEY not in line
    assert SECRET not in line
    return line


def test_an_endpoint_is_asked_in_its_protocol(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("CLAIMBENCH_CHAT_KEY", KEY)
    server.script = [says(200, completion("red or blue", "length"))]
    endpoint = server.endpoint()
    reply = endpoint.complete(ASK, max_tokens=5, temperature=0.5, seed=3, stop=["\n"])
    assert reply == Reply("red or blue", 7, 3, "length", reply.seconds)
    assert 0 < reply.seconds < 5
    assert server.requests == [
        {
            "model": "small-model",
            "messages": ASK,
            "max_tokens": 5,
            "temperature": 0.5,
            "seed": 3,
            "stop": ["\n"],
        }
    ]
    monkeypatch.delenv("CLAIMBENCH_CHAT_KEY")
    endpoint.complete(ASK, max_tokens=5)
    assert server.keys == [f"Bearer {KEY}", "Bearer another"]
    assert KEY not in repr(endpoint) + canonical(vars(endpoint))


def test_an_endpoint_is_known_by_address_and_day_and_shows_its_host_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAIMBENCH_CHAT_KEY", KEY)
    ref = resolve_subject("chat", server.address)
    assert server.requests == []
    assert ref.private
    assert ref.label == ref.value == f"small-model at 127.0.0.1:{server.port}"
    assert KEY not in canonical(vars(ref))
    monkeypatch.setenv("CLAIMBENCH_CHAT_KEY", "other")
    assert resolve_subject("chat", server.address).identity == ref.identity
    assert resolve_subject("chat", server.address + "-2").identity != ref.identity

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1)

    monkeypatch.setattr(chat, "datetime", Tomorrow)
    assert resolve_subject("chat", server.address).identity != ref.identity
    assert downloads([ref]) == 0
    prepare([ref])
    assert [request["max_tokens"] for request in server.requests] == [1]
    assert open_subject(ref).complete(ASK, max_tokens=5).text == "echo of Name a colour."


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_passes_is_tried_again(server: Server, status: int) -> None:
    server.script = [says(status, b"later"), hangs_up, says(status, {"error": "later"})]
    assert server.endpoint().complete(ASK, max_tokens=5).text == "echo of Name a colour."
    assert len(server.requests) == 4


def test_retry_after_is_kept_in_seconds_and_as_a_date(server: Server) -> None:
    server.script = [says(429, b"", Retry_After="1")]
    started = time.monotonic()
    server.endpoint().complete(ASK, max_tokens=5)
    assert time.monotonic() - started >= 1.0
    when = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for header in ("3600", when):
        server.script = [says(429, b"", Retry_After=header)]
        assert "asks to wait 3" in _refused(server)
    server.script = [says(503, b"", Retry_After="whenever")]
    server.endpoint().complete(ASK, max_tokens=5)


def test_retries_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIMBENCH_CHAT_KEY", KEY)
    error = {"error": {"message": f"quota\nof {KEY} at /{SECRET}/v1 is used up"}}
    server.script = [says(429, error)] * 4
    line = _refused(server)
    assert "answers 429 (quota of *** at /*** is used up) (tried 4 times)" in line
    assert len(server.requests) == 4


def test_waits_grow_and_differ() -> None:
    endpoint = Endpoint(parse_address("https://host.org/v1#m"), Bounds(backoff=1.0, longest_wait=8.0))
    waits = [[endpoint._wait(attempt, 0.0) for _ in range(20)] for attempt in range(6)]
    for attempt, drawn in enumerate(waits):
        longest = min(2.0**attempt, 8.0)
        assert all(longest / 2 <= wait <= longest for wait in drawn)
        assert len(set(drawn)) == 20
    assert endpoint._wait(0, 5.0) == 5.0


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (says(404, {"error": {"message": "no"}}), 'no model "small-model" there'),
        (
            says(400, {"error": {"message": "too many tokens"}}),
            r"refuses the request \(400\): too many tokens",
        ),
        (says(200, b"<html>welcome</html>"), "not JSON"),
        (says(200, b"[" * 15_000), "not JSON"),
        (says(200, {"choices": []}), "holds no choices"),
        (says(200, [1, 2]), "holds no choices"),
        (says(200, completion("")["choices"][0]), "holds no choices"),
        (says(200, {"choices": [{"message": {"content": 3}}]}), "other types"),
        (says(200, b" " * 30_000), "more than 20,000 bytes"),
        (
            says(307, b"", Location=f"https://elsewhere.org/{SECRET}"),
            "sends elsewhere .307, to elsewhere.org",
        ),
    ],
)
def test_answers_that_no_second_try_mends(server: Server, answer: Callable, complaint: str) -> None:
    server.script = [answer]
    with pytest.raises(UserError, match=complaint):
        raise UserError(_refused(server))
    assert len(server.requests) == 1


def test_an_endless_answer_is_cut(server: Server) -> None:
    server.script = [never_ends]
    assert "more than 20,000 bytes" in _refused(server)
    assert server.cut.wait(10.0)  # the connection was closed, not read to its end


def test_a_slow_endpoint_and_none_are_given_up(server: Server) -> None:
    server.script = [lambda handler, request: time.sleep(0.6)] * 2
    assert "no answer in time" in _refused(server, read=0.2, retries=1)
    gone = Endpoint(parse_address("http://127.0.0.1:9/v1#m"), QUICK)
    with pytest.raises(Unreachable, match=r"127.0.0.1:9: cannot be reached.*tried 4 times"):
        gone.complete(ASK, max_tokens=1)


def test_keys_are_asked_for_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [says(401, {"error": {"message": "give a key"}})]
    assert "wants a key; put it into CLAIMBENCH_CHAT_KEY (401)" in _refused(server)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = [says(401, {"error": {"message": f"wrong key {KEY[:8]}"}})]
    assert "refuses the key; check CLAIMBENCH_CHAT_KEY (401)" in _refused(server)
    monkeypatch.setenv("CLAIMBENCH_CHAT_KEY", f"{KEY}\nX-Header: 1")
    with pytest.raises(UserError, match="holds characters that no key has") as caught:
        server.endpoint().complete(ASK, max_tokens=5)
    assert KEY not in str(caught.value)
    monkeypatch.setenv("CLAIMBENCH_CHAT_KEY", KEY)
    assert Endpoint(parse_address("http://host.org/v1#m"))._key() == ""  # in clear, to somewhere else
    assert Endpoint(parse_address("https://host.org/v1#m"))._key() == KEY


def test_the_newer_name_of_the_bound_is_learned(server: Server) -> None:
    wants = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.script = [says(400, {"error": {"message": wants}})]
    endpoint = server.endpoint()
    for _ in range(2):
        endpoint.complete(ASK, max_tokens=5)
    bounds = [request.keys() & {"max_tokens", "max_completion_tokens"} for request in server.requests]
    assert bounds == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]


def test_many_are_asked_at_once_within_bounds_and_answered_in_order(server: Server) -> None:
    def slowly(handler: BaseHTTPRequestHandler, request: dict) -> None:
        time.sleep(0.02 * (int(request["messages"][0]["content"]) % 3 + 1))
        echoes(handler, request)

    server.script = [slowly] * 12
    conversations = [[{"role": "user", "content": str(index)}] for index in range(12)]
    replies = server.endpoint().complete_many(conversations, max_tokens=5, concurrency=3)
    assert [reply.text for reply in replies] == [f"echo of {index}" for index in range(12)]
    assert 1 < server.busiest <= 3
    server.script = [says(400, b"")] * 12
    server.requests.clear()
    with pytest.raises(UserError, match="refuses the request"):
        server.endpoint().complete_many(conversations, max_tokens=5, concurrency=1)
    assert len(server.requests) < 12
    with pytest.raises(UserError, match="concurrency = 0"):
        server.endpoint().complete_many(conversations, max_tokens=5, concurrency=0)


@pytest.mark.parametrize(
    ("messages", "settings", "complaint"),
    [
        ([], {}, "messages: a list"),
        ("Hello", {}, "messages: a list"),
        ([{"role": "user"}], {}, r"messages\[0\]"),
        ([*ASK, {"role": "user", "content": 3}], {}, r"messages\[1\]"),
        (ASK, {"max_tokens": 0}, "max_tokens = 0"),
        (ASK, {"temperature": -1.0}, "temperature = -1.0"),
        (ASK, {"temperature": float("nan")}, "temperature = nan"),
        (ASK, {"stop": [""]}, "stop:"),
    ],
)
def test_what_cannot_be_asked(server: Server, messages: Any, settings: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        server.endpoint().complete(messages, **{"max_tokens": 5, **settings})
    assert server.requests == []
