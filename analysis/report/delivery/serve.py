"""`lam report --serve`: the page over HTTP on this machine alone, made again while a sweep runs.

Nothing but the page is served, under an address that holds a random token, to who names this machine as the host.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
HEADERS = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
           "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}


class PageServer(ThreadingHTTPServer):
    """Serves what `make` returns, at most `every` seconds old, one making at a time.

    Args:
        make: the page, and whether it may still change.
        port: 0 picks a free one.
    """

    daemon_threads = True

    def __init__(self, make: Callable[[], tuple[str, bool]], every: float = 30.0, port: int = 0) -> None:
        super().__init__((HOST, port), _Page)
        self.token, self.every, self._make = secrets.token_urlsafe(24), every, make
        self._lock, self._made, self._page = threading.Lock(), 0.0, ("", True)

    @property
    def url(self) -> str:
        """The one address that is answered."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def page(self) -> tuple[str, bool]:
        """The page, made anew where it is old and may have changed."""
        with self._lock:
            if not self._page[0] or (self._page[1] and time.monotonic() - self._made >= self.every):
                self._page, self._made = self._make(), time.monotonic()
            return self._page

    def is_own(self, host: str | None) -> bool:
        """Whether a request names this machine: a page elsewhere may lead a browser here under a name of its own."""
        return host in (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}")


class _Page(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "lam", ""
    timeout = 20

    def do_GET(self) -> None:
        """Answer with the page."""
        if not self.server.is_own(self.headers.get("Host")):
            return self.send_error(HTTPStatus.FORBIDDEN)
        if not secrets.compare_digest(self.path.encode(), f"/{self.server.token}/".encode()):
            return self.send_error(HTTPStatus.NOT_FOUND)
        text, changes = self.server.page()
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        refresh = {"Refresh": f"{self.server.every:g}"} if changes else {}
        for name, value in {**HEADERS, **refresh, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the address holds the token."""
