"""Requests to a store through pyarrow, which finds credentials as each provider's own tools do (decision 0007).

Whole objects are written and read; an object becomes visible when all of it is there. A store that stops answering is
asked again for a while, where who asks has patience.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from record import files
from record.errors import BadInput, EnvironmentFailed
from record.storage import refusals

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo, FileSystem

T = TypeVar("T")
PATIENCE_SECONDS = 120.0
PAUSES = (0.2, 5.0)  # seconds before the second request, and at most
PIECE = 1 << 23  # bytes of a large file that are in memory at a time
# What stores say while they cannot be reached or have too much to do; refusals are not among them.
_PASSING = re.compile("NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTL|"
                      "curlCode|HTTP status 5|HTTP code 5|[Tt]imed out|[Tt]imeout was|[Cc]onnection (refused|reset)")


def connect(uri: str, key: str = "journal") -> tuple[FileSystem, str]:
    """(filesystem, path on it) of a URI; credentials are those that pyarrow finds in the environment.

    Args:
        key: what of a sweep names the URI, for messages.

    Raises:
        BadInput: no filesystem has such URIs, the bucket does not exist, or the store refuses.
        EnvironmentFailed: the store does not answer.
    """
    from pyarrow import fs

    filesystem, root = None, ""
    try:
        filesystem, root = fs.FileSystem.from_uri(_in_one_request(uri))
        bucket = root.split("/")[0]
        if bucket and filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
            raise BadInput(f"there is no {bucket!r}", source=uri, key=key,
                           remedy="create the bucket, or correct the address")
    except (ValueError, NotImplementedError) as error:
        raise BadInput(f"cannot be opened ({first_line(error)})", source=uri, key=key,
                       remedy="write a URI that pyarrow knows, such as s3://bucket/prefix") from None
    except OSError as error:
        if is_passing(error):
            what = f"the {key}'s store" if key == "journal" else "the store"
            raise EnvironmentFailed(f"{uri}: {what} cannot be reached ({first_line(error)}); check the "
                                    "address, the network and the credentials in the environment") from error
        said = str(error) if filesystem is None else refusals.in_full(filesystem, root, error)
        raise refusals.refusal(said, uri, key) from None
    return filesystem, root


def _in_one_request(uri: str) -> str:
    """S3 with the option that writes a small object in one request; otherwise each takes three."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or "allow_delayed_open" in parts.query:
        return uri
    return parts._replace(query="&".join(filter(None, [parts.query, "allow_delayed_open=true"]))).geturl()


def _tag(known: Mapping[str, bytes] | None) -> str:
    """The entity tag among what a store says of an object; each spells the word in its own way."""
    return next((value.decode() for name, value in (known or {}).items() if name.lower() == "etag"), "")


def first_line(error: BaseException) -> str:
    """The gist of a store's error."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

# Which stores do not answer this process, and since when: several of its threads may ask the same one.
_silent: dict[str, float] = {}
_guard = threading.Lock()


class Patience:
    """Repeats a request while its store does not answer; says so once a process, and once that it answers again.

    Args:
        seconds: for how long; 0 = a request is made once.
    """

    def __init__(self, where: str, seconds: float = 0.0, say: Callable[[str], object] | None = None,
                 clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._where, self._seconds, self._clock, self._sleep = where, seconds, clock, sleep
        self._say = say or (lambda text: os.write(2, f"{text}\n".encode()))  # what Python prints, Ray's log takes

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` returns; it must do no harm to do it twice.

        Raises:
            what it raises, once the store refuses, or has not answered for too long.
        """
        begun, pause = self._clock(), PAUSES[0]
        while True:
            try:
                found = act()
            except (OSError, EnvironmentFailed) as error:
                if not is_passing(error) or self._clock() - begun + pause > self._seconds:
                    raise
                self.trouble(error)
                self._sleep(pause)
                pause = min(2 * pause, PAUSES[1])
            else:
                self.over()
                return found

    def trouble(self, error: BaseException) -> None:
        """The store does not answer; said once, by who asks again: others, who do not, hear it as an error."""
        if not self._seconds:
            return
        with _guard:
            said = self._where in _silent
            _silent.setdefault(self._where, self._clock())
        if not said:
            self._say(f"{self._where} does not answer ({first_line(error)}); nothing is lost, it is asked again for "
                      f"{self._seconds:g} seconds")

    def over(self) -> None:
        """It has answered."""
        if not self._seconds:
            return
        with _guard:
            since = _silent.pop(self._where, None)
        if since is not None:
            self._say(f"{self._where} answers again after {self._clock() - since:.0f} seconds")


def is_passing(error: BaseException) -> bool:
    """Whether a request may succeed if it is made again: the store could not be reached, or had too much to do."""
    cause = error.__cause__ if isinstance(error, EnvironmentFailed) else error
    return isinstance(cause, OSError) and bool(_PASSING.search(str(cause)))


class Store:
    """What is kept under one URI, by names relative to it. Names with folders in them have slashes.

    Args:
        patience: seconds for which a store that does not answer is asked again.
        key: what of a config names the URI, for messages.
    """

    def __init__(self, uri: str, patience: float = 0.0, key: str = "storage") -> None:
        self.uri = uri
        self._patiently = Patience(uri, patience)
        self._filesystem, self._root = self._patiently(lambda: connect(uri, key))
        self._has_folders = urlsplit(uri).scheme in ("file", "hdfs", "viewfs")

    def listed(self, below: str = "", deep: bool = True) -> dict[str, FileInfo]:
        """Name -> what the store knows of it, of all that lies below a folder."""
        from pyarrow import fs

        top = self._path(below)
        select = fs.FileSelector(top, allow_not_found=True, recursive=deep)
        found = self._patiently(lambda: self._filesystem.get_file_info(select))
        return {info.path[len(self._root.rstrip("/")) + 1:]: info for info in found if info.type == fs.FileType.File}

    def has(self, *names: str) -> bool:
        """Whether one of these is there."""
        from pyarrow import fs

        asked = [self._path(name) for name in names]
        found = self._patiently(lambda: self._filesystem.get_file_info(asked))
        return any(info.type == fs.FileType.File for info in found)

    def folders(self) -> list[str]:
        """The names of the folders directly below, in order."""
        from pyarrow import fs

        select = fs.FileSelector(self._path(""), allow_not_found=True)
        found = self._patiently(lambda: self._filesystem.get_file_info(select))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""
        def ask() -> bytes | None:
            try:
                with self._filesystem.open_input_stream(self._path(name)) as stream:
                    content: bytes = stream.read(files.MOST_BYTES)
            except FileNotFoundError:
                return None
            return content

        return self._patiently(ask)

    def send(self, file: Path, name: str) -> None:
        """Replace an object by a file's content."""
        def put() -> None:
            if self._has_folders:
                self._filesystem.create_dir(self._path(name).rpartition("/")[0], recursive=True)
            with open(file, "rb") as source, self._filesystem.open_output_stream(
                    self._path(name), compression=None) as stream:
                while piece := source.read(PIECE):
                    stream.write(piece)

        self._patiently(put)

    def fetch(self, name: str, file: Path, mtime_ns: int) -> str:
        """Replace a file by an object's content, whole or not at all; it gets the object's time.

        It is not forced to the disk: it can be fetched again.

        Returns:
            the object's entity tag, as `tag` tells it.

        Raises:
            FileNotFoundError: there is no such object any more.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")

        def get() -> str:
            with self._opened(name) as stream, open(temporary, "wb") as target:
                while piece := stream.read(PIECE):
                    target.write(piece)
                return _tag(stream.metadata())

        try:
            tag = self._patiently(get)
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
            os.replace(temporary, file)
            return tag
        finally:
            temporary.unlink(missing_ok=True)

    def tag(self, name: str) -> str:
        """An object's entity tag, which another content does not have; '' where the store has none, or no object."""
        def ask() -> str:
            try:
                with self._opened(name) as stream:
                    return _tag(stream.metadata())
            except FileNotFoundError:
                return ""

        return self._patiently(ask)

    def _opened(self, name: str) -> NativeFile:
        """An object as it is; a compressed one stays so."""
        return self._filesystem.open_input_stream(self._path(name), compression=None)

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there stays so."""
        def gone() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.delete_file(self._path(name))

        self._patiently(gone)

    def check_writable(self) -> None:
        """Write, read and delete a small object.

        Raises:
            OSError: the store refuses.
        """
        name = f"probe-{secrets.token_hex(4)}"
        if self._has_folders:
            self._filesystem.create_dir(self._root, recursive=True)
        with self._filesystem.open_output_stream(self._path(name)) as stream:
            stream.write(b"can this be written\n")
        self.read(name)
        self.delete(name)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root.rstrip("/")
