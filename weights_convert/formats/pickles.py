"""A restricted reader of pickles: an interpreter for the few opcodes that checkpoints are made of.

Python's own unpickler imports and calls whatever a file names. This one never does: a global is a mere token, and
calling a token builds one of a handful of inert values (a dict, a tensor's description). Any other global is
refused by name. Opcodes come from pickletools.genops; memory stays within a small multiple of the pickle's size.
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
    """A name that the pickle mentions, "module.attribute"; never imported."""

    name: str


@dataclass
class Opaque:
    """A value of a type that carries no weights (training arguments, numpy scalars), kept unread."""

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
MAX_OPCODES = 20_000_000  # a ViT-L checkpoint with its optimiser state needs about 100,000


class PickleError(InputError):
    """The pickle is damaged, or names something that a checkpoint has no use for."""


class BoundedFile:
    """A binary file whose reads never ask for more than what is left, so that no length can claim memory."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, at most what is left."""
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def readline(self) -> bytes:
        """One line."""
        return self._file.readline()

    def tell(self) -> int:
        """The position in the file."""
        return self._file.tell()


class Interpreter:
    """Run one pickle; `builders` says what calling each allowed global makes."""

    def __init__(self, builders: dict[str, Callable[..., Any]], allowed: Callable[[str], bool], persistent: Callable):
        self.builders = builders
        self.allowed = allowed
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: io.BufferedIOBase) -> Any:
        """The value of the pickle that starts at the file's position; the file is left behind its end.

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
            raise PickleError("a pickle that asks for too much memory") from error

    def _interpret(self, file: io.BufferedIOBase) -> Any:
        opcodes = pickletools.genops(BoundedFile(file))  # type: ignore[arg-type]  # only read, readline, tell
        for count, (opcode, argument, _) in enumerate(opcodes):
            if opcode.name == "STOP":
                return self.stack.pop()
            if count > MAX_OPCODES:
                raise PickleError(f"more than {MAX_OPCODES} opcodes: no checkpoint is that long")
            self.step(opcode.name, argument)
        raise PickleError("the pickle breaks off")

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
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
                stack.append(GATHERED[name](self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "APPENDS" | "ADDITEMS" | "SETITEM" | "SETITEMS":
                self.extend(name)
            case "GLOBAL":
                stack.append(self.named(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self.named(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self.call(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of an ordered dict (its _metadata) or of an opaque value: no weights
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case _:
                raise PickleError(f"opcode {name}, which no checkpoint needs")

    def since_mark(self) -> list[Any]:
        """What was pushed after the last mark, taken off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, name: str) -> None:
        """Add to the list, set or dict below."""
        items = self.since_mark() if name.endswith("S") else [self.stack.pop()]
        if name == "SETITEM":
            items = [self.stack.pop(), *items]
        target = self.stack[-1]
        if isinstance(target, Opaque):
            return
        if name.startswith("SETITEM"):
            if not isinstance(target, dict):
                raise PickleError(f"items set on a {type(target).__name__}")
            target.update(_paired(items))
        elif isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(_key, items))
        else:
            raise PickleError(f"items added to a {type(target).__name__}")

    def named(self, name: str) -> Global:
        """The token of a global on the allow list. Raises PickleError for any other, naming it."""
        if name in INERT or name in DICTS or name in self.builders or self.allowed(name):
            return Global(name)
        raise PickleError(f"refused: it names {name}, which weights have no need of; save model.state_dict() instead")

    def call(self, function: Any, arguments: Any) -> Any:
        """What calling a token builds."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise PickleError(f"a call of a {type(function).__name__}")
        if function.name in DICTS:
            return {_key(key): value for key, value in (arguments[0] if arguments else ())}
        if function.name in self.builders:
            return self.builders[function.name](*arguments)
        return Opaque(function.name)


def _key(value: Any) -> Any:
    """A dict's key as checkpoints have them. Anything deeper could exhaust the stack when it is hashed."""
    if not isinstance(value, str | int | float | bytes | None):
        raise PickleError(f"a {type(value).__name__} as a key")
    return value


def _paired(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
}
GATHERED: dict[str, Callable[[list], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": lambda items: dict(_paired(items)),
}
LITERALS = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"]
    + ["STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"]
    + ["BINBYTES", "SHORT_BINBYTES", "BINBYTES8"]
)
