"""Plain values in a checkpoint: class names, training arguments and what else is stored with the arrays."""

from typing import Any

import numpy as np

from weights_convert.formats.arrays import LazyArray
from weights_convert.formats.inert import Inert, key_text
from weights_convert.formats.numpy_pickles import decode_array, decode_scalar

MAX_DEPTH, MAX_VALUES, MAX_INT_BITS = 64, 1_000_000, 1024
OMITTED = object()


def collect_values(tree: Any) -> dict[str, Any]:
    """Return the text, numbers, booleans and None in a tree, and dicts and lists of them, nested as in the tree.

    Tuples, sets and arrays of text become lists, numpy scalars Python's, an object a dict of its attributes and items.
    Omitted (in lists: None) are other values, empty dicts and lists, what is nested more than MAX_DEPTH deep and what
    comes after the first MAX_VALUES.
    """
    tree = dict(enumerate(tree)) if isinstance(tree, list | tuple) else tree
    values = _Simplifier().simplify(tree)
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


class _Simplifier:
    """Copies the plain values of a tree."""

    def __init__(self) -> None:
        self.ancestors: set[int] = set()
        self.visited = 0

    def simplify(self, node: Any) -> Any:
        """Return a node's plain values; OMITTED if it has none."""
        self.visited += 1
        if isinstance(node, Inert) and (scalar := decode_scalar(node)) is not None:
            node = scalar
        if (
            node is None
            or isinstance(node, str | float)
            or (isinstance(node, int) and node.bit_length() <= MAX_INT_BITS)
        ):
            return node
        if isinstance(node, Inert) and (array := decode_array(node)) is not None:
            return self.copy_text(array)
        if (
            id(node) in self.ancestors
            or len(self.ancestors) > MAX_DEPTH
            or not isinstance(node, dict | list | tuple | Inert)
        ):
            return OMITTED
        self.ancestors.add(id(node))
        copy = self.copy_list(node) if isinstance(node, list | tuple) else self.copy_dict(node)
        self.ancestors.remove(id(node))
        return copy

    def copy_text(self, array: LazyArray) -> Any:
        """Copy an array of text as a list."""
        self.visited += int(np.prod(array.shape, dtype=object))
        return array.read().tolist() if array.dtype.kind == "U" and self.visited < MAX_VALUES else OMITTED

    def copy_list(self, node: list | tuple) -> Any:
        """Copy a list; values that are not plain become None."""
        copy = [self.simplify(value) for value in node if self.visited < MAX_VALUES]
        if all(value is OMITTED for value in copy):
            return OMITTED
        return [None if value is OMITTED else value for value in copy]

    def copy_dict(self, node: Any) -> Any:
        """Copy a dict, or an object as a dict of its attributes and items."""
        if isinstance(node, Inert):
            if node.items and not node.pairs and not node.attributes:
                return self.copy_list(node.items)
            node = {**node.attributes, **node.pairs}
        copy = {}
        for key, value in node.items():
            simple = self.simplify(value) if self.visited < MAX_VALUES else OMITTED
            if simple is not OMITTED:
                copy[key if isinstance(key, str | int | float | None) else key_text(key)] = simple
        return copy or OMITTED
