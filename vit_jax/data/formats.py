"""Which files are images, by their suffix: every raster format that the installed Pillow decodes, and .npy arrays."""

import functools
from pathlib import PurePath

from PIL import Image

ARRAY = ".npy"
# Formats that Pillow registers and cannot decode by itself: it only identifies them, or needs other programs.
NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
HEIF = (".heic", ".heif")
HEIF_PACKAGE = "pillow-heif"


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of images, in lower case with the dot; .heic and .heif if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    registered = Image.registered_extensions().items()
    decoded = {*Image.OPEN, "MPO"} - NOT_DECODED  # MPO is opened as JPEG
    return frozenset(suffix for suffix, kind in registered if kind in decoded)


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, "" if it has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and dot else ""


def is_array(path: str | PurePath) -> bool:
    """Return whether a path is that of a .npy array."""
    return PurePath(path).suffix.lower() == ARRAY
