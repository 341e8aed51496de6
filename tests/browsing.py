"""A real browser that tests press keys in: headless Chromium, driven over its debugging port."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
                None)


class Tab:
    """One page of the browser.

    Attributes:
        complaints: what the page's console and loader said that is an error.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Runtime", "Log", "Page"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **given: Any) -> Any:
        """Call a method of the protocol; what the page says meanwhile is heard."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while (said := json.loads(self._socket.recv())).get("id") != number:
            self._hear(said)
        assert "error" not in said, said
        return said["result"]

    def _hear(self, said: dict[str, Any]) -> None:
        given = said.get("params", {})
        if said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"])[:500])
        elif said.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        elif said.get("method") == "Runtime.consoleAPICalled" and given["type"] == "error":
            self.complaints.append(json.dumps(given["args"])[:500])

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression} did not come true; {self.complaints}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """A key that a hand presses: down, its character, up."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Tab]:
    """A page in a browser of its own, whose profile lies in `folder`."""
    import websocket

    profile = folder / "profile"
    browser = subprocess.Popen(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
         "--remote-allow-origins=*", f"--user-data-dir={profile}", "--window-size=900,1100", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = _first_page(profile / "DevToolsActivePort")
        socket = websocket.create_connection(page, timeout=60, suppress_origin=True)
        tab = Tab(socket)
        tab.send("Page.navigate", url=url)
        yield tab
        socket.close()
    finally:
        browser.terminate()
        browser.wait(timeout=60)


def _first_page(told: Path, seconds: float = 60) -> str:
    import urllib.request

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if told.exists() and (port := told.read_text().partition("\n")[0]):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as reply:
                pages = [each for each in json.load(reply) if each["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise AssertionError("the browser did not start")
