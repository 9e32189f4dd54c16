"""Files and folders that are written whole or not at all: beside their place first, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends without error.

    After an error nothing is left, and what stood there before still stands.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield beside
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_write_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A fresh folder beside `path` to write into; it takes `path`'s place when the block ends without error.

    Whatever stood at `path` is replaced, so the caller makes sure that it may be. After an error nothing is left,
    and what stood there before still stands.
    """
    target = Path(path)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield beside
        beside.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
            target.rename(old / "replaced")
            beside.rename(target)
            shutil.rmtree(old)
        else:
            beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
