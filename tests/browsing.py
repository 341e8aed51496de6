"""A real browser that tests press keys in: headless Chromium, driven over its debugging port."""

from __future__ import annotations

import base64
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

# Keys that are no character: their code, and the character that comes with them.
NAMED = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "Escape": (27, ""), "ArrowLeft": (37, ""),
         "ArrowRight": (39, "")}


class Tab:
    """One page of the browser.

    Attributes:
        complaints: what the page's console and loader said that is an error.
        requests: addresses that it asked for, data inside the page aside.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Runtime", "Log", "Page", "Network"):
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
        elif said.get("method") == "Network.requestWillBeSent" and not given["request"]["url"].startswith("data:"):
            self.requests.append(given["request"]["url"])

    def value(self, expression: str) -> Any:
        """What an expression is in the page, or what it promises."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True,
                         awaitPromise=True)["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression} did not come true; {self.complaints}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """A key that a hand presses: down, its character, up."""
        code, character = NAMED.get(key, (0, key))
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                      text=character if kind == "keyDown" else "")

    def point(self, selector: str, click: bool = False) -> None:
        """Move the pointer to the middle of the first such element, after scrolling to it, and click where asked."""
        box = self.value(f"""(() => {{ const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = found.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()""")
        place = {"x": box[0], "y": box[1]}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def sized(self, width: int, scheme: str = "light", media: str = "", height: int = 900) -> None:
        """As a window of this width shows it, in light or dark, or as `media` print."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", media=media, features=[
            {"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, height: int, selector: str = "html") -> bytes:
        """The page from such an element's top on, `height` pixels of it, as PNG."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        for _ in range(2):  # of a long page the first has holes where nothing was drawn yet, and moves what is below
            width, top = self.value(f"[innerWidth, {box}.top + scrollY]")
            clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
            taken = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        return base64.b64decode(taken)


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
