"""Numbers and words as people read them: the same on a terminal, in a journal's sentences and in a report. Pure."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"


def finite(value: Any) -> float | None:
    """`value` as a float, None where it is absent, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer that no float holds
        return None


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without needless exponents; a dash where there is no number."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) < 1e-12:
        return "0"  # what is left of a sum that cancels
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def short(value: float | None, missing: str = "not finite") -> str:
    """Four significant digits as they would be typed again; `missing` where there is no number."""
    return missing if value is None or math.isnan(value) else f"{value:.4g}"


def seen(value: float | str | None) -> str:
    """What a health rule saw: a word, or a number that may not be defined."""
    return value if isinstance(value, str) else short(value, "not defined")


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, empty where a bound is missing."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def share(part: float | None, whole: float | None = 1, digits: int = 0) -> str:
    """part/whole in per cent."""
    return MISSING if part is None or not whole else f"{100 * part / whole:.{digits}f} %"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def value_text(value: Any) -> str:
    """A knob's value as text."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: MISSING}[value]
    if isinstance(value, (int, float)):
        return number(float(value)) if isinstance(value, float) else str(value)
    return printable(str(value))


def words(name: str) -> str:
    """A verdict, a comparison or another name of the code, as it is said."""
    return name.replace("_", " ")


def count(amount: int, noun: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def full_stop(sentence: str) -> str:
    """The sentence with a full stop, unless it ends with one or another mark."""
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal or break a line made visible."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shown(text: str) -> str:
    """Lines as they leave for a terminal: each `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def gist(error: BaseException) -> str:
    """The first line of an error's message, shortened and printable."""
    return printable(next(iter(str(error).strip().splitlines()), "no message")[:200])
