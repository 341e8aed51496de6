"""The card of an exported model: what it is, how to use it, its figures, and what they do not say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from lam.config import RunConfig
from lam.inference.exported import CONFIG, DOCUMENT, WEIGHTS, Export
from lam.metrics import TABLE
from record.text import count

FIGURES = ("val/objective", "val/mse_loss", "val/mse_copy", "val/action_skill", "val/action_skill_low",
           "val/action_skill_high", "val/action_accuracy", "val/action_majority", "val/control", "val/control_low",
           "val/control_high", "val/perplexity_slot", "val/perplexity_joint", "val/codebook_usage", "val/dsnr",
           "val/scored_transitions", "val/scored_files", "val/labelled_transitions")

USE = """```python
import lam

model = lam.load("{folder}")              # needs no data set
found = model.encode(frames)          # frames [T, C, H, W] -> found.codes [T-1, S]
frame, state = model.step(frames[0], found.codes[0])
future = model.imagine(frames[0], found.codes)   # [T-1, C, H, W], each from the prediction before it
```"""

PROGRAM_USE = {"encode.pt2": " (windows [B, T, C, H, W] -> codes [B, T-1, S], embedding; T = sequence_length)",
               "step.pt2": " (the last T-1 frames [B, T-1, C, H, W], codes [B, T-1, S] -> the next frame [B, C, H, W])"}


def text(known: Export, config: RunConfig) -> str:
    """The card as Markdown."""
    return "\n".join([*_what(known, config), "", "## Use", "", USE.format(folder="."), "", *_frames(known, config), "",
                      "## Figures", "", *_figures(known), "", "## What the codes mean", "", *_actions(known), "",
                      "## Limits", "", *_limits(known, config), "", "## Where it comes from", "", *_origin(known), ""])


def _what(known: Export, config: RunConfig) -> Iterator[str]:
    kind = "continuous actions" if config.quantizer == "none" else (
        f"actions of {count(config.num_codes, 'code')} from {config.num_embeddings} "
        f"({config.slots} slots, quantizer {config.quantizer})")
    yield f"# Latent action model {known.run or ''}".rstrip()
    yield ""
    yield f"It reads {kind} between consecutive latent frames of a video, and predicts the next frame from an action."
    yield (f"Files: `{WEIGHTS}` (weights by name, float32), `{CONFIG}` (the complete config), `{DOCUMENT}` (shapes, "
           "codes' meanings, figures and provenance).")
    made = [each["file"] for each in known.programs.values() if each.get("written")]
    if made:
        yield ("`torch.export.load(FILE).module()` runs without the package that wrote it: " + ", ".join(
            f"`{file}`{PROGRAM_USE[file]}" for file in made) + ".")


def _frames(known: Export, config: RunConfig) -> Iterator[str]:
    C, H, W = known.latent_shape
    yield (f"A frame is a float array [{C}, {H}, {W}] of latents exactly as the training data had them: nothing is "
           "normalised. Transition t leads from frame t to frame t + 1.")
    yield (f"The model saw {config.sequence_length} frames at a time; longer videos are read in windows of that many, "
           "each transition as the last one of its window.")
    if known.chunk_frames:
        yield f"The training videos' latents were encoded {count(known.chunk_frames, 'frame')} at a time."


def _figures(known: Export) -> Iterator[str]:
    found = {key: known.metrics[key] for key in FIGURES if _is_number(known.metrics.get(key))}
    if not found:
        yield "No validation of these weights is on record."
        return
    yield f"On the validation videos, after epoch {known.metrics.get('epoch')}:"
    yield ""
    yield "| figure | value | better | formula |"
    yield "|---|---|---|---|"
    for key, value in found.items():
        better = {"up": "higher", "down": "lower", "none": ""}[TABLE[key].direction]
        formula = TABLE[key].formula.replace("|", "\\|")
        yield f"| `{key}` | {value:.4g} | {better} | {formula} |"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _actions(known: Export) -> Iterator[str]:
    if not known.actions:
        yield "No true action of the training videos was known: the codes have no names."
        return
    names, counts = known.actions["names"], known.actions["counts"]
    seen = [sum(row[number] for row in counts) for number in range(len(names))]
    yield (f"`model.actions_of(codes)` gives the probability of each true action, from {sum(seen)} transitions of "
           f"training videos and {len(counts)} code tuples: " + ", ".join(
               f"{name} {each}" for name, each in zip(names, seen, strict=True)) + ".")


def _limits(known: Export, config: RunConfig) -> Iterator[str]:
    yield "- It was measured on videos like those it was trained on; nothing is known of others."
    if not _is_number(known.metrics.get("val/action_skill")):
        yield "- Whether the codes mean an action was not checked: the validation videos have no true actions."
    low = known.metrics.get("val/control_low")
    if _is_number(low) and float(low or 0) <= 0:
        yield "- The decoder may not follow the actions: the interval of `val/control` holds 0."
    yield (f"- Predictions were trained and scored up to {count(config.sequence_length - 1, 'step')} from a true "
           "frame; what is imagined further on drifts.")
    if config.time_positions == "learned":
        yield "- A transition's code depends a little on its place in the window (learned positions)."


def _origin(known: Export) -> Iterator[str]:
    yield f"- run {known.run}, {known.checkpoint} weights, SHA-256 `{known.weights_sha256}`"
    yield f"- config fingerprint `{known.config_fingerprint}`, data fingerprint `{known.data_fingerprint}`"
    yield "- " + ", ".join(f"{name} {number}" for name, number in known.versions.items())
