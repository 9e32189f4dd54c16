"""Inert values: what a pickle's classes and functions become. Nothing is imported or called.

A global is a Global, and what calling one would give is an Inert, which keeps the arguments, so that arrays in them are
not lost. Keys of any type become keys that hash at once.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_KEY_BITS = 64


@dataclass(frozen=True)
class Global:
    """A name in the pickle, "module.attribute". It is never imported."""

    name: str


@dataclass(eq=False, slots=True)
class Inert:
    """A value that calling `name` would build. Equal only to itself, so its hash does not depend on its contents.

    arguments: of the call.
    states:    what the pickle sets as the object's state (its attributes, usually one dict).
    items:     what it appends or adds, as to a list or set.
    pairs:     what it sets by key, as in a dict.
    """

    name: str
    arguments: tuple = ()
    states: list = field(default_factory=list)
    items: list = field(default_factory=list)
    pairs: dict = field(default_factory=dict)

    def __str__(self) -> str:
        shown = [str(a)[:40] for a in self.arguments[:4] if isinstance(a, str) or (is_small(a) and a is not None)]
        return f"{self.name}({', '.join(shown)})"

    __repr__ = __str__  # never that of the contents, which may be cyclic or huge

    @property
    def attributes(self) -> dict:
        """The object's attributes, if its state is a dict, or a pair of dict and slots; {} otherwise."""
        state = self.states[-1] if self.states else None
        if isinstance(state, tuple) and len(state) == 2:
            state = state[0]
        return state if isinstance(state, dict) else {}


def is_small(value: Any) -> bool:
    """Return whether a value is a number or None whose hash and text are short."""
    if isinstance(value, int):
        return value.bit_length() <= MAX_KEY_BITS
    return value is None or isinstance(value, float)


def make_key(value: Any) -> Any:
    """Return a value that stands for a dict key and hashes in bounded time; text and numbers stay as they are.

    Another key becomes an Inert, equal to itself only.
    """
    if isinstance(value, str | bytes | Global | Inert) or is_small(value):
        return value
    if isinstance(value, tuple) and len(value) <= 8 and all(isinstance(v, str) or is_small(v) for v in value):
        return value
    return Inert(type(value).__name__)


def key_text(key: Any) -> str:
    """Return a key as it stands in a dotted name."""
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)


def references(node: Any) -> Iterable[Any]:
    """Return the values that a node holds."""
    if isinstance(node, dict):
        return node.values()
    if isinstance(node, list | tuple):
        return node
    if isinstance(node, Inert):
        return (node.arguments, node.states, node.items, node.pairs)
    return ()


def find_globals(root: Any) -> Iterator[str]:
    """Yield the names of the globals that a value holds, each object once."""
    seen, pending = {id(root)}, [root]
    while pending:
        node = pending.pop()
        if isinstance(node, Global | Inert):
            yield node.name
        for child in references(node):
            if isinstance(child, dict | list | tuple | Global | Inert) and id(child) not in seen:
                seen.add(id(child))
                pending.append(child)


def find_torch_dtype(values: Iterable[Any]) -> str:
    """Return the name of the first torch dtype among values, such as "torch.float4_e2m1fn_x2"; "" if there is none."""
    names = (value.name for value in values if isinstance(value, Global))
    return next((name for name in names if re.fullmatch(r"torch\.[a-z]+\d\w*", name)), "")
