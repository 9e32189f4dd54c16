"""Atomic writes of files and folders: write to a temporary path in the same folder, then rename."""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vit_jax.errors import InputError


def printable_name(name: str) -> str:
    """Return a file's name as valid Unicode: bytes that are not UTF-8 become replacement characters (U+FFFD)."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the block ends without error.

    After an error the temporary file is removed, and an existing file at `path` is unchanged. Processes that write one
    path at once, on one host or several, do not share a temporary file.
    Raises InputError for a device or a pipe, which the rename would replace: root's /dev/null, for example.
    """
    target = Path(path)
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InputError(f"{target}: not a regular file, and writing would replace it; choose another output")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_write_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder to write into, and rename it to `path` when the block ends without error.

    Replaces whatever exists at `path`; the caller checks that this is allowed. After an error the temporary folder is
    removed, and existing content at `path` is unchanged.
    """
    target = Path(path)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
            target.rename(old / "replaced")
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
