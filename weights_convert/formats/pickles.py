"""A restricted pickle reader: an interpreter for the few opcodes that checkpoints need.

Python's own unpickler imports and calls whatever a file names. This one never does: a global is only a token, and
calling a token builds one of a few inert values (a dict, a tensor's description). Any other global is refused by name.
Opcodes come from pickletools.genops; memory stays within a small multiple of the pickle's size.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import InputError


@dataclass(frozen=True)
class Global:
    """A name in the pickle, "module.attribute". It is never imported."""

    name: str


@dataclass
class Opaque:
    """A value without weights (training arguments, numpy scalars), whose contents are ignored."""

    name: str


INERT = frozenset(
    {
        "argparse.Namespace",
        "collections.Counter",
        "collections.defaultdict",
        "_codecs.encode",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "torch.Size",
        "torch.device",
    }
)
DICTS = frozenset({"collections.OrderedDict", "builtins.dict", "__builtin__.dict"})
MAX_OPCODES = 20_000_000  # a ViT-L checkpoint with optimizer state has about 100,000


class PickleError(InputError):
    """The pickle is damaged, or names something that no checkpoint needs."""


class BoundedFile:
    """A binary file that never reads past its end, so that a crafted length cannot allocate memory."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes, and at most the rest of the file."""
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def readline(self) -> bytes:
        """Read one line."""
        return self._file.readline()

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()


class Interpreter:
    """An interpreter for one pickle.

    builders:   allowed global -> function that builds the result of calling it.
    allowed:    whether another global may occur as a token.
    persistent: builds the value of a persistent id.
    """

    def __init__(self, builders: dict[str, Callable[..., Any]], allowed: Callable[[str], bool], persistent: Callable):
        self.builders = builders
        self.allowed = allowed
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: io.BufferedIOBase) -> Any:
        """Read the pickle at the file's position, return its value and leave the file after its end.

        Raises PickleError for a damaged pickle or a refused global.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # escapes in damaged text
                return self._interpret(file)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError) as error:
            if isinstance(error, InputError):
                raise
            raise PickleError(f"damaged pickle ({type(error).__name__}: {error})") from error
        except (MemoryError, RecursionError) as error:
            raise PickleError("a pickle that needs too much memory") from error

    def _interpret(self, file: io.BufferedIOBase) -> Any:
        opcodes = pickletools.genops(BoundedFile(file))  # type: ignore[arg-type]  # only read, readline, tell
        for count, (opcode, argument, _) in enumerate(opcodes):
            if opcode.name == "STOP":
                return self.stack.pop()
            if count > MAX_OPCODES:
                raise PickleError(f"more than {MAX_OPCODES} opcodes: no checkpoint has so many")
            self.step(opcode.name, argument)
        raise PickleError("the pickle is truncated")

    def step(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE" | "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_SET":
                stack.append(CONSTANTS[name]())
            case _ if name in LITERALS:
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "TUPLE" | "LIST" | "DICT":
                stack.append(COLLECTIONS[name](self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "APPENDS" | "ADDITEMS" | "SETITEM" | "SETITEMS":
                self.extend(name)
            case "GLOBAL":
                stack.append(self.resolve_global(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self.resolve_global(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self.call(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of an OrderedDict (_metadata) or of an opaque value: no weights
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case _:
                raise PickleError(f"opcode {name}, which no checkpoint needs")

    def pop_to_mark(self) -> list[Any]:
        """Pop and return the items above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, name: str) -> None:
        """Add the top items to the list, set or dict below them."""
        items = self.pop_to_mark() if name.endswith("S") else [self.stack.pop()]
        if name == "SETITEM":
            items = [self.stack.pop(), *items]
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if name.startswith("SETITEM"):
            if not isinstance(target, dict):
                raise PickleError(f"items set on a {type(target).__name__}")
            target.update(_pair_items(items))
        elif isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(_check_key, items))
        else:
            raise PickleError(f"items added to a {type(target).__name__}")

    def resolve_global(self, name: str) -> Global:
        """Return the token of an allowed global. Raises PickleError naming any other."""
        if name in INERT or name in DICTS or name in self.builders or self.allowed(name):
            return Global(name)
        raise PickleError(f"refused: it names {name}, which weights do not need; save model.state_dict() instead")

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the value that calling a token builds."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise PickleError(f"a call of a {type(function).__name__}")
        if function.name in DICTS:
            return {_check_key(key): value for key, value in (arguments[0] if arguments else ())}
        if function.name in self.builders:
            return self.builders[function.name](*arguments)
        return Opaque(function.name)


def _check_key(value: Any) -> Any:
    """Return a dict key of a plain type. Hashing anything deeper could exhaust the stack."""
    if not isinstance(value, str | int | float | bytes | None):
        raise PickleError(f"a {type(value).__name__} as a key")
    return value


def _pair_items(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(_check_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
}
COLLECTIONS: dict[str, Callable[[list], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: dict(_pair_items(items)),
}
LITERALS = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"]
    + ["STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"]
    + ["BINBYTES", "SHORT_BINBYTES", "BINBYTES8"]
)
