"""Download a file: resumable, with progress, retries and a size check. A file is complete or does not exist."""

import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from vit_jax.errors import InputError
from vit_jax.notes import note
from vit_jax.progress import open_progress

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte before an attempt counts as stalled
TRIES = 5


def cache_folder() -> Path:
    """Return the folder of downloads: $VIT_JAX_CACHE, else ~/.cache/vit_jax. Raises InputError when it is a file."""
    folder = Path(os.environ.get("VIT_JAX_CACHE") or Path.home() / ".cache" / "vit_jax")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set VIT_JAX_CACHE to one")
    return folder


class _Interrupted(Exception):
    """The connection ended early. The next attempt resumes after the bytes received so far."""


def download_file(
    address: str,
    path: str | os.PathLike,
    *,
    md5: str | None = None,
    timeout: float = TIMEOUT,
    tries: int = TRIES,
    wait: Callable[[int], float] = lambda attempt: min(2.0**attempt, 30.0),
) -> None:
    """Download `address` to `path`, unless that file exists.

    Bytes are written to `path`.partial first, from which a later call resumes. wait: seconds before attempt 1, 2, ...
    Raises InputError naming the address after `tries` failures, at once for a status that a retry does not change
    (404), and when the content does not have the expected MD5.
    """
    path = Path(path)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    reason = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(wait(attempt))
        try:
            _fetch(address, partial, timeout)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # range not satisfiable: the partial file is longer than the server's
                partial.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                raise InputError(f"{address}: {error.code} {error.reason}; fetch it by hand into {path}") from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException, _Interrupted) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    else:
        raise InputError(f"{address}: {reason}, {tries} times; try again to resume, or fetch it by hand into {path}")
    if md5 is not None and _md5(partial) != md5:
        partial.unlink()
        raise InputError(f"{address}: the content is not the expected one (MD5 is not {md5}); try again")
    partial.rename(path)
    note(f"downloaded {path}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def _fetch(address: str, partial: Path, timeout: float) -> None:
    """Download into a partial file once, from where it ends. Raises _Interrupted when the size is not as announced."""
    received = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={received}-"} if received else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if response.status != 206:
            received = 0  # the server ignores the range and starts from the beginning
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        name = partial.name.removesuffix(".partial")
        with (
            open(partial, "ab" if received else "wb") as file,
            open_progress(total, unit="B", scale=True, initial=received, description=name) as bar,
        ):
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if total is not None and received != total:
        raise _Interrupted(f"broke off at {received} of {total} bytes")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
