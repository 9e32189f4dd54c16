"""Files by name in any Unicode form: a table may write é as one character, and the file system as two."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def compose_name(name: str) -> str:
    """Return a name with its characters composed (NFC), by which names are compared."""
    return unicodedata.normalize("NFC", name)


class FileNames:
    """Finds files whose names differ from the wanted ones in Unicode form only. Reads each folder once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path:
        """Return the path of an existing file that is equal in NFC; `path` itself if it exists, or if none is."""
        if path.exists() or path == path.parent:
            return path
        folder = self.find(path.parent)
        same = self._names(folder).get(compose_name(path.name), [])
        return folder / same[0] if len(same) == 1 else path

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """Return the names in a folder by their composed form."""
        if folder not in self._folders:
            names: dict[str, list[str]] = defaultdict(list)
            for name in os.listdir(folder) if folder.is_dir() else []:
                names[compose_name(name)].append(name)
            self._folders[folder] = names
        return self._folders[folder]


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Return each path, or in place of one that does not exist the only file that is equal in NFC, if there is one."""
    names = FileNames()
    return [names.find(path) for path in paths]
