"""The local page on which a person says which action it was."""

from __future__ import annotations

from typing import Any

from lam.data.codec import BLOCK_FRAMES
from lam.inference.serving import LocalPage
from lam.labelling.questions import Session


class Page(LocalPage):
    """A session's page, served inside a with-block; `url` opens it."""

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__("ask.html", self._answered, port)
        self.session = session

    def _answered(self, path: str, given: Any) -> dict[str, Any] | None:
        """A question; or, to {"number": N, "action": NAME or null}, how many answers there are."""
        if given is None and path.startswith("question/") and path[9:].isdecimal():
            return question(self.session, int(path[9:]))
        if given is not None and path == "answer":
            action = given["action"]
            self.session.answer(int(given["number"]), action if action is None else str(action))
            return {"given": self.session.given}
        return None


def question(session: Session, number: int) -> dict[str, Any]:
    """A question as the page shows it; `done` where all were answered."""
    total = len(session.questions)
    if number >= total:
        return {"done": True, "given": session.given, "total": total}
    asked = session.questions[number]
    return {"done": False, "number": number, "total": total, "given": session.given, "file": asked.file,
            "frame": asked.frame, "names": session.names, "fixed": session.fixed, "numbered": session.numbered,
            "pictures": session.pictures(number), "led_into": BLOCK_FRAMES}
