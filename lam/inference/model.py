"""A trained model as a user has it: frames in, codes and frames out; it needs no data set.

Frames are latents as the data have them, never normalised: [T, C, H, W] of a video or [B, T, C, H, W], NumPy or torch.
Transition t leads from frame t to frame t + 1, so T frames have T - 1 actions. An action is S codes 0..K-1, a tuple.
Results are float32 tensors on the model's device, without the axis B where the frames came without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lam.config import RunConfig
from lam.inference.given import Actions, as_tensor, in_time, merged, windows_of
from lam.inference.naming import Naming
from lam.model.blocks import Memory
from lam.model.lam import LatentActionModel
from record.errors import BadInput

BATCH = 64  # windows that go through the model at a time where nobody says otherwise


class State(NamedTuple):
    """What `step` goes on from: the frames and actions that the decoder still sees, and its memory of them."""

    frames: Tensor
    vectors: Tensor
    memory: list[Memory]


class Step(NamedTuple):
    """The next frame, [B, C, H, W], and what to go on from."""

    frame: Tensor
    state: State


class ActionModel:
    """A latent action model with its weights, on a CPU or a GPU. `lam.load` opens one.

    Attributes:
        config: of the run that trained it.
        latent_shape: (C, H, W) of a frame.
        module: the torch module, in evaluation mode.
        provenance: which weights these are, where they came from, what was measured of them.
    """

    def __init__(self, module: LatentActionModel, latent_shape: tuple[int, int, int],
                 learn: Callable[[], Naming | None], provenance: Mapping[str, Any]) -> None:
        self.module, self.latent_shape, self.provenance = module.eval().requires_grad_(False), latent_shape, provenance
        self.config: RunConfig = module.config
        self._learn = learn

    @cached_property
    def naming(self) -> Naming | None:
        """What codes mean; None where no true action is known, or the data that a run learns it from are gone."""
        return self._learn()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.module.parameters()).device

    def to(self, device: str | torch.device) -> ActionModel:
        """The same model, moved."""
        self.module.to(device)
        return self

    @property
    def codebook(self) -> Tensor:
        """[books, K, Q] the vectors of the codes: a book for each residual slot, one for all parallel ones.

        Raises:
            BadInput: actions are continuous.
        """
        self._need_codes()
        numbers_K1 = torch.arange(self.config.num_embeddings, device=self.device)[:, None]
        return self.module.quantizer.lookup(numbers_K1.expand(-1, self.config.books)).transpose(0, 1)

    @torch.inference_mode()
    def encode(self, frames: Any, batch_size: int = BATCH) -> Actions:
        """The action of every transition of T >= 2 frames, of any length.

        Where there are more than `sequence_length` frames each transition is read as the last one of a window of that
        many, which is how a validation reads it; those at the beginning, which have no such window, at their place in
        the first one. Windows go through the model `batch_size` at a time.
        """
        latents, alone = self._batched(frames, 5, "frames")
        if latents.shape[1] < 2:
            raise BadInput(f"got {latents.shape[1]} frame, a transition needs 2", key="frames")
        parts = [self.read(windows) for video in latents for windows in windows_of(video, self._most, batch_size)]
        per_video = len(parts) // len(latents)
        videos = [merged(parts[first : first + per_video], in_time) for first in range(0, len(parts), per_video)]
        return videos[0] if alone else merged(videos, torch.stack)

    @torch.inference_mode()
    def read(self, windows_BTCHW: Tensor) -> Actions:
        """Every transition of windows of at most `sequence_length` frames, each at its place in its window."""
        windows_BTCHW = windows_BTCHW.to(self.device)
        z_e = self.module.encode(windows_BTCHW).float()
        quantized = self.module.quantize(z_e)
        if quantized.codes is None or self.config.quantizer == "fsq":
            distance = z_e.new_full(z_e.shape[:2], torch.nan)
        else:
            distance = (self.module.quantizer.restored(quantized.z_q) - z_e).flatten(2).norm(dim=-1)
        return Actions(quantized.codes, quantized.z_q, z_e, distance)

    @torch.inference_mode()
    def decode(self, frames: Any, actions: Any) -> Tensor:
        """The frame after each of L <= sequence_length - 1 true frames: [B, L, C, H, W] -> the same, one frame later.

        Args:
            actions: of each frame the one that follows it: codes [B, L, S], or vectors [B, L, S, Q].
        """
        latents, alone = self._batched(frames, 5, "frames")
        if latents.shape[1] >= self._most:
            raise BadInput(f"got {latents.shape[1]} frames, the decoder sees at most {self._most - 1} at once",
                           key="frames", remedy="go one by one with 'step', which forgets the oldest")
        vectors = self._vectors(actions, latents.shape[:2], alone)
        predicted = self.module.decode(latents, vectors)
        return predicted[0] if alone else predicted

    @torch.inference_mode()
    def step(self, frame: Any, action: Any, state: State | None = None) -> Step:
        """The frame after this one, [B, C, H, W], and the state to go on from.

        What came before counts through `state`, None at the beginning. The decoder sees the last sequence_length - 1
        frames, as in training: the step is what `decode` says of these.

        Args:
            action: codes [B, S], or vectors [B, S, Q].
        """
        latents, alone = self._batched(frame, 4, "frame")
        vectors_B1SQ = self._vectors(action, latents.shape[:1], alone)[:, None]
        latents_B1CHW = latents[:, None]
        if state is None:
            predicted, memory = self.module.follow(latents_B1CHW, vectors_B1SQ)
            state = State(latents_B1CHW, vectors_B1SQ, memory)
        else:
            predicted, state = self._go_on(latents_B1CHW, vectors_B1SQ, state)
        last = predicted[:, -1]
        return Step(last[0] if alone else last, state)

    def _go_on(self, latents_B1CHW: Tensor, vectors_B1SQ: Tensor, state: State) -> tuple[Tensor, State]:
        """With the memory while the window grows; once it is full it slides, and its frames are decoded anew."""
        known = self._most - 2
        frames = torch.cat([state.frames[:, -known:], latents_B1CHW], dim=1)
        vectors = torch.cat([state.vectors[:, -known:], vectors_B1SQ], dim=1)
        if state.frames.shape[1] <= known:
            predicted, memory = self.module.follow(latents_B1CHW, vectors_B1SQ, state.memory)
        else:
            predicted, memory = self.module.follow(frames, vectors)
        return predicted, State(frames, vectors, memory)

    @torch.inference_mode()
    def imagine(self, frames: Any, actions: Any) -> Tensor:
        """Frames that nobody has seen: [B, n, C, H, W], each predicted from the given ones and the predictions before.

        Args:
            frames: one frame [B, C, H, W] to begin with, or several [B, L, C, H, W]; both without B where the actions
                are.
            actions: [B, L - 1 + n, S] codes (or vectors): those between the given frames, then n chosen ones.
        """
        given = as_tensor(actions)
        alone = given.dim() == (3 if given.is_floating_point() else 2)
        latents = self._beginning(frames, alone)
        L, total = latents.shape[1], given.shape[0 if alone else 1]
        if total < L:
            raise BadInput(f"got {total} actions for {L} frames, expected at least {L}", key="actions",
                           remedy="give the actions between the frames, then those to imagine")
        vectors = self._vectors(given, (latents.shape[0], total), alone)
        state, found, frame = None, [], latents[:, 0]
        for place in range(total):
            frame, state = self.step(latents[:, place] if place < L else frame, vectors[:, place], state)
            if place >= L - 1:
                found.append(frame)
        made = torch.stack(found, dim=1)
        return made[0] if alone else made

    def actions_of(self, code: int | Sequence[int]) -> dict[str, float]:
        """The probability of each true action given an action's codes (or its number), likeliest first.

        Raises:
            BadInput: no such code, or the model was exported without labels.
        """
        if self.naming is None:
            raise BadInput("no true action is known of this model's training videos, so its codes have no names",
                           remedy="add true actions (lam label RUN --ask), then load or export the run again")
        codes = self.tuple_of(code) if isinstance(code, (int, np.integer)) else tuple(int(each) for each in code)
        shares = self.naming.shares(self._checked(np.array([codes])))[0]
        order = np.argsort(-shares, kind="stable")
        return {self.naming.names[place]: float(shares[place]) for place in order}

    def number(self, codes: Any) -> Any:
        """The number of an action's codes: [..., S] -> [...], 0 .. K^S - 1, the last slot counting fastest."""
        return (as_tensor(codes).cpu().numpy() * self._powers).sum(-1)

    def tuple_of(self, number: int) -> tuple[int, ...]:
        """The codes with this number; undoes `number`.

        Raises:
            BadInput: there is no such number.
        """
        most = self.config.num_embeddings**self.config.num_codes
        if not 0 <= number < most:
            raise BadInput(f"got {number}", key="number", remedy=f"an action's number is from 0 to {most - 1}")
        return tuple(int(number) // int(power) % self.config.num_embeddings for power in self._powers)

    # ---- what is given and what is meant

    @property
    def _most(self) -> int:
        return self.config.sequence_length

    @property
    def _powers(self) -> Any:
        return self.config.num_embeddings ** np.arange(self.config.num_codes, dtype=np.int64)[::-1]

    def _batched(self, values: Any, axes: int, key: str) -> tuple[Tensor, bool]:
        """A float32 tensor on the device with the axis B, and whether it came without."""
        given = as_tensor(values).to(self.device, torch.float32)
        if given.dim() not in (axes - 1, axes) or given.shape[-3:] != self.latent_shape:
            names = {5: "[B, T, {}] or [T, {}]", 4: "[B, {}] or [{}]"}[axes]
            wanted = names.replace("{}", ", ".join(map(str, self.latent_shape)))
            raise BadInput(f"got shape {list(given.shape)}, expected {wanted}", key=key)
        return (given[None], True) if given.dim() == axes - 1 else (given, False)

    def _beginning(self, frames: Any, alone: bool) -> Tensor:
        """[B, L, C, H, W] of one frame or several, of one video (`alone`) or of many."""
        given = as_tensor(frames)
        given = given[None] if alone else given
        return self._batched(given[:, None] if given.dim() == 4 else given, 5, "frames")[0]

    def _vectors(self, actions: Any, before: Sequence[int], alone: bool) -> Tensor:
        """[*before, S, Q] of codes or of vectors."""
        given = as_tensor(actions).to(self.device)
        given = given[None] if alone else given
        S, Q = self.config.num_codes, self.config.codebook_dim
        if given.is_floating_point():
            if given.shape != (*before, S, Q):
                raise BadInput(f"got vectors of shape {list(given.shape)}, expected {[*before, S, Q]}", key="actions")
            return given.float()
        self._need_codes()
        if given.shape != (*before, S):
            raise BadInput(f"got codes of shape {list(given.shape)}, expected {[*before, S]}", key="actions",
                           remedy=f"an action is {S} codes")
        self._checked(given)
        return self.module.quantizer.lookup(given.long()).float()

    def _checked(self, codes: Any) -> Any:
        K = self.config.num_embeddings
        if codes.shape[-1] != self.config.num_codes or int(codes.min()) < 0 or int(codes.max()) >= K:
            raise BadInput(f"got {codes.tolist()!r:.80}", key="codes",
                           remedy=f"an action is {self.config.num_codes} codes from 0 to {K - 1}")
        return codes

    def _need_codes(self) -> None:
        if self.config.quantizer == "none":
            raise BadInput("this model's actions are continuous (quantizer none): it has no codes", key="codes",
                           remedy="give vectors as 'encode' returns them")
