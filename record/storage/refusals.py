"""What a store's refusal means for the person who asked, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from record.errors import BadInput

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# What the store says -> what is wrong, and the remedy. Names are S3's, as pyarrow or the store itself writes them.
MEANINGS = (
    (r"configured region is '\S*' while the bucket is located in '(?P<region>[\w-]+)'",
     "the bucket lies in the region {region}, and was asked for elsewhere",
     "set AWS_DEFAULT_REGION={region}, or write ?region={region} after the address"),
    (r"Bucket '(?P<bucket>[^']*)' not found|NO_SUCH_BUCKET|NoSuchBucket",
     "there is no such bucket", "create the bucket, or correct the address"),
    (r"ExpiredToken|EXPIRED_TOKEN|REQUEST_EXPIRED|TokenRefreshRequired",
     "the credentials have expired", "get new ones ('aws sso login', for example), then run the same command again"),
    (r"INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|InvalidToken",
     "the store does not know the access key",
     "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN, or the profile that AWS_PROFILE names"),
    (r"SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch",
     "the secret key does not belong to the access key", "check AWS_SECRET_ACCESS_KEY"),
    (r"RequestTimeTooSkewed|REQUEST_TIME_TOO_SKEWED",
     "this machine's clock is off by more than the store allows", "set the clock"),
)
NONE_FOUND = ("no credentials were found in the environment or in ~/.aws",
              "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run 'aws configure'")
NOT_ALLOWED = ("the credentials may not use it",
               "check the address; its owner can allow them to list, read, write and delete there")
_FROM_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
                     "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


def refusal(said: str, uri: str, key: str, environment: Mapping[str, str] = os.environ) -> BadInput:
    """The error that a command ends with where a store refuses to be used at all.

    Args:
        said: the store's words.
        key: what names the URI, for the message.
    """
    gist = said.strip().splitlines()[0][:300] if said.strip() else "it gives no reason"
    what, remedy = meaning(said, uri, environment) or (
        "refuses", "check the address, its region (AWS_DEFAULT_REGION) and the credentials in the environment, which "
        "must be allowed to list, read, write and delete there")
    return BadInput(f"{what} ({gist})", source=uri, key=key, remedy=remedy)


def meaning(said: str, uri: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """(what is wrong, the remedy) of a store's words; None where they say nothing that is known."""
    for pattern, what, remedy in MEANINGS:
        if found := re.search(pattern, said):
            names = found.groupdict()
            return what.format(**names), remedy.format(**names)
    if re.search("ACCESS_DENIED|AccessDenied|HTTP status 40[13]", said):
        return NONE_FOUND if uri.startswith("s3:") and not _has_credentials(environment) else NOT_ALLOWED
    return None


def _has_credentials(environment: Mapping[str, str]) -> bool:
    """Whether there are any on this machine; a machine's own role, which only its provider knows, is not asked for."""
    home = Path(environment.get("HOME") or "~").expanduser() / ".aws"
    files = (environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials",
             environment.get("AWS_CONFIG_FILE") or home / "config")
    return any(environment.get(name) for name in _FROM_ENVIRONMENT) or any(Path(file).is_file() for file in files)


def in_full(filesystem: FileSystem, root: str, error: OSError) -> str:
    """The store's words: to whether a bucket is there it answers without any, to what it holds with the reason."""
    from pyarrow import fs

    if "No response body" not in str(error):
        return str(error)
    try:
        filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    except OSError as other:
        return f"{other}\n{error}"
    return str(error)
