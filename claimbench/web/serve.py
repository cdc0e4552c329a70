"""`claimbench serve`: open the page's four stores, bind the address, and answer until Ctrl-C."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from claimbench.community.routes import open_community
from claimbench.errors import UserError
from claimbench.feed.settings import load_settings
from claimbench.feed.store import PageStore
from claimbench.ledger import Ledger
from claimbench.shelf import Shelf
from claimbench.web.app import Application, create_app
from claimbench.web.maintenance import Maintenance, judge_missing, page_index
from claimbench.web.protocol import BoundedProtocol
from claimbench.web.schedule import Schedule, time_of_day

VARIABLE = "CLAIMBENCH_SERVE"  # how worker processes learn their options
EVERYWHERE = ("0.0.0.0", "::")
CONNECTIONS = 512  # at once, in each worker; more are answered 503
KEEP_ALIVE = 15  # seconds
LEAVE = 5  # seconds that open requests have when the page is stopped


@dataclass(frozen=True)
class Options:
    """What the command line said; see `claimbench.web.cli`."""

    host: str = "127.0.0.1"
    port: int = 8000
    ledger: str | None = None
    store: str | None = None
    shelf: tuple[str, ...] = ()
    config: str | None = None
    workers: int = 1
    address: str = ""
    show_own: bool = False
    meaning: bool = True
    schedule: str = ""  # time of day, UTC; empty: nothing is pulled or sent


class Served:
    """The application with what runs beside it, and begins and ends with it."""

    def __init__(self, app: Application, beside: Sequence[Maintenance | Schedule]) -> None:
        self._app, self._beside = app, beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                for one in self._beside:
                    one.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                for one in self._beside:
                    one.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def application(options: Options) -> Served:
    """Raises UserError where a place cannot be opened."""
    shelf = Shelf.find(options.shelf)
    store = PageStore(options.store)
    settings = load_settings(Path(options.config) if options.config else None)
    community = open_community(store, settings, shelf)  # None: the page is read-only
    app = create_app(
        settings,
        ledger=Ledger(options.ledger),
        shelf=shelf,
        store=store,
        index=page_index(store, list(shelf.roots)),
        address=options.address or settings.community.address,
        routes=community.routes if community else (),
        context=community.context if community else None,
        personal=community.personal if community else (),
        hosts=None if options.host in EVERYWHERE else frozenset({options.host.lower()}),
        show_own=options.show_own,
    )
    beside: list[Maintenance | Schedule] = [Maintenance(app.site, meaning=options.meaning)]
    if options.schedule:
        beside.append(Schedule(app.site, time_of_day("--schedule", options.schedule)))
    return Served(app, beside)


def worker() -> ASGIApp:
    """The application of a worker process."""
    found = json.loads(os.environ[VARIABLE])
    return application(Options(**{**found, "shelf": tuple(found["shelf"])}))


def serve(options: Options, *, imports: Sequence[Path] = (), browse: bool = False) -> None:
    """Answer until Ctrl-C or SIGTERM. Raises UserError where a place or the address cannot be had."""
    load_settings(Path(options.config) if options.config else None)
    if options.schedule:
        time_of_day("--schedule", options.schedule)
    shelf = Shelf.find(options.shelf)
    with Ledger(options.ledger) as ledger:
        if imports:
            _import(ledger, imports)
        judge_missing(ledger, shelf)
        measured = bool(ledger.sets())
    for line in shelf.broken:
        print(f"claimbench: skipped: {line}", file=sys.stderr)
    with closing(bind(options.host, options.port)) as listening:
        address = url(options.host, listening.getsockname()[1])
        print(f"claimbench: {address}  (Ctrl-C stops it)", flush=True)
        if not measured:
            print("claimbench: nothing was measured yet; --import results/*/*.jsonl shows published results")
        if browse:
            opening = threading.Timer(1.0, webbrowser.open, [address])
            opening.daemon = True
            opening.start()
        _answer(options, listening)
    print("\nclaimbench: stopped")


def _answer(options: Options, listening: socket.socket) -> None:
    os.environ[VARIABLE] = json.dumps(asdict(options))
    single = options.workers == 1
    config = uvicorn.Config(
        application(options) if single else "claimbench.web.serve:worker",
        factory=not single,
        workers=options.workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LEAVE,
        http=BoundedProtocol,
        ws="none",
    )
    try:
        if single:
            uvicorn.Server(config).run(sockets=[listening])
        else:
            Multiprocess(config, sockets=[listening]).run()
    except KeyboardInterrupt:
        return  # uvicorn has let requests end, and raises what it caught once more


def bind(host: str, port: int) -> socket.socket:
    """A listening address. Raises UserError with the fix if it is taken or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if isinstance(error, socket.gaierror):
            raise UserError(f'--host: "{host}" is no address of this machine') from None
        fix = "choose another with --port (0 takes any that is free)"
        raise UserError(f"--port: {port} on {host}: {os.strerror(error.errno or 0).lower()}; {fix}") from None
    listening.set_inheritable(True)
    return listening


def url(host: str, port: int) -> str:
    name = "localhost" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"


def _import(ledger: Ledger, files: Sequence[Path]) -> None:
    from claimbench.publish import import_results

    summary = import_results(files, ledger=ledger)
    for line in summary["damaged"]:
        print(f"claimbench: skipped: {line}", file=sys.stderr)
    print(f"claimbench: {summary['sets']} sets and {summary['trials']} trials imported")
