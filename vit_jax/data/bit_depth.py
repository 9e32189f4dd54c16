"""Images of more than 8 bits per channel, scaled to 8 by a stated range, or else by the one that their values suggest.

A 16-bit file often holds the values of a 10-, 12- or 14-bit camera. Unless the user states the range (Preprocess's
max_value) or the file does, it is the first of BITS that holds the largest value. A darker image may so be scaled by
more than its neighbours: every guess below the size of the file's numbers is reported (guessed_ranges.py).
"""

import struct
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit_jax.errors import InputError

BITS = (8, 10, 12, 14, 16, 24, 32)
BITS_PER_SAMPLE, SAMPLE_FORMAT, UNSIGNED = 258, 339, 1  # TIFF tags and a value
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCALED_TO_16_BITS = ("JPEG2000", "PPM")  # Pillow's decoders of these formats use the range that the file states


class OutOfRangeError(InputError):
    """An image with values outside of the range that the user states."""


class Depth(NamedTuple):
    """What is known about the numbers of a file.

    bits:      of a sample.
    stated:    significant bits, None if the file does not say.
    max_value: the value of white that the user states, None without one. It precedes `stated`.
    """

    bits: int
    stated: int | None
    is_unsigned: bool
    max_value: float | None = None


class Scaled(NamedTuple):
    """8-bit values.

    limit:   the value of white in the file.
    guess:   its range, "" if it is not guessed.
    largest: the largest value in the file.
    """

    values: np.ndarray
    limit: int | float
    guess: str
    largest: str


def is_deep_grey(image: Image.Image) -> bool:
    """Return whether an image has one channel of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def read_depth(image: Image.Image, max_value: float | None = None) -> Depth:
    """Return what is known about the numbers of an image's file. Call it before the image is loaded.

    max_value: the value of white that the user states. It is not used for SCALED_TO_16_BITS, which always state theirs.
    """
    depth = _read_file_depth(image)
    is_scaled = image.format in SCALED_TO_16_BITS and image.mode != "F"
    return depth if is_scaled else depth._replace(max_value=max_value)


def _read_file_depth(image: Image.Image) -> Depth:
    bits = 16 if image.mode.startswith("I;16") else 32
    if image.format in SCALED_TO_16_BITS and image.mode != "F":
        return Depth(16, 16, True)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        stored = int(np.atleast_1d(tags.get(BITS_PER_SAMPLE, bits))[0])
        is_unsigned = int(np.atleast_1d(tags.get(SAMPLE_FORMAT, UNSIGNED))[0]) == UNSIGNED
        return Depth(stored, stored if 8 < stored < 16 else None, is_unsigned)
    if image.format == "PNG":
        return Depth(16, _read_significant_bits(image.fp), True)  # type: ignore[attr-defined]
    return Depth(bits, None, False)


def _read_significant_bits(file: Any) -> int | None:
    """Return the largest number of the sBIT chunk of a PNG file, None without one. The file's position is kept."""
    position = file.tell()
    try:
        file.seek(len(PNG_SIGNATURE))
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"sBIT":
                return max(file.read(length), default=None)
            if kind == b"IDAT":
                return None
            file.seek(length + 4, 1)  # the content and its checksum
        return None
    finally:
        file.seek(position)


def scale_grey(image: Image.Image, depth: Depth) -> Scaled:
    """Return the 8-bit values of an image for which is_deep_grey holds.

    Raises OutOfRangeError for values outside of a range that the user states, and InputError if the range cannot be
    guessed: for negative, non-finite and very large values.
    """
    values = np.asarray(image)
    if image.mode == "F":
        return _scale_floats(values, depth.max_value)
    if depth.bits == 32 and depth.is_unsigned:
        values = values.view(np.uint32)  # Pillow's mode I is signed
    return scale_integers(values, depth)


def scale_values(values: np.ndarray, limit: int | float) -> np.ndarray:
    """Return values in 0..limit as 8-bit ones: of integers up to 2^n - 1, n >= 8, the upper 8 bits; else rounded."""
    bits = int(limit).bit_length()
    if values.dtype.kind in "iu" and bits >= 8 and limit == 2**bits - 1:
        return (values >> (bits - 8)).astype(np.uint8)
    return np.round(values.astype(np.float64) * (255 / limit)).astype(np.uint8)


def _scale_to_stated(values: np.ndarray, limit: int | float) -> Scaled:
    low, high = values.min(), values.max()
    if low < 0 or high > limit:
        raise OutOfRangeError(
            f"has values from {low:.10g} to {high:.10g}, outside of 0 to {limit:.10g} (--max-value); train with a "
            "--max-value that holds for all images, or correct the file"
        )
    return Scaled(scale_values(values, limit), limit, "", f"{high:.10g}")


def _scale_floats(values: np.ndarray, max_value: float | None) -> Scaled:
    if not np.isfinite(values).all():
        raise InputError("has values that are no finite numbers; replace them")
    if max_value is not None:
        return _scale_to_stated(values, max_value)
    low, high = float(values.min()), float(values.max())
    if low < 0 or 1 < high < 2 or high > 2**16 - 1:
        raise InputError(f"has values from {low:g} to {high:g}, so its range is unknown; scale it to 0..1 or 0..255")
    limit = 1 if high <= 1 else 2 ** smallest_bits(high) - 1
    return Scaled(scale_values(values, limit), limit, f"0..{limit}" if high else "", f"{high:g}")


def scale_integers(values: np.ndarray, depth: Depth) -> Scaled:
    """Return the upper 8 of the significant bits of integers. Raises as scale_grey does."""
    if depth.max_value is not None:
        return _scale_to_stated(values, depth.max_value)
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise InputError(f"has values from {low} to {high}, so its range is unknown; convert it to 8 bits")
    bits = _stated_bits(values, high, depth)
    is_guess = bits is None and high > 0 and smallest_bits(high) < depth.bits
    limit = 2 ** (bits or smallest_bits(high)) - 1
    return Scaled(scale_values(values, limit), limit, f"{limit.bit_length()} bits" if is_guess else "", str(high))


def _stated_bits(values: np.ndarray, high: int, depth: Depth) -> int | None:
    """Return the bits that a file states and its values confirm, else None.

    PNG shifts values of fewer bits up to the full sample. Some writers do not: then the lowest bits are in use.
    """
    if depth.stated is None or depth.stated >= depth.bits:
        return depth.stated and depth.bits
    unused = depth.bits - depth.stated
    if high < 2**depth.stated and (depth.bits < 16 or (values & (2**unused - 1)).any()):
        return depth.stated
    return depth.bits


def smallest_bits(largest: int | float) -> int:
    """Return the first of BITS whose range holds a value of at least 0."""
    return next(bits for bits in BITS if largest <= 2**bits - 1)
