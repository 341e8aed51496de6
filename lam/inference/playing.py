"""`lam play RUN`: begin at a frame of a video, choose codes, see the future that the decoder makes of them."""

from __future__ import annotations

import time
import webbrowser
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from lam.data import windows
from lam.data.codec import BLOCK_FRAMES, Codec, png
from lam.data.index import headers
from lam.data.readers.registry import reader_of
from lam.data.sources import Direct
from lam.inference import opening
from lam.inference.model import ActionModel, State
from lam.inference.serving import LocalPage
from record.errors import BadInput
from record.storage import sets
from record.text import count

KEYS = 9  # codes that have a key of their own
LOOKED_AT = 8  # videos whose commonest codes these are
POLL_SECONDS = 0.2
TEMPLATE = "play.html"


class Game:
    """One model, the videos one can begin with, and where the play is.

    Attributes:
        keys: the commonest codes of the first videos, commonest first.
    """

    def __init__(self, model: ActionModel, folder: Path) -> None:
        self.model = model
        if model.config.quantizer == "none":
            raise BadInput("its actions are continuous, so there is no code to choose", key="quantizer",
                           remedy="play a model with codes")
        reader = reader_of(folder, model.config.latents)
        found, _ = headers(reader, reader.names())
        known = {name: each for name, each in found.items()
                 if each.info.frame_shape == model.latent_shape and each.info.latent_frames > 1}
        if not known:
            raise BadInput(f"holds no video of two or more frames of latents {list(model.latent_shape)}", source=folder,
                           remedy="name the folder whose latents the model knows")
        self.names, self.frames = list(known), [each.info.latent_frames for each in known.values()]
        self._source = Direct(reader, self.names, list(known.values()))
        coded = next((name for name, each in known.items() if each.info.codec), None)
        self.codec: Codec | None = windows.codec_in(reader.home(coded)) if coded else None
        self.keys = self._commonest()
        self.begin(0, 0)

    def _commonest(self) -> list[tuple[int, ...]]:
        seen: Counter[tuple[int, ...]] = Counter()
        for video in range(min(LOOKED_AT, len(self.names))):
            codes = self.model.encode(self._source.frames(video, 0, min(200, self.frames[video]))).codes
            assert codes is not None, "continuous actions were refused"
            seen.update(tuple(row) for row in codes.tolist())
        return [codes for codes, _ in seen.most_common(KEYS)]

    def begin(self, video: int, frame: int) -> None:
        """Begin at a latent frame of a video; those before it are shown to the model with their own codes.

        Raises:
            BadInput: no such video or frame.
        """
        if not (0 <= video < len(self.names) and 0 <= frame < self.frames[video]):
            raise BadInput(f"got frame {frame} of video {video}", key="begin",
                           remedy=f"there are {count(len(self.names), 'video')}, and so many frames as it has")
        first = max(0, frame - self.model.config.sequence_length + 1)
        given = np.array(self._source.frames(video, first, frame + 1 - first))
        state: State | None = None
        if len(given) > 1:
            codes = self.model.encode(given).codes
            assert codes is not None, "continuous actions were refused"
            for place, each in enumerate(codes):
                _, state = self.model.step(given[place], each, state)
        self.at, self.chosen = (video, frame), list[tuple[int, ...]]()
        self._past = [(given[-1], state)]

    def press(self, codes: tuple[int, ...]) -> None:
        """Take an action: the next frame is what the model says follows."""
        now, state = self._past[-1]
        frame, state = self.model.step(now, list(codes), state)
        self._past.append((frame.cpu().numpy(), state))
        self.chosen.append(codes)

    def undo(self) -> None:
        """Take back the last action, where there is one."""
        if self.chosen:
            self._past.pop()
            self.chosen.pop()

    def shown(self) -> dict[str, Any]:
        """What the page shows: pictures where the data has a codec, and numbers always."""
        now, start = self._past[-1][0], self._past[0][0]
        before = self._past[-2][0] if self.chosen else now
        return {
            "video": self.at[0], "frame": self.at[1], "name": self.names[self.at[0]], "videos": len(self.names),
            "frames": self.frames[self.at[0]], "steps": len(self.chosen),
            "chosen": [list(each) for each in self.chosen],
            "keys": [{"codes": list(codes), "means": self._means(codes)} for codes in self.keys],
            "start": self._pictures(start)[-1:], "film": self._pictures(before)[-1:] + self._pictures(now),
            "change": _rms(now - before), "away": _rms(now - start), "size": _rms(now),
            "codes": self.model.config.num_codes, "each": self.model.config.num_embeddings, "held": BLOCK_FRAMES,
        }

    def _means(self, codes: tuple[int, ...]) -> str:
        if self.model.naming is None:
            return ""
        name, share = next(iter(self.model.actions_of(codes).items()))
        return f"{name} {share:.0%}"

    def _pictures(self, frame: NDArray[np.float32]) -> list[str]:
        return [png(each) for each in self.codec.decode(frame[None])[0]] if self.codec else []

    def answer(self, path: str, given: Any) -> dict[str, Any] | None:
        """What the page asks for: the state, after what it sends was done."""
        if path == "begin" and given is not None:
            self.begin(int(given["video"]), int(given["frame"]))
        elif path == "press" and given is not None:
            self.press(tuple(int(each) for each in given["codes"]))
        elif path == "undo" and given is not None:
            self.undo()
        elif path != "state":
            return None
        return self.shown()


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def serve(where: str, data: Path | None, port: int, browser: bool, checkpoint: str | None = None) -> None:
    """Serve the page until Ctrl-C."""
    model = opening.load(where, checkpoint)
    folder = sets.brought(data or model.config.data_dir)
    if not folder.is_dir():
        raise BadInput("no such folder", source=folder, remedy=f"name the videos to begin with: lam play {where} DATA")
    game = Game(model, folder)
    with LocalPage(TEMPLATE, game.answer, port) as page:
        typer.echo(f"{count(len(game.names), 'video')} to begin with: {page.url}")
        typer.echo("keys 1 to 9 take the commonest actions, u takes one back, r begins again; Ctrl-C ends")
        if game.codec is None:
            typer.echo("the data has no codec, so the page shows numbers and no pictures")
        if model.naming is None:
            typer.echo("no true action is known of the training videos, or they are gone, so keys have no names")
        if browser:
            webbrowser.open(page.url)
        try:
            while True:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            typer.echo("")
