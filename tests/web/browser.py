"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import connect

KEPT = os.environ.get("CLAIMBENCH_SCREENSHOTS", "")  # a folder: every look of every page is kept there
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Navigating(RuntimeError):
    """One page has gone and the next is not there yet."""


class Browser:
    """One tab. Use it as a context manager: the process ends with it."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        flags = ["--headless=new", "--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", "--mute-audio"]
        self._log = (profile.parent / f"{profile.name}.log").open("w+")
        self._process = subprocess.Popen(
            [CHROMIUM, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        self._numbers = itertools.count(1)
        self.problems: list[str] = []  # what the page's console and its policy complained about
        self._open = ExitStack()
        self._connection = self._open.enter_context(connect(self._tab(profile), max_size=64 << 20))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _tab(self, profile: Path) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = profile / "DevToolsActivePort"
            if found.is_file() and (lines := found.read_text().split()) and len(lines) == 2:
                root = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                with connect(root) as connection:
                    connection.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
                    targets = json.loads(connection.recv())["result"]["targetInfos"]
                tabs = [target["targetId"] for target in targets if target["type"] == "page"]
                if tabs:
                    return re.sub("/devtools/.*", f"/devtools/page/{tabs[0]}", root)
            time.sleep(0.05)
        raise RuntimeError("chromium did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its result; complaints that come meanwhile are noted."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=60))
            if message.get("id") == number:
                if "error" in message:
                    words = message["error"]["message"]
                    leaving = "navigated" in words or "context" in words
                    raise (Navigating if leaving else RuntimeError)(f"{method}: {words}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        found = message.get("params", {})
        if message["method"] == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.problems.append(found["entry"]["text"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.problems.append(found["exceptionDetails"]["text"])

    def look(self, width: int, *, height: int = 900, dark: bool = False, scripts: bool = True) -> None:
        """The size of the window and the scheme. scripts: whether pages may run any."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        self.settle(address)

    def settle(self, address: str = "") -> None:
        """Wait until the page (at this address, if given) has loaded."""
        there = f"location.href.split('#')[0] === {json.dumps(address.split('#')[0])}" if address else "true"
        self._until(f"document.readyState === 'complete' && {there}", address)

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression. It is evaluated beside the page, also where the page may run no script."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def follow(self, found: str) -> None:
        """Press the link or the button that this selector finds, and wait for the page that answers."""
        self.value("window.before = true")
        self.value(f"document.querySelector({json.dumps(found)}).click()")
        self._until("!window.before && document.readyState === 'complete'", found)

    def _until(self, expression: str, what: str) -> None:
        """Wait for a page on which this is true; between two pages nothing can be evaluated."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.value(expression):
                    return
            except Navigating:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"{what}: no page answered")

    def fetch(self, address: str) -> str:
        """What a stranger gets from this address: without cookies."""
        with urllib.request.urlopen(address, timeout=30) as answer:
            return str(answer.read().decode())

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        codes = {"Enter": (13, "\r"), "Tab": (9, "\t")}
        code, text = codes[key]
        common: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        more = {"captureBeyondViewport": True, "clip": clip} if whole else {}
        data = self.send("Page.captureScreenshot", format="png", **more)["data"]
        path.write_bytes(base64.b64decode(data))
