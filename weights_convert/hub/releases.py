"""Released checkpoints by name, and a cache for them.

A file is downloaded once, resumably, into the cache. Its SHA-256 is recorded next to it and checked on every use. When
two processes need the same file, the second waits for the first.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from vit_jax import InputError
from vit_jax.download import cache_folder, download_file
from vit_jax.files import atomic_write
from vit_jax.notes import note
from vit_jax.suggest import did_you_mean
from weights_convert.hub.timm_tags import DEFAULT_TAGS

OFFLINE = "VIT_JAX_OFFLINE"
LUKEMELAS = "https://github.com/lukemelas/PyTorch-Pretrained-ViT/releases/download/0.0.2"
CATR = "https://github.com/saahiluppal/catr/releases/download"
NEVER_RELEASED = {"L_16": "L_16_imagenet1k"}

# Literals, so that type checkers know which model load_pretrained returns.
ImageReleaseName = Literal[
    "B_16", "B_32", "L_32", "B_16_imagenet1k", "B_32_imagenet1k", "L_16_imagenet1k", "L_32_imagenet1k"
]
CaptionReleaseName = Literal["catr_v1", "catr_v2", "catr_v3"]


@dataclass(frozen=True)
class Release:
    """A released file.

    sha256:       of the content; None accepts what the first download brings.
    architecture: the model's name in vit_jax.CONFIGS or caption.CONFIGS; default: the release's own name.
    """

    name: str
    url: str
    layout: str
    licence: str
    sha256: str | None = None
    architecture: str = ""

    def __post_init__(self) -> None:
        if not self.architecture:
            object.__setattr__(self, "architecture", self.name)

    @property
    def file_name(self) -> str:
        """The file's name in the cache."""
        return self.url.rpartition("/")[2]


RELEASES: dict[str, Release] = {
    name: Release(name, f"{LUKEMELAS}/{name}.pth", "lukemelas", "Apache-2.0") for name in get_args(ImageReleaseName)
} | {
    name: Release(name, f"{CATR}/{path}", "catr", "Apache-2.0", architecture="catr")
    for name, path in (
        ("catr_v1", "0.1/weights_9348032.pth"),
        ("catr_v2", "0.2/weight389123791.pth"),
        ("catr_v3", "0.2/weight493084032.pth"),
    )
}


def is_offline() -> bool:
    """Return whether $VIT_JAX_OFFLINE forbids network access."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def find_release(name: str) -> Release:
    """Return a release by name. Raises InputError for an unknown name, and for L_16, which was never released."""
    if name in NEVER_RELEASED:
        raise InputError(f"{name} was never released; {NEVER_RELEASED[name]} was")
    if name not in RELEASES:
        raise InputError(
            f"no released checkpoint {name!r}: one of {', '.join(RELEASES)}, a name of timm, hf:owner/name, "
            f"or the path of a file or folder{did_you_mean(name, [*RELEASES, *DEFAULT_TAGS])}"
        )
    return RELEASES[name]


def fetch_release(release: Release, *, cache: str | os.PathLike | None = None, **options: Any) -> Path:
    """Return the path of a released file in the cache, after downloading it if necessary.

    options: those of download_file().
    Raises InputError if it cannot be downloaded (with VIT_JAX_OFFLINE set, the message says where to put the file), and
    if its content is not what was released or first downloaded.
    """
    folder = cache_folder() if cache is None else Path(cache)
    path = folder / release.file_name
    if not path.is_file() and is_offline():
        raise InputError(f"{release.name} is not in the cache and {OFFLINE} is set; put {release.url} at {path}")
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / f"{release.file_name}.lock"):
        if not path.is_file():
            note(f"{release.name}: fetching {release.url} into {folder}", file=sys.stderr)
        download_file(release.url, path, **options)
        _check_sha256(path, release)
    return path


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs. If another process holds it, say so and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        note(f"another process is fetching {path.stem}; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_sha256(path: Path, release: Release) -> None:
    """Compare the file with its release or its first download; record the first download."""
    record = path.with_name(path.name + ".sha256")
    expected = release.sha256 or (record.read_text().split()[0] if record.is_file() else None)
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is None:
        with atomic_write(record) as partial:
            partial.write_text(f"{actual}  {path.name}\n")
    elif actual != expected:
        raise InputError(f"{path}: its SHA-256 is not {expected}; delete the file to fetch it again")
