"""Fetch a file: resumable, with progress, retries and a size check; whole under its name or not at all."""

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

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte before a try counts as stalled
TRIES = 5


def cache_folder() -> Path:
    """Where downloads are kept: $VIT_JAX_CACHE, else ~/.cache/vit_jax. Raises InputError when that is a file."""
    folder = Path(os.environ.get("VIT_JAX_CACHE") or Path.home() / ".cache" / "vit_jax")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set VIT_JAX_CACHE to one")
    return folder


class _Interrupted(Exception):
    """The transfer broke off; what arrived is kept and the next try goes on from there."""


def download_file(
    address: str,
    path: str | os.PathLike,
    *,
    md5: str | None = None,
    timeout: float = TIMEOUT,
    tries: int = TRIES,
    wait: Callable[[int], float] = lambda attempt: min(2.0**attempt, 30.0),
) -> None:
    """Fetch `address` into `path`; a file that is there already is left as it is.

    Bytes go to `path`.partial first, from which a later call resumes. wait: seconds before try 1, 2, ...
    Raises InputError naming the address after `tries` failures, at once for an answer that a retry does not mend
    (404), and when the content's MD5 is not the one expected.
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
            if error.code == 416:  # what is kept is no prefix of what the server has now
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


def _fetch(address: str, partial: Path, timeout: float) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status != 206:
            have = 0  # the server starts from the beginning
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        meter = _Meter(partial.name.removesuffix(".partial"), have, total)
        with open(partial, "ab" if have else "wb") as file:
            while chunk := answer.read1(CHUNK):
                file.write(chunk)
                have += len(chunk)
                meter.at(have)
        meter.end()
    if total is not None and have != total:
        raise _Interrupted(f"broke off at {have} of {total} bytes")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class _Meter:
    """Progress on stderr: megabytes, rate and time left; every 10 s where it is no terminal."""

    def __init__(self, name: str, start: int, total: int | None):
        self.name, self.start, self.total = name, start, total
        self.began = self.shown = time.monotonic()
        self.done = start

    def at(self, done: int) -> None:
        self.done = done
        now = time.monotonic()
        if now - self.shown >= (0.5 if sys.stderr.isatty() else 10.0):
            self.shown = now
            self.show(now, "\r" if sys.stderr.isatty() else "\n")

    def end(self) -> None:
        self.show(time.monotonic(), "\n")

    def show(self, now: float, end: str) -> None:
        rate = (self.done - self.start) / max(now - self.began, 1e-6)
        of = f" of {self.total / 1e6:.1f}" if self.total else ""
        left = f", {max(0, self.total - self.done) / max(rate, 1):.0f} s left" if self.total else ""
        line = f"{self.name}: {self.done / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s{left}"
        print(line, end=end, file=sys.stderr, flush=True)
