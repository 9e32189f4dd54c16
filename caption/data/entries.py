"""Entries of caption files as people write them: ids of images, and annotations that occur twice."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vit_jax.numerals import parse_int


def parse_image_id(value: Any) -> int | str | None:
    """Return an image's id: a whole number, also one written as 7.0 or "7", or a text such as "img_0"; else None."""
    if isinstance(value, str):
        number = parse_int(value)
        return (value or None) if number is None else number
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        return None
    return int(value)


def drop_repeated(annotations: Iterable[Any], file: Path) -> list[Any]:
    """Return COCO's annotations without those that are the same as an earlier one, id included. Report their number."""
    unique: dict[str, Any] = {}
    count = 0
    for index, item in enumerate(annotations):
        has_id = isinstance(item, dict) and item.get("id") is not None
        key = repr([item["id"], item.get("image_id"), item.get("caption")]) if has_id else str(index)
        count += key in unique
        unique.setdefault(key, item)
    if count:
        print(f"{file}: repeated annotations left out: {count}", file=sys.stderr)
    return list(unique.values())
