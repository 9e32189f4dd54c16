"""Released checkpoints by name: where they lie, a cache for them, and models out of it.

A file is fetched once, resumably, into the cache; its SHA-256 is recorded beside it and compared whenever it is used.
Two processes that want the same file do not meet: the second waits, and finds it there.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vit_jax import InputError
from vit_jax.download import cache_folder, download_file
from vit_jax.files import atomic_write
from weights_convert._convert import convert
from weights_convert.hub.repository import PREFIX, fetch_repository
from weights_convert.kinds import kind_of_saved

OFFLINE = "VIT_JAX_OFFLINE"
LUKEMELAS = "https://github.com/lukemelas/PyTorch-Pretrained-ViT/releases/download/0.0.2"
CATR = "https://github.com/saahiluppal/catr/releases/download"
NEVER_RELEASED = {"L_16": "L_16_imagenet1k"}


@dataclass(frozen=True)
class Release:
    """A released file.

    sha256:  the content's, where it is known; else what the first download had counts.
    trained: the named architecture that it is trained weights of; "" where that has the release's own name.
    """

    name: str
    address: str
    layout: str
    licence: str
    sha256: str | None = None
    trained: str = ""

    @property
    def architecture(self) -> str:
        """The name in vit_jax.CONFIGS, which has image size and classes, or in caption.CONFIGS."""
        return self.trained or self.name

    @property
    def file(self) -> str:
        """The file's name in the cache."""
        return self.address.rpartition("/")[2]


RELEASES: dict[str, Release] = {
    name: Release(name, f"{LUKEMELAS}/{name}.pth", "lukemelas", "Apache-2.0")
    for name in (
        "B_16",
        "B_32",
        "L_32",
        "B_16_imagenet1k",
        "B_32_imagenet1k",
        "L_16_imagenet1k",
        "L_32_imagenet1k",
    )
} | {
    name: Release(name, f"{CATR}/{path}", "catr", "Apache-2.0", trained="catr")
    for name, path in (
        ("catr_v1", "0.1/weights_9348032.pth"),
        ("catr_v2", "0.2/weight389123791.pth"),
        ("catr_v3", "0.2/weight493084032.pth"),
    )
}


def is_offline() -> bool:
    """Whether the user forbids the network, by $VIT_JAX_OFFLINE."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def release_of(name: str) -> Release:
    """A release by name. Raises InputError for one that there is not, and for L_16, which never was."""
    if name in NEVER_RELEASED:
        raise InputError(f"{name} was never released; {NEVER_RELEASED[name]} was")
    if name not in RELEASES:
        raise InputError(
            f"no released checkpoint {name!r}: one of {', '.join(RELEASES)}, hf:owner/name, "
            "or the path of a file or folder"
        )
    return RELEASES[name]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs. If another process holds it, say so and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"another process is fetching {path.stem}; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(release: Release, *, cache: str | os.PathLike | None = None, **options: Any) -> Path:
    """The released file in the cache, downloaded if it is not there; options are download()'s.

    Raises InputError when it can't be had (with VIT_JAX_OFFLINE set, where to put it by hand), and when its content is
    not what was released or first fetched.
    """
    folder = cache_folder() if cache is None else Path(cache)
    path = folder / release.file
    if not path.is_file() and is_offline():
        raise InputError(f"{release.name} is not in the cache and {OFFLINE} is set; put {release.address} at {path}")
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / f"{release.file}.lock"):
        if not path.is_file():
            print(f"{release.name}: fetching {release.address} into {folder}", file=sys.stderr, flush=True)
        download_file(release.address, path, **options)
        _compare(path, release)
    return path


def _compare(path: Path, release: Release) -> None:
    record = path.with_name(path.name + ".sha256")
    known = release.sha256 or (record.read_text().split()[0] if record.is_file() else None)
    found = _sha256(path)
    if known is None:
        with atomic_write(record) as beside:
            beside.write_text(f"{found}  {path.name}\n")
    elif found != known:
        raise InputError(f"{path}: its SHA-256 is not {known}, as it was; delete the file to fetch it anew")


def locate(name_or_path: str | os.PathLike, *, cache: str | os.PathLike | None = None) -> Path:
    """Where a checkpoint lies: a release's file or a repository's folder (hf:owner/name) in the cache, else the path.

    Raises InputError when a release or a repository can't be had; a path may be one where nothing lies.
    """
    name = str(name_or_path)
    if Path(name).exists():
        return Path(name)
    if name.startswith(PREFIX):
        return fetch_repository(name, cache_folder() if cache is None else Path(cache), offline=is_offline())
    if name in (*RELEASES, *NEVER_RELEASED):
        return fetch(release_of(name), cache=cache)
    return Path(name)


def load_pretrained(
    name_or_path: str | os.PathLike,
    *,
    image_size: Any = None,
    num_classes: int | None = None,
    cache: str | os.PathLike | None = None,
) -> Any:
    """A pretrained model: a release by name, "hf:owner/name", a checkpoint file or folder of any layout, a saved model.

    image_size: int or (height, width); positions are resized in the checkpoint's own convention. num_classes: another
    count starts a new head of zeros. cache: in place of $VIT_JAX_CACHE or ~/.cache/vit_jax.
    Raises InputError in one line for whatever is wrong.
    """
    path = locate(name_or_path, cache=cache)
    if (kind := kind_of_saved(path)) is not None:
        return kind.load(path, image_size, num_classes)
    if str(name_or_path) != str(path) and str(name_or_path) in RELEASES:
        release = RELEASES[str(name_or_path)]
        return convert(
            path, layout=release.layout, name=release.architecture, image_size=image_size, num_classes=num_classes
        )
    if not path.exists():
        release_of(str(name_or_path))
    return convert(path, image_size=image_size, num_classes=num_classes)
