"""Which stores a reader of a sweep folder connects to: never to one that the folder alone names.

Who connects sends credentials, so the server must be the reader's choice. A plain URI names a bucket, and the server
is the provider's or the one that the environment names. A URI that names a server itself (an end point, a scheme, a
proxy, a host) is read from only where the environment's LAM_JOURNALS allows it.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from record.errors import BadInput

ALLOWED = "LAM_JOURNALS"

_BUCKET = r"(?:anonymous@)?[A-Za-z0-9][A-Za-z0-9._-]*"
_CONTAINER = r"(?:[A-Za-z0-9-]+@)?[A-Za-z0-9-]+(?:\.(?:blob|dfs)\.core\.windows\.net)?"
_PLAIN = {"s3": _BUCKET, "gs": _BUCKET, "gcs": _BUCKET, "abfs": _CONTAINER, "abfss": _CONTAINER, "file": ""}
_HARMLESS = {"region": r"[a-z0-9-]+", "allow_delayed_open": "true|false"}


def is_plain(uri: str) -> bool:
    """Whether a URI leaves to the reader's environment which server is asked, and how."""
    parts = urlsplit(uri)
    place = _PLAIN.get(parts.scheme)
    options = parse_qsl(parts.query, keep_blank_values=True)
    return (place is not None and re.fullmatch(place, parts.netloc) is not None
            and all(re.fullmatch(_HARMLESS.get(name, "(?!)"), value) for name, value in options))


def is_allowed(uri: str, allowed: str) -> bool:
    """Whether one of the URIs in `allowed`, which spaces separate, is this one or a folder above it."""
    return any(_covers(urlsplit(word), urlsplit(uri)) for word in allowed.split())


def _covers(above: SplitResult, below: SplitResult) -> bool:
    same = (above.scheme, above.netloc, sorted(parse_qsl(above.query, keep_blank_values=True))) == (
        below.scheme, below.netloc, sorted(parse_qsl(below.query, keep_blank_values=True)))
    return same and ".." not in below.path and f"{below.path.rstrip('/')}/".startswith(f"{above.path.rstrip('/')}/")


def check(uri: str, source: str | Path, key: str, allowed: str | None = None) -> None:
    """Refuse a URI that a folder holds and that no reader may connect to unasked.

    Args:
        allowed: what stands in for the environment's LAM_JOURNALS.

    Raises:
        BadInput: with the words that allow it.
    """
    if not (is_plain(uri) or is_allowed(uri, os.environ.get(ALLOWED, "") if allowed is None else allowed)):
        raise BadInput(f"names the server that the journal is read from ({uri[:200]!r}), and would be sent your "
                       "credentials", source=source, key=key, remedy=f"if you trust it, {words(uri)}; otherwise do not "
                       "read this folder")


def is_a_record(source: str | Path) -> bool:
    """Whether a YAML lies in a sweep folder: then it came with the folder, as sweep.json did."""
    return (Path(source).parent / "sweep.json").exists()


def words(uri: str) -> str:
    """How a reader allows a URI."""
    return f"set {ALLOWED}={shlex.quote(uri)} in the environment"
