"""The classes of --target: names, which may hold commas, or numbers."""

import csv

from vit_jax import InputError, ModelCard
from vit_jax.classes import find_class


def parse_targets(flags: list[str] | None, card: ModelCard) -> list[int] | None:
    """Return the classes of --target flags, by name or else by number, without repetitions; None without flags.

    Raises InputError for a class that the model lacks or has twice, and for a text that can mean one class or several.
    """
    if flags is None:
        return None
    if not card.config.num_classes:
        raise InputError("--target: the model has no classification head, and so no classes; leave the flag out")
    names = [name for text in flags for name in _split(text, card.class_names)]
    return list(dict.fromkeys(find_class(name, card.class_names, card.config.num_classes) for name in names))


def _split(text: str, class_names: tuple[str, ...]) -> list[str]:
    """Return the names in the text of a flag: separated by commas, or quoted as in a CSV, or one name with commas."""
    parts = next(csv.reader([text], skipinitialspace=True), None) or [""]
    if len(parts) > 1 and text in class_names:
        if all(part in class_names for part in parts):
            raise InputError(f"--target {text}: one class or {len(parts)}? Repeat the flag for each, or quote the one")
        return [text]
    return [text] if text in class_names else parts
