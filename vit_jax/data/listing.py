"""List the images below a folder, and what is skipped there.

Links to folders are followed. Hidden folders and those that systems and programs create are skipped at any depth.
"""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from vit_jax.data.formats import ARRAY, HEIF, HEIF_PACKAGE, image_suffixes, suffix_of
from vit_jax.errors import InputError

HOUSEKEEPING = frozenset(
    {
        "@eaDir", "@Recycle", "@Recently-Snapshot", "#recycle", "#snapshot",  # network storage
        "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__",
    }
)  # fmt: skip
HOUSEKEEPING_FILES = frozenset({"Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"})
SHOWN = 5  # names of a kind in a line


def is_housekeeping(name: str) -> bool:
    """Return whether a folder or a file is hidden, or one that a system or a program keeps for itself."""
    return name.startswith(".") or name in HOUSEKEEPING or name in HOUSEKEEPING_FILES


@dataclass
class Skipped:
    """What a listing leaves out, counted: folders by name, hidden images, and other files by suffix."""

    folders: Counter[str] = field(default_factory=Counter)
    hidden_images: int = 0
    files: Counter[str] = field(default_factory=Counter)

    def describe(self, root: str | os.PathLike) -> list[str]:
        """Return at most two lines, which name the listed folder: hidden folders and images, and other files."""
        hidden = []
        if self.folders:
            hidden.append(f"{_count(self.folders.total(), 'hidden or housekeeping folder')} ({_list(self.folders)})")
        if self.hidden_images:
            hidden.append(_count(self.hidden_images, "hidden image"))
        lines = [f"{root}: skipped {' and '.join(hidden)}"] if hidden else []
        if self.files:
            kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in self._sorted_files()]
            heif = f"; to read {HEIF[0]}, install {HEIF_PACKAGE}" if any(s in self.files for s in HEIF) else ""
            total = _count(self.files.total(), "other file")
            lines.append(f"{root}: skipped {total}: {', '.join(kinds)}{heif}")
        return lines

    def _sorted_files(self) -> list[tuple[str, int]]:
        return sorted(self.files.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Listing:
    """The images below a folder.

    root:    the folder.
    files:   paths relative to it, sorted by their parts.
    empty:   folders without an image at any depth, relative to it, without the skipped ones.
    skipped: what was left out.
    """

    root: Path
    files: list[str]
    empty: list[str]
    skipped: Skipped

    def report(self) -> None:
        """Print what was skipped."""
        for line in self.skipped.describe(self.root):
            print(line, flush=True)


def list_images(folder: str | os.PathLike) -> Listing:
    """List the images below a folder; its .npy arrays if it has no other images, and nothing if it has neither.

    Raises InputError for an empty path, a missing folder, a folder that cannot be read, and a link that leads nowhere
    or to a folder that contains it.
    """
    if not os.fspath(folder):  # such as an unset variable of a shell: not the current folder
        raise InputError("no folder of images: the path is empty")
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    listing = Listing(root, [], [], Skipped())
    _walk(str(root), "", listing)
    images = [name for name in listing.files if not name.lower().endswith(ARRAY)]
    if not images or len(images) == len(listing.files):
        return listing
    listing.skipped.files[ARRAY] += len(listing.files) - len(images)
    return replace(listing, files=images)


def _walk(folder: str, prefix: str, listing: Listing) -> None:
    """Add what lies below a folder to a listing, with a prefix before the relative paths."""
    suffixes, skipped, count = image_suffixes() | {ARRAY}, listing.skipped, len(listing.files)
    files, folders = _read_folder(folder)
    for name in sorted([*files, *folders]):
        suffix = suffix_of(name)
        if name in folders:
            if is_housekeeping(name):
                skipped.folders[name] += 1
            else:
                _walk(os.path.join(folder, name), f"{prefix}{name}{os.sep}", listing)
        elif name.startswith("."):
            skipped.hidden_images += suffix in suffixes
        elif suffix in suffixes:
            listing.files.append(prefix + name)
        elif name not in HOUSEKEEPING_FILES:
            skipped.files[suffix] += 1
    if len(listing.files) == count and prefix:
        listing.empty.append(prefix.rstrip(os.sep))


def _read_folder(folder: str) -> tuple[list[str], set[str]]:
    """Return the names of the files and of the folders in a folder; links count as what they lead to."""
    files: list[str] = []
    folders: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.add(entry.name)
                    if entry.is_symlink() and not is_housekeeping(entry.name):
                        _check_no_cycle(entry.path)
                elif entry.is_file():
                    files.append(entry.name)
                elif entry.is_symlink() and suffix_of(entry.name) in image_suffixes():
                    raise InputError(f"{entry.path}: a link to a missing file; restore the file or remove it")
    except OSError as error:
        place = error.filename or folder
        raise InputError(f"{place}: cannot be read ({error.strerror}); change its permissions or move it") from error
    return files, folders


def _check_no_cycle(link: str) -> None:
    """Raise InputError if a link leads to a folder that contains the link."""
    target = os.stat(link)
    if any(os.path.samestat(target, os.stat(parent)) for parent in Path(os.path.abspath(link)).parents):
        raise InputError(f"{link}: a link to a folder that contains it; remove the link")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _list(counts: Counter[str]) -> str:
    names = sorted(counts)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
