"""Files from the network: fetched once, kept in the cache, continued where a connection broke, and verified."""

from __future__ import annotations

import glob
import hashlib
import http.client
import os
import urllib.request
from pathlib import Path
from typing import IO

MAX_BYTES = 5 << 30
"""Longest file that is fetched unless the caller says otherwise; NVIDIA's networks of 1024×1024 take 0.4 GB."""
_BLOCK = 1 << 20
_TIMEOUT_SEC = 60


def cache_dir() -> Path:
    """Where fetched files are kept: $STYLEFORGE_CACHE, or ``styleforge`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "styleforge"
    return Path(os.environ.get("STYLEFORGE_CACHE", default))


def is_offline() -> bool:
    """Whether $STYLEFORGE_OFFLINE forbids downloads: it is set, and neither empty nor 0."""
    return os.environ.get("STYLEFORGE_OFFLINE", "") not in ("", "0")


def fetch(
    url: str, target: str | Path, *, sha256: str | None = None, offline: bool = False, max_bytes: int = MAX_BYTES
) -> Path:
    """Downloads a file, unless it is there already.

    What came before a connection broke is kept beside the target (``.<name>.<version>.part``), and the next call goes
    on from there, if the server can and still has the same version. Several processes may fetch one file at once.

    Args:
        url: Where it is.
        target: Where it goes; its folder is made if it is missing.
        sha256: Hexadecimal digest of the contents, or its first digits, as published file names have them; None
            checks nothing but the length.
        offline: Refuse to download; so does $STYLEFORGE_OFFLINE.
        max_bytes: Longest file that is fetched; longer ones are refused by what the server says, or once so much came.

    Returns:
        The target, which is whole whenever it exists.

    Raises:
        ValueError: The contents have another digest, or are too long; they are not kept.
        OSError: The file cannot be fetched or written, or this is offline.
    """
    target = Path(target)
    if target.exists():
        return target
    if offline or is_offline():
        raise FileNotFoundError(
            f"{url}: got no copy of it while downloads are forbidden, expected one at {target}; allow them "
            "(--offline, STYLEFORGE_OFFLINE) or put it there by hand"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _transfer(url, target, max_bytes)
        _verify(url, part, sha256)
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if target.exists():  # another process has brought it meanwhile
            return target
        reason = " ".join(str(error).split())
        raise OSError(f"{url}: could not be fetched ({reason}); try again, or put it at {target} by hand") from error
    for stale in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        stale.unlink(missing_ok=True)
    return target


def _transfer(url: str, target: Path, max_bytes: int) -> Path:
    """Brings all that the server has into a part file, beginning where an earlier call was cut off.

    Two processes at one part write the same bytes to the same places: each begins at the end of what is there.
    """
    with _request(url) as reply:
        stated = reply.headers.get("Content-Length", "")
        length = int(stated) if stated.isdecimal() else None
        if length is not None and length > max_bytes:
            raise _too_long(url, f"{length:,} bytes", max_bytes)
        # Parts carry their version in their names, so that no file is pieced together from two.
        version = f"{reply.headers.get('ETag') or reply.headers.get('Last-Modified')} {length}"
        part = target.with_name(f".{target.name}.{hashlib.sha256(version.encode()).hexdigest()[:8]}.part")
        part.touch()
        with part.open("r+b") as file:
            start = file.seek(0, os.SEEK_END)
            if length is not None and 0 < start < length:
                with _request(url, start) as rest:
                    file.seek(start if rest.status == http.client.PARTIAL_CONTENT else 0)
                    _copy(rest, file, max_bytes)
            elif start != length:
                file.seek(0)
                _copy(reply, file, max_bytes)
            if file.tell() > max_bytes:
                part.unlink()
                raise _too_long(url, f"more than {max_bytes:,} bytes", max_bytes)
            if length is not None and file.tell() != length:
                raise ConnectionError(f"the connection broke off after {file.tell()} of {length} bytes")
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    return part


def _copy(reply: http.client.HTTPResponse, file: IO[bytes], max_bytes: int) -> None:
    """Writes what comes behind what is there, and ends one block after the limit."""
    while file.tell() <= max_bytes and (block := reply.read(_BLOCK)):
        file.write(block)


def _too_long(url: str, got: str, max_bytes: int) -> ValueError:
    return ValueError(
        f"{url}: got a file of {got}, expected at most {max_bytes:,}; is it a checkpoint? If so, fetch it by hand and "
        "give its path"
    )


def _request(url: str, start: int = 0) -> http.client.HTTPResponse:
    """Asks for a file, from byte ``start`` on."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SEC)
    return reply


def _verify(url: str, part: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256.lower()):
        part.unlink()
        raise ValueError(f"{url}: got contents with the SHA-256 {digest}, expected {sha256}; try again or elsewhere")
