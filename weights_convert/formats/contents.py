"""What a checkpoint file holds: every array under a dotted name, and the plain values stored with them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vit_jax.errors import InputError
from weights_convert.formats.arrays import LazyArray, Storage, Tensor, check_dtype, make_unreadable
from weights_convert.formats.inert import Inert, find_globals, find_torch_dtype, key_text, references
from weights_convert.formats.modules import MAX_ENTRIES, MAX_NAME, is_module, module_state_dict
from weights_convert.formats.numpy_pickles import decode_array
from weights_convert.formats.values import collect_values

MAX_DEPTH = 64
TENSOR_BUILDERS = ("torch._utils._rebuild_", "torch._tensor._rebuild_")
REMEDIES = {
    "torch._utils._rebuild_qtensor": "save it dequantized",
    "torch._utils._rebuild_sparse_tensor": "save its to_dense()",
    "torch._utils._rebuild_meta_tensor_no_storage": "it has no values; load the weights before saving",
    "torch.storage._load_from_bytes": "save it with torch.save",
}


@dataclass(frozen=True)
class Contents:
    """What a file holds, without a choice among it.

    arrays: every array, under its keys joined by dots: {"model": {"w": ...}, "steps": [..., ...]} has model.w, steps.0
            and steps.1. A pickled torch module counts as its state_dict(). An array that cannot be read is listed too:
            see LazyArray.problem.
    values: the plain values next to them, nested as in the file: see collect_values. For .safetensors: the metadata.
    keys:   name -> the keys that it joins. A key may itself have dots, as in a state dict: ("model", "blocks.0.w").
    """

    arrays: dict[str, LazyArray]
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)


def make_contents(arrays: dict[str, LazyArray], values: dict[str, Any] | None = None) -> Contents:
    """Return the contents of a file of named arrays."""
    return Contents(arrays, values or {}, {name: (name,) for name in arrays})


def collect_contents(tree: Any) -> Contents:
    """Return the arrays and plain values of an object that was unpickled inertly, or of nested dicts and lists.

    Raises InputError, naming what the object is, if it holds no arrays, and if it has more than MAX_ENTRIES or is
    nested more than MAX_DEPTH deep.
    """
    if _is_array(tree):
        raise InputError("a single tensor, not a model's state dict")
    arrays = _Collector(tree)
    if not arrays.arrays:
        raise InputError(_describe_empty(tree))
    return Contents(arrays.arrays, collect_values(tree), arrays.keys)


def _describe_empty(tree: Any) -> str:
    names = ", ".join(list(dict.fromkeys(find_globals(tree)))[:3])
    remedy = "save model.state_dict() instead"
    if not isinstance(tree, dict | list | tuple):
        return (
            f"refused: it names {names}, and holds no arrays; {remedy}"
            if names
            else f"a pickled object without arrays; {remedy}"
        )
    keys = ", ".join(key_text(key)[:40] for key in list(tree)[:5]) if isinstance(tree, dict) else ""
    parts = [
        f"a {type(tree).__name__} without arrays",
        keys and f"it has {keys}",
        names and f"it names {names}",
        remedy,
    ]
    return "; ".join(part for part in parts if part)


def _is_array(node: Any) -> bool:
    if isinstance(node, Inert):
        array = decode_array(node)  # one of text is a value, see collect_values
        return node.name.startswith(TENSOR_BUILDERS) or (array is not None and array.dtype.kind != "U")
    return isinstance(node, Tensor | Storage | LazyArray)


def _find_holders(root: Any) -> set[int]:
    """Return the ids of the arrays and of all that holds one, however deep. Each object is visited once."""
    parents: dict[int, list[int]] = {id(root): []}
    pending, arrays = [root], []
    while pending:
        node = pending.pop()
        if _is_array(node):
            arrays.append(id(node))
            continue
        for child in references(node):
            if isinstance(child, dict | list | tuple | Inert | Tensor | Storage | LazyArray):
                if id(child) not in parents:
                    parents[id(child)] = []
                    pending.append(child)
                parents[id(child)].append(id(node))
    holders: set[int] = set()
    while arrays:
        holder = arrays.pop()
        if holder not in holders:
            holders.add(holder)
            arrays += parents[holder]
    return holders


class _Collector:
    """Collects the arrays of a tree, visiting only what holds one."""

    def __init__(self, tree: Any):
        self.arrays: dict[str, LazyArray] = {}
        self.keys: dict[str, tuple[str, ...]] = {}
        self.holders = _find_holders(tree)
        self.ancestors: set[int] = set()
        self.visited = 0
        self.visit(tree, ())

    def visit(self, node: Any, keys: tuple[str, ...]) -> None:
        """Collect the arrays of a node, which lies under these keys."""
        self.visited += 1
        if self.visited > MAX_ENTRIES:
            raise InputError(f"more than {MAX_ENTRIES} entries: no checkpoint has so many")
        if len(keys) > MAX_DEPTH or sum(map(len, keys)) > MAX_NAME:
            raise InputError(f"{'.'.join(keys)[:60]}...: nested too deep, or too long a name, for a checkpoint")
        if _is_array(node) or (isinstance(node, Inert) and not is_module(node) and self.depends_on_array(node)):
            self.add(node, keys)
        if id(node) in self.ancestors or _is_array(node):
            return
        self.ancestors.add(id(node))
        for key, child in _list_children(node):
            if id(child) in self.holders:
                self.visit(child, (*keys, key_text(key)))
        self.ancestors.remove(id(node))

    def depends_on_array(self, node: Inert) -> bool:
        """Return whether an object was built from arrays: its class decides what they mean."""
        return id(node.arguments) in self.holders or id(node.states) in self.holders

    def add(self, node: Any, keys: tuple[str, ...]) -> None:
        """Add an array, or in its place one that cannot be read."""
        name = ".".join(keys)
        if name in self.arrays:
            self.arrays[name] = make_unreadable(f"{name}: the file has two arrays of this name")
        else:
            self.arrays[name] = _make_lazy(name, node)
            self.keys[name] = keys


def _list_children(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, dict):
        return node.items()
    if isinstance(node, list | tuple):
        return enumerate(node)
    if is_module(node):
        return module_state_dict(node).items()
    return [*node.pairs.items(), *enumerate(node.items)] if isinstance(node, Inert) else ()


def _make_lazy(name: str, node: Any) -> LazyArray:
    if isinstance(node, Storage):
        node = Tensor(node, 0, (node.count,), (1,))
    array = node if isinstance(node, LazyArray) else node.lazy() if isinstance(node, Tensor) else decode_array(node)
    if array is not None:
        return check_dtype(name, array)
    sizes = (a for a in node.arguments if isinstance(a, tuple) and a and all(type(n) is int for n in a))
    inner = next((value.name for value in node.arguments if isinstance(value, Inert)), "")
    culprit = inner if inner in REMEDIES else node.name
    dtype = find_torch_dtype(node.arguments)
    remedy = REMEDIES.get(culprit, "save model.state_dict() with plain tensors")
    return make_unreadable(
        f"{name}: built by {culprit}{f' of type {dtype}' if dtype else ''}, which is not supported; {remedy}",
        next(sizes, ()),
    )
