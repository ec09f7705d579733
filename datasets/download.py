"""Fetching files over HTTP: resumed where they broke off, and compared with a checksum where one is known.

The unfinished file lies beside its destination as `<name>.part`, with a note of what the server said of it
(`<name>.part.json`). It takes the destination's name when it is whole and its checksum fits. Standard library only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onestride.hardware.durable import file_sha256, sync
from onestride.hardware.errors import OneStrideError

Progress = Callable[[int, "int | None"], None]
"""Called with (bytes here, bytes in all or None where the server does not say)."""

ATTEMPTS = 5
"""Connections in a row that may bring nothing before we give up."""
TIMEOUT = 30.0
"""Of a connection that says nothing [s]."""
LARGEST_DOCUMENT = 64 << 20

_BLOCK = 1 << 18
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Remote:
    """A file to fetch."""

    url: str
    path: str
    """Where it goes, relative to the destination's folder."""
    sha256: str | None = None
    git_blob: str | None = None
    """Git's own name of the content, where no SHA-256 is known."""
    size: int | None = None
    optional: bool = False
    """Whether its absence on the server is no error."""


@dataclass(frozen=True)
class Fetched:
    """What became of a file."""

    path: Path
    sha256: str
    verified: bool
    """Whether a checksum was known to compare with."""
    resumed: int = 0
    """Bytes that were already there."""
    size: int = 0


class _BrokenOffError(Exception):
    """The connection ended before the file did: worth another attempt."""


def fetch(remote: Remote, folder: Path, progress: Progress | None = None, pause: float = 1.0) -> Fetched | None:
    """Fetch a file into a folder; None where it is optional and the server has none.

    A file that is there already and fits its checksum is not fetched again.

    Args:
        remote: the file.
        folder: made where missing.
        progress: told as bytes arrive.
        pause: before the second attempt [s]; doubled before each further one.

    Raises:
        OneStrideError: the server refuses or cannot be reached, sent something else than the checksum says, or the disk
            refuses. What was there under the file's name before is untouched.
    """
    target = inside(folder, remote.path)
    if target.exists():
        return _already_there(remote, target)
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        resumed = _size(part)
        told = _persist(remote, part, progress or _silent, pause)
        return None if told is None else _finish(remote, part, target, told, resumed)
    except OSError as error:
        raise OneStrideError(f"expected to write {target}, got: {error}") from error


def read_json(url: str) -> tuple[Any, Mapping[str, str]]:
    """A small JSON document and the headers it came with.

    Raises:
        OneStrideError: the server refuses or cannot be reached, or sends no JSON.
    """
    try:
        with _open(url, {}) as response:
            return json.loads(response.read(LARGEST_DOCUMENT)), dict(response.headers)
    except urllib.error.HTTPError as error:
        raise OneStrideError(f"{url}: expected an answer, got HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise OneStrideError(f"{url}: expected an answer, got: {_reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise OneStrideError(f"{url}: expected JSON, got something else") from error


def read_sidecar(url: str) -> str | None:
    """The SHA-256 in the small text file that some servers keep beside a file; None where there is none."""
    try:
        with _open(url, {}) as response:
            found = re.search(r"\b[0-9a-fA-F]{64}\b", response.read(4096).decode("ascii", "replace"))
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return None
    return found.group().lower() if found else None


def inside(folder: Path, name: str) -> Path:
    """The path of a file whose name a server told: never outside the folder.

    Raises:
        OneStrideError: the name leads elsewhere.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name or "\\" in name:
        raise OneStrideError(f"expected the name of a file inside {folder}, got {name!r}")
    return folder / name


def _already_there(remote: Remote, target: Path) -> Fetched:
    found, size = file_sha256(target), _size(target)
    if wrong := _mismatch(remote, target, remote.sha256, found):
        raise OneStrideError(f"{target}: {wrong}: move it away to fetch it anew")
    verified = remote.sha256 is not None or remote.git_blob is not None
    return Fetched(target, found, verified, resumed=size, size=size)


def _persist(remote: Remote, part: Path, progress: Progress, pause: float) -> dict[str, str] | None:
    """Fetch with as many attempts as bring something on; what the server told, None = it has no such file."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _attempt(remote, part, progress)
        except _BrokenOffError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise OneStrideError(
                    f"{remote.url}: expected the whole file, got {error}, {failures} times in a row; "
                    f"{_size(part)} bytes are kept in {part}, the same command goes on from there"
                ) from error
            time.sleep(pause * 2 ** (failures - 1))


def _attempt(remote: Remote, part: Path, progress: Progress) -> dict[str, str] | None:
    """One connection, from where the last one broke off."""
    start, note = _resumable(remote, part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and "validator" in note:
        headers["If-Range"] = note["validator"]
    try:
        response = _open(remote.url, headers)
    except urllib.error.HTTPError as error:
        return _refused(remote, part, note, error)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(_reason(error)) from error
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise _BrokenOffError("another part of the file than was asked for")
        if not start:  # else, killed before the first new byte, the old ones would pass for what the note describes
            part.unlink(missing_ok=True)
        told = _told(response.headers)
        _note(part).write_text(json.dumps(told))
        _receive(response, part, start, progress)
    return told


def _refused(remote: Remote, part: Path, note: dict[str, str], error: urllib.error.HTTPError) -> dict[str, str] | None:
    if error.code == http.client.NOT_FOUND and remote.optional:
        return None
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range") == f"bytes */{_size(part)}":
            return note
        part.unlink(missing_ok=True)
        raise _BrokenOffError("a refusal to go on from there") from error
    if error.code >= 500 or error.code == http.client.TOO_MANY_REQUESTS:
        raise _BrokenOffError(f"HTTP {error.code}") from error
    raise OneStrideError(f"{remote.url}: expected the file, got HTTP {error.code} {error.reason}") from error


def _resumable(remote: Remote, part: Path) -> tuple[int, dict[str, str]]:
    """Where to go on, and what the server said of the file before.

    Without a checksum and without the server's word that the file is the same, the start may be of another file.
    """
    try:
        note = {str(key): str(value) for key, value in json.loads(_note(part).read_text()).items()}
    except (OSError, ValueError, AttributeError):
        note = {}
    known = "validator" in note or remote.sha256 is not None or remote.git_blob is not None
    return (_size(part) if known else 0), note


def _told(headers: Any) -> dict[str, str]:
    """What the headers say of the file: by what to recognise it when going on, and its SHA-256.

    Reference: RFC 9110, 13.1.5 (If-Range); RFC 9530 (Repr-Digest). An ETag of 64 digits alone may be any hash.
    """
    told = {}
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    if validator:
        told["validator"] = validator
    digest = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", headers.get("Repr-Digest", ""))
    try:
        sums = [base64.b64decode(digest.group(1)).hex()] if digest else []
    except binascii.Error:
        sums = []
    sums.append(headers.get("X-Linked-Etag", "").strip('"'))
    sums.append(etag.strip('"').removeprefix("sha256:") if etag.strip('"').startswith("sha256:") else "")
    for one in sums:
        if _SHA256.fullmatch(one.lower()):
            told.setdefault("sha256", one.lower())
    return told


def _receive(response: Any, part: Path, start: int, progress: Progress) -> None:
    length = response.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else None
    done = start
    with part.open("ab" if start else "wb") as file:
        progress(done, total)
        while block := _next(response):
            file.write(block)
            done += len(block)
            progress(done, total)
    if total is not None and done != total:
        raise _BrokenOffError(f"{done} of {total} bytes")


def _next(response: Any) -> bytes:
    try:
        block: bytes = response.read1(_BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(_reason(error)) from error
    return block


def _finish(remote: Remote, part: Path, target: Path, told: dict[str, str], resumed: int) -> Fetched:
    """Compare with what is known of the file, and give it its name."""
    found, size = file_sha256(part), _size(part)
    expected = remote.sha256 or told.get("sha256")
    wrong = _mismatch(remote, part, expected, found)
    _note(part).unlink(missing_ok=True)
    if wrong is not None:
        part.unlink()
        raise OneStrideError(f"{remote.url}: {wrong}; what arrived was removed")
    sync(part)
    part.rename(target)
    sync(target.parent)
    verified = expected is not None or remote.git_blob is not None
    return Fetched(target, found, verified, resumed=min(resumed, size), size=size)


def _mismatch(remote: Remote, path: Path, expected: str | None, found: str) -> str | None:
    """How a file differs from what is known of it.

    Args:
        remote: what its server's list says.
        path: the file.
        expected: its SHA-256, as far as anyone told.
        found: its SHA-256.
    """
    if expected is not None and found != expected:
        return f"expected SHA-256 {expected}, got {found}"
    if remote.git_blob is not None and expected is None and (blob := _git_blob(path)) != remote.git_blob:
        return f"expected git blob {remote.git_blob}, got {blob}"
    if remote.size is not None and _size(path) != remote.size:
        return f"expected {remote.size} bytes, got {_size(path)}"
    return None


def _git_blob(path: Path) -> str:
    digest = hashlib.sha1(f"blob {_size(path)}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _open(url: str, headers: dict[str, str]) -> Any:
    if not url.startswith(("https://", "http://")):
        raise OneStrideError(f"expected an address of http or https, got {url!r}")
    request = urllib.request.Request(url, headers={"User-Agent": "onestride", "Accept-Encoding": "identity", **headers})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _reason(error: BaseException) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(inner) or type(inner).__name__


def _silent(done: int, total: int | None) -> None:
    """No one listens."""
