"""Addresses of stores: what may be one, and places below it. Pure; opens no connection."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

# Parts of names of URI options that carry a secret.
_SECRET = ("key", "secret", "token", "password", "sig", "credential")

# What `pyarrow.fs.FileSystem.from_uri` opens.
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")


def is_one(text: str | Path) -> bool:
    """Whether a command's word names a store rather than a folder of this machine."""
    return str(text).split("://")[0] in SCHEMES and "://" in str(text)


def problem(uri: str) -> str | None:
    """What is wrong with a URI as it is written; None where nothing is."""
    parts = urlsplit(uri)
    hidden = [name for name, _ in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET)]
    if parts.password or hidden or (parts.username and parts.scheme == "s3"):
        return ("holds a credential, which would be written into the sweep's records; give credentials in the "
                "environment, as pyarrow reads them")
    if "://" not in uri:
        return f"got {uri[:80]!r}, expected a URI such as s3://bucket/prefix"
    if uri.split("://")[0] not in SCHEMES:
        return f"got {uri[:80]!r}, which no store has; it begins with one of {', '.join(SCHEMES)} and ://"
    if parts.scheme == "file" and not parts.path.strip("/"):
        return f"got {uri[:80]!r}, which names no folder; for example file:///shared/journals"
    return None


def place(uri: str, name: str) -> Path | str:
    """Where the journal of the sweep `name` is kept under `uri`: a folder, or the URI of a prefix of objects."""
    return Path(unquote(urlsplit(below(uri, name)).path)) if uri.startswith("file:") else below(uri, name)


def below(uri: str, name: str) -> str:
    """The URI of what lies under another one."""
    parts = urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def above(uri: str) -> tuple[str, str]:
    """(the URI of the prefix in which something lies, its own name)."""
    parts = urlsplit(uri)
    prefix, _, name = parts.path.rstrip("/").rpartition("/")
    return parts._replace(path=prefix).geturl(), name
