"""The local page on which a person answers: served to this machine alone, under an address that nobody can guess."""

from __future__ import annotations

import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from lam.data.codec import BLOCK_FRAMES
from lam.labelling.questions import Session
from record.errors import BadInput

HOST = "127.0.0.1"
MOST_BYTES = 1000  # of an answer


class Page(ThreadingHTTPServer):
    """A session's page, served inside a with-block; `url` opens it."""

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self.session, self.token = session, secrets.token_urlsafe(16)
        self.url = f"http://{HOST}:{self.server_port}/{self.token}/"

    def __enter__(self) -> Page:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Page

    def do_GET(self) -> None:
        """The page, or a question as JSON."""
        path = self._path()
        if path == "":
            html = resources.files("lam").joinpath("templates/ask.html").read_bytes()
            self._send(HTTPStatus.OK, html, "text/html; charset=utf-8")
        elif path is not None and path.startswith("question/") and path[9:].isdecimal():
            self._json(question(self.server.session, int(path[9:])))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")

    def do_POST(self) -> None:
        """An answer: {"number": N, "action": NAME or null}."""
        length = int(self.headers.get("Content-Length") or 0)
        if self._path() != "answer" or length > MOST_BYTES:
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
            return
        try:
            asked = json.loads(self.rfile.read(length))
            self.server.session.answer(int(asked["number"]), asked["action"])
        except (BadInput, ValueError, KeyError, TypeError) as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        else:
            self._json({"given": self.server.session.given})

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


def question(session: Session, number: int) -> dict[str, Any]:
    """A question as the page shows it; `done` where all were answered."""
    total = len(session.questions)
    if number >= total:
        return {"done": True, "given": session.given, "total": total}
    asked = session.questions[number]
    return {"done": False, "number": number, "total": total, "given": session.given, "file": asked.file,
            "frame": asked.frame, "names": session.names, "fixed": session.fixed,
            "pictures": session.pictures(number), "led_into": BLOCK_FRAMES}
