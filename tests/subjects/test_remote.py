from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claimbench.errors import UserError
from claimbench.subjects import open_subject, remote, resolve_subject
from claimbench.subjects.remote import fetch_url, is_url, shown_url
from claimbench.subjects.wheels import Unreachable

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Site:
    """A server on this machine: `site.answers[path]` writes the answer; `site.asked` is what was asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, dict(self.headers)))
                site.answers.get(self.path, lambda request: request.send_error(404))(self)

            def log_message(self, *arguments: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Site()
    yield served
    served.close()


def sends(content: bytes, **headers: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if "ETag" in named and request.headers.get("If-None-Match") == named["ETag"]:
            request.send_response(304)
            request.end_headers()
            return
        request.send_response(200)
        for name, value in ({"Content-Length": str(len(content))} | named).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def leads_to(address: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", address)
        request.end_headers()

    return answer


def left(cache: Path) -> list[str]:
    return [path.name for path in (cache / "downloads").glob(".*.partial")]


def test_a_file_is_fetched_once_and_known_by_its_content(own_cache: Path, site: Site) -> None:
    site.answers["/a"] = site.answers["/b"] = sends(b"content" * 1000, ETag='"one"')
    path = fetch_url(f"{site.url}/a")
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.read_bytes() == b"content" * 1000
    assert fetch_url(f"{site.url}/a") == path
    assert fetch_url(f"{site.url}/b") == path
    asked = [headers.get("If-None-Match") for _, headers in site.asked]
    assert asked == [None, '"one"', None]
    site.answers["/a"] = sends(b"other", ETag='"two"')
    assert fetch_url(f"{site.url}/a").read_bytes() == b"other"
    assert path.read_bytes() == b"content" * 1000


def test_a_damaged_copy_is_fetched_again(own_cache: Path, site: Site) -> None:
    site.answers["/a"] = sends(b"content", ETag='"one"')
    fetch_url(f"{site.url}/a").write_bytes(b"damaged!")
    assert fetch_url(f"{site.url}/a").read_bytes() == b"content"


def test_without_network_the_last_copy_counts_and_that_is_said(
    own_cache: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/a"] = sends(b"content")
    path = fetch_url(f"{site.url}/a")
    site.close()
    assert fetch_url(f"{site.url}/a") == path
    assert "the copy fetched before is used" in capsys.readouterr().err
    with pytest.raises(Unreachable, match="cannot be fetched"):
        fetch_url(f"{site.url}/b")


def test_redirects_are_followed_a_few_times_and_only_to_http(
    own_cache: Path, site: Site, tmp_path: Path
) -> None:
    site.answers["/a"] = sends(b"content")
    site.answers["/to-a"] = leads_to("/a")
    assert fetch_url(f"{site.url}/to-a").read_bytes() == b"content"
    site.answers["/round"] = leads_to("/round")
    with pytest.raises(UserError, match="more than 5 times"):
        fetch_url(f"{site.url}/round")
    (tmp_path / "secret").write_text("secret")
    for address in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/secret", "data:,secret"):
        site.answers["/away"] = leads_to(address)
        with pytest.raises(UserError, match="http and https|an http or https"):
            fetch_url(f"{site.url}/away")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/a", "s3://bucket/a", "http://"])
def test_other_schemes_are_refused(own_cache: Path, address: str) -> None:
    with pytest.raises(UserError, match="http or https|names no server") as caught:
        fetch_url(address)
    assert "\n" not in str(caught.value)


def test_size_is_limited_whether_or_not_it_is_told(own_cache: Path, site: Site) -> None:
    site.answers["/told"] = sends(b"x" * 5000)

    def untold(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"x" * 5000)

    site.answers["/untold"] = untold
    for path in ("/told", "/untold"):
        with pytest.raises(UserError, match="more than 4,999 bytes"):
            fetch_url(f"{site.url}{path}", limit_bytes=4999)
        assert len(fetch_url(f"{site.url}{path}", limit_bytes=5000).read_bytes()) == 5000
    assert left(own_cache) == []


def test_packed_answers_are_unpacked_within_the_limit(own_cache: Path, site: Site) -> None:
    content = b"a,b\n" * 100_000
    site.answers["/packed"] = sends(gzip.compress(content), Content_Encoding="gzip")
    assert fetch_url(f"{site.url}/packed").read_bytes() == content
    bomb = gzip.compress(bytes(60_000_000), compresslevel=6)
    assert len(bomb) < 1_000_000
    site.answers["/bomb"] = sends(bomb, Content_Encoding="gzip")
    with pytest.raises(UserError, match="more than 1,000,000 bytes"):
        fetch_url(f"{site.url}/bomb", limit_bytes=1_000_000)
    site.answers["/half"] = sends(gzip.compress(content)[:-50], Content_Encoding="gzip")
    with pytest.raises(UserError, match="cut short"):
        fetch_url(f"{site.url}/half")
    site.answers["/parts"] = sends(gzip.compress(content) * 2, Content_Encoding="gzip")
    with pytest.raises(UserError, match="several parts"):
        fetch_url(f"{site.url}/parts")
    site.answers["/junk"] = sends(b"no gzip at all", Content_Encoding="gzip")
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch_url(f"{site.url}/junk")
    site.answers["/other"] = sends(b"x", Content_Encoding="br")
    with pytest.raises(UserError, match='sends "br"'):
        fetch_url(f"{site.url}/other")
    assert left(own_cache) == []


def test_what_is_cut_short_or_slow_leaves_nothing(
    own_cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers["/short"] = sends(b"x" * 100, Content_Length="200")
    with pytest.raises(Unreachable, match="cut short by 100 bytes"):
        fetch_url(f"{site.url}/short")

    def dripping(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(100):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)

    def silent(request: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(3)

    site.answers["/dripping"], site.answers["/silent"] = dripping, silent
    started = time.monotonic()
    with pytest.raises(UserError, match="not whole within 0 s"):
        fetch_url(f"{site.url}/dripping", time_limit=0.3)
    monkeypatch.setattr(remote, "_SILENCE", 0.2)
    with pytest.raises(Unreachable, match="timed out"):
        fetch_url(f"{site.url}/silent")
    assert time.monotonic() - started < 2.0
    assert left(own_cache) == []
    assert [path for path in (own_cache / "downloads").iterdir() if path.suffix == ".json"] == []


def test_answers_that_are_no_file_are_named(own_cache: Path, site: Site) -> None:
    with pytest.raises(UserError, match="answers 404 Not Found; check the address"):
        fetch_url(f"{site.url}/nothing")


def test_secrets_in_an_address_are_not_shown(own_cache: Path, site: Site) -> None:
    address = f"{site.url.replace('//', '//me:secret@')}/a?token=secret#secret"
    assert shown_url(address) == f"{site.url}/a"
    with pytest.raises(UserError) as caught:
        fetch_url(address)
    assert "secret" not in str(caught.value)


def test_addresses_are_told_from_paths_and_names() -> None:
    assert is_url("https://example.org/a.csv")
    assert is_url("ftp://example.org/a.csv")
    assert not is_url("folder/a.csv")
    assert not is_url("default-corpus:python,json")
    assert not is_url("folder/http://odd")


def test_a_text_may_be_an_address(own_cache: Path, site: Site, tmp_path: Path) -> None:
    content = "\n".join(f"line {index} " + "words " * 10 for index in range(2_000))
    (tmp_path / "novel.txt").write_text(content)
    site.answers["/books/novel.txt?edition=2"] = sends(content.encode())
    ref = resolve_subject("text", f"{site.url}/books/novel.txt?edition=2")
    assert ref.identity == resolve_subject("text", tmp_path / "novel.txt").identity
    assert (ref.label, ref.private) == ("novel.txt", True)
    assert "edition" not in ref.value
    assert "line 7 " in "".join(document.text for document in open_subject(ref).documents)
    site.answers["/short.txt"] = sends(b"short")
    with pytest.raises(UserError, match=f"{site.url}/short.txt: 5 bytes of text"):
        resolve_subject("text", f"{site.url}/short.txt")
    with pytest.raises(UserError, match="http or https"):
        resolve_subject("text", "ftp://example.org/novel.txt")


def test_a_table_may_be_an_address(own_cache: Path, site: Site, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="tables need pyarrow")
    content = "size,price\n" + "".join(f"{index},{index * 3 + 0.5}\n" for index in range(30))
    (tmp_path / "prices.csv").write_text(content)
    site.answers["/prices.csv"] = sends(content.encode(), ETag='"one"')
    ref = resolve_subject("table", f"{site.url}/prices.csv#target=size")
    assert ref.identity == resolve_subject("table", f"{tmp_path}/prices.csv#target=size").identity
    assert (ref.label, ref.private) == ("prices.csv", True)
    found = open_subject(ref)
    assert found.target.name == "size"
    assert sorted(found.numeric[:, 0]) == [index * 3 + 0.5 for index in range(30)]
    site.answers["/page"] = sends(b"<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match="a web page, not a table"):
        resolve_subject("table", f"{site.url}/page")
