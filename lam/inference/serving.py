"""A local page: served to this machine alone, under an address that nobody can guess."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Self

from record.errors import BadInput

HOST = "127.0.0.1"
MOST_BYTES = 1000  # of what a page sends

# What a page asks for: the path below its address, and what it sends (None = it only asks). None = no such path.
Answer = Callable[[str, Any], dict[str, Any] | None]


class LocalPage(ThreadingHTTPServer):
    """A page of `lam/templates`, served inside a with-block; `url` opens it.

    Args:
        answer: what the page's requests get; a BadInput, KeyError, TypeError or ValueError of it is told to the page.
    """

    daemon_threads = True

    def __init__(self, template: str, answer: Answer, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise BadInput(f"got {port}, which cannot be used ({error.strerror})", key="--port",
                           remedy="name another, or leave it out for any that is free") from None
        self.template, self.answer, self.token = template, answer, secrets.token_urlsafe(16)
        self.url = f"http://{HOST}:{self.server_port}/{self.token}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LocalPage

    def do_GET(self) -> None:
        """The page, or an answer as JSON."""
        path = self._path()
        if path == "":
            html = resources.files("lam").joinpath("templates", self.server.template).read_bytes()
            self._send(HTTPStatus.OK, html, "text/html; charset=utf-8")
        else:
            self._answer(path, None)

    def do_POST(self) -> None:
        """An answer to what the page sends."""
        length = int(self.headers.get("Content-Length") or 0)
        path = self._path()
        if path is None or length > MOST_BYTES:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
            return
        try:
            given = json.loads(self.rfile.read(length))
        except ValueError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        else:
            self._answer(path, given)

    def _answer(self, path: str | None, given: Any) -> None:
        try:
            found = None if path is None else self.server.answer(path, given)
        except (BadInput, ValueError, KeyError, TypeError) as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
        else:
            self._json(found)

    def _path(self) -> str | None:
        """What is asked for below the token; None where the token or the host is another."""
        own = self.headers.get("Host") == f"{HOST}:{self.server.server_port}"
        prefix = f"/{self.server.token}/"
        return self.path[len(prefix):] if own and self.path.startswith(prefix) else None

    def _json(self, value: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                            ("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; img-src data:")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal shows what matters."""
