"""Invented papers as sources tell them, and a server of this machine that tells them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[str, dict[str, str]], Answer]


def arxiv_entry(identity: str = "2501.00001v1", **changes: str) -> str:
    fields = {
        "id": f"http://arxiv.org/abs/{identity}",
        "title": f"Title of {identity}\n  on two lines",
        "summary": "We  measure\n things.",
        "published": "2025-01-01T10:00:00Z",
        "updated": "2025-01-02T10:00:00Z",
    } | changes
    inside = "".join(f"<{k}>{escape(v)}</{k}>" for k, v in fields.items() if v)
    names = "<author><name>A. Author</name></author><author><name>B. Author</name></author>"
    scheme = 'scheme="http://arxiv.org/schemas/atom"'
    terms = f'<arxiv:primary_category term="cs.CL" {scheme}/><category term="cs.LG" {scheme}/>'
    terms += f'<category term="cs.CL" {scheme}/><category term="I.2.6" scheme="http://arxiv.org/other"/>'
    return f"<entry>{inside}{names}{terms}</entry>"


def arxiv_page(entries: list[str], total: int | None = None) -> bytes:
    total = len(entries) if total is None else total
    return (
        '<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom" '
        'xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom">'
        f"<opensearch:totalResults>{total}</opensearch:totalResults>{''.join(entries)}</feed>"
    ).encode()


ARXIV_ERROR = arxiv_page(
    [
        "<entry><id>http://arxiv.org/api/errors#start_must_be_an_integer</id><title>Error</title>"
        "<summary>start must be an integer</summary></entry>"
    ]
)


def daily_item(identity: str = "2501.00001", upvotes: object = 7, **changes: Any) -> dict[str, Any]:
    paper = {
        "id": identity,
        "title": f"Title of {identity}",
        "summary": "We measure things.",
        "authors": [{"name": "A. Author"}, {"name": "H. Idden", "hidden": True}, "odd"],
        "publishedAt": "2025-01-01T00:00:00.000Z",
        "upvotes": upvotes,
        "ai_keywords": ["State Spaces", 3],
    }
    return {"paper": paper | changes, "numComments": 1}


def daily_page(items: list[Any]) -> bytes:
    return json.dumps(items).encode()


RSS = """<?xml version="1.0"?><rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel>
<title>A lab</title><link>https://lab.example/</link><pubDate>Wed, 01 Jan 2025 05:00:00 +0000</pubDate>
<item><title>arXiv's way</title><link>https://arxiv.org/abs/2501.00007</link>
<guid isPermaLink="false">oai:arXiv.org:2501.00007v2</guid><category>cs.LG</category>
<dc:creator>A. Author, B. Author</dc:creator><pubDate>Thu, 02 Jan 2025 00:00:00 -0500</pubDate>
<description>arXiv:2501.00007v2 Announce Type: new
Abstract: We measure a &lt; b.</description></item>
<item><title>A post</title><link>https://lab.example/post</link>
<description>&lt;p&gt;Words &lt;b&gt;here&lt;/b&gt;.&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;</description></item>
<item><title>No address</title><link>javascript:alert(1)</link></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>T</title><updated>2025-01-03T00:00:00Z</updated>
<entry><id>tag:lab.example,2025:1</id><title type="html">An &lt;i&gt;Atom&lt;/i&gt; entry</title>
<link href="https://lab.example/atom"/><author><name>A. Author</name></author>
<published>2025-01-02T23:30:00-05:00</published><updated>2025-01-04T00:00:00Z</updated>
<content type="html">&lt;p&gt;Body&lt;/p&gt;</content></entry></feed>"""


@contextlib.contextmanager
def servers() -> Iterator[Callable[[Handler], Server]]:
    """`start(handler)` starts a server on a free port; all end with the block."""
    running: list[Server] = []

    def start(handler: Handler) -> Server:
        running.append(Server(handler))
        return running[-1]

    yield start
    for server in running:
        server.close()


class Server:
    """Answers what `handler(path, query)` says; remembers what was asked."""

    def __init__(self, handler: Handler) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                parts = urlsplit(self.path)
                query = {name: found[0] for name, found in parse_qs(parts.query).items()}
                status, headers, body = handler(parts.path, query)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                with contextlib.suppress(ConnectionError):  # the asker was killed, or had read enough
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def arxiv_handler(papers: dict[str, list[str]]) -> Handler:
    """An arXiv of these entries by day (20250101), paged as the API does."""

    def handle(_: str, query: dict[str, str]) -> Answer:
        day = query["search_query"].split("submittedDate:[")[1][:8]
        start, size = int(query["start"]), int(query["max_results"])
        entries = papers.get(day, [])
        return 200, {}, arxiv_page(entries[start : start + size], len(entries))

    return handle


def by_id_handler(known: dict[str, str], unreadable: tuple[str, ...] = ()) -> Handler:
    """An arXiv that is asked by `id_list`, with its manners: papers in an order of its own, a total of what was asked
    for, unknown ids left out, and HTTP 400 for an id that it cannot read. known: ids to entries."""

    def handle(_: str, query: dict[str, str]) -> Answer:
        asked = query["id_list"].split(",")
        for name in asked:
            if name in unreadable:
                error = "<entry><id>http://arxiv.org/api/errors#incorrect_id_format</id><title>Error</title>"
                return (
                    400,
                    {},
                    arxiv_page([f"{error}<summary>incorrect id format for {name}</summary></entry>"]),
                )
        found = [known[name] for name in sorted(asked) if name in known]
        return 200, {}, arxiv_page(found[: int(query["max_results"])], len(asked))

    return handle
