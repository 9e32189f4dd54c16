"""Which columns of a Hugging Face table are the image and the label, and the labels of its rows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vit_jax.data.table_rows import COLUMNS
from vit_jax.data.unicode_names import compose_name
from vit_jax.errors import InputError

NO_LABEL = -1  # in a column with class names: a row, of a test split for example, whose label is not given


class ChosenColumns(NamedTuple):
    """The names of the columns of the image and of the label."""

    image: str
    label: str


class ColumnLabels(NamedTuple):
    """The labels of a table.

    rows:        the names of the classes of each image.
    class_names: all of them in the column's order; None for a column of texts or numbers.
    is_set:      whether an image has a list of labels.
    """

    rows: list[tuple[str, ...]]
    class_names: tuple[str, ...] | None
    is_set: bool


def choose_columns(
    where: str, features: Mapping[str, Any], *, image: str | None = None, label: str | None = None
) -> ChosenColumns:
    """Return the columns of the image and of the label: those that are asked for, else the only ones that can be it.

    Raises InputError, listing columns, if there is none or more than one.
    """
    return ChosenColumns(
        _choose(where, "image", features, image, _is_image, lambda name: _is_image(features[name])),
        _choose(where, "label", features, label, _is_label, lambda name: _may_be_label(name, features[name])),
    )


def _choose(
    where: str, kind: str, features: Mapping[str, Any], asked: str | None, fits: Callable[[Any], bool],
    is_candidate: Callable[[str], bool],
) -> str:  # fmt: skip
    shown = ", ".join(f"{name} ({describe_feature(feature)})" for name, feature in features.items())
    if asked is not None:
        if asked not in features or not fits(features[asked]):
            raise InputError(f"{where}: {kind}={asked} is no {kind} column; it has {shown}")
        return asked
    candidates = [name for name in features if is_candidate(name)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        choices = " or ".join(f",{kind}={name}" for name in candidates)
        raise InputError(f"{where}: {', '.join(candidates)} may all be the {kind}; add {choices} to hf:NAME")
    raise InputError(f"{where}: no {kind} column in it; it has {shown}; add ,{kind}=COLUMN to hf:NAME if one is it")


def describe_feature(feature: Any) -> str:
    """Return the kind of a column in a word or two."""
    if _item(feature) is not None:
        return f"list of {describe_feature(_item(feature))}"
    return str(getattr(feature, "dtype", type(feature).__name__))


def _item(feature: Any) -> Any:
    """Return the feature of the items of a list, None for anything else."""
    return getattr(feature, "feature", None)


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and "bytes" in feature)


def _has_names(feature: Any) -> bool:
    return bool(getattr(feature, "names", None))


def _is_label(feature: Any) -> bool:
    """Return whether a column has names of classes, texts or whole numbers, or lists of these."""
    item = feature if _item(feature) is None else _item(feature)
    dtype = str(getattr(item, "dtype", ""))
    return type(item).__name__ in ("ClassLabel", "Value") and dtype.lstrip("u").startswith(("int", "string", "large_s"))


def _may_be_label(name: str, feature: Any) -> bool:
    """Return whether a column is a label without being asked for: by its type, or by its name and type."""
    item = feature if _item(feature) is None else _item(feature)
    return _is_label(feature) and (_has_names(item) or name.lower() in COLUMNS["label"])


def stated_names(feature: Any) -> tuple[str, ...] | None:
    """Return the names of the classes that a column, or its lists, index; None for texts and bare numbers."""
    names = getattr(feature if _item(feature) is None else _item(feature), "names", None)
    return None if names is None else tuple(names)


def read_labels(where: str, table: Any, column: str) -> ColumnLabels:
    """Return the labels of all rows. Raises InputError naming a row whose label is not one of the column's classes."""
    feature = table.features[column]
    is_set, names = _item(feature) is not None, stated_names(feature)
    class_names = None if names is None else tuple(compose_name(name) for name in names)
    rows = []
    for index, value in enumerate(table[column][:]):
        labels = [] if value is None else value if is_set else [value]
        try:
            given = labels if class_names is None else [label for label in labels if label != NO_LABEL]
            found = [_class_name(label, class_names) for label in given]
            rows.append(tuple(dict.fromkeys(name for name in found if name)))
        except (IndexError, TypeError) as error:
            raise InputError(f"{where}[{index}]: {value!r} in {column} is no label of it; correct the file") from error
    return ColumnLabels(rows, class_names, is_set)


def _class_name(label: Any, class_names: tuple[str, ...] | None) -> str:
    if class_names is None:
        if label is None:  # within a list
            raise TypeError(label)
        return compose_name(str(label).strip())
    if label < 0:
        raise IndexError(label)
    return class_names[label]
