"""A restricted pickle reader: an interpreter for pickle's opcodes that imports and calls nothing.

Python's own unpickler imports and calls whatever a file names. Here a global is only a token, and calling a token
builds one of a few known values (a dict, a tensor's description) or an Inert, which holds what the call was given. Sets
become lists. Opcodes come from pickletools.genops; memory stays within a small multiple of the pickle's size.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from typing import Any

from vit_jax.errors import InputError
from weights_convert.formats.inert import Global, Inert, make_key

DICTS = frozenset(["collections.OrderedDict", "collections.Counter", "builtins.dict", "__builtin__.dict"])
SETS = frozenset(["builtins.set", "__builtin__.set", "builtins.frozenset", "__builtin__.frozenset"])
EMPTY_BYTES = frozenset(["builtins.bytes", "__builtin__.bytes"])  # how protocol 2 writes b""
RECONSTRUCTORS = frozenset(
    [
        f"{module}.{name}"
        for module in ("copyreg", "copy_reg")
        for name in ("_reconstructor", "__newobj__", "__newobj_ex__")
    ]
)
MAX_OPCODES = 20_000_000  # a ViT-L checkpoint with optimizer state has about 100,000
MAX_GLOBAL = 1000  # characters

Builder = Callable[..., Any]


class PickleError(InputError):
    """The pickle is damaged."""


class BoundedFile:
    """A binary file that never reads past its end, so that a crafted length cannot allocate memory."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)
        self.size = self._end - start

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

    builders:   global -> function that builds the result of calling it; NotImplemented makes it an Inert.
    persistent: builds the value of a persistent id.
    """

    def __init__(self, builders: dict[str, Builder], persistent: Callable[[Any], Any]):
        self.builders: dict[str, Builder] = {
            "collections.defaultdict": lambda *_: {},
            **dict.fromkeys(DICTS, self.make_dict),
            **dict.fromkeys(SETS, _make_set),
            **dict.fromkeys(EMPTY_BYTES, lambda *arguments: NotImplemented if arguments else b""),
            "_codecs.encode": self.encode_bytes,
            **builders,
        }
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = self.limit = 0

    def run(self, file: io.BufferedIOBase) -> Any:
        """Read the pickle at the file's position, return its value and leave the file after its end.

        Raises PickleError for a damaged pickle.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # escapes in damaged text
                return self._interpret(file)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError) as error:
            if isinstance(error, InputError):
                raise
            raise PickleError(f"damaged pickle ({type(error).__name__}: {str(error)[:200]})") from error
        except (MemoryError, RecursionError) as error:
            raise PickleError("a pickle that needs too much memory") from error

    def _interpret(self, file: io.BufferedIOBase) -> Any:
        bounded = BoundedFile(file)
        self.limit = bounded.size
        opcodes = pickletools.genops(bounded)  # type: ignore[arg-type]  # only read, readline, tell
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
            case "PROTO" | "FRAME" | "READONLY_BUFFER":
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
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                self.pop_to_mark() if self.marks[-1:] == [len(stack)] else stack.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET":
                stack.append(COLLECTIONS[name](self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND" | "APPENDS" | "ADDITEMS" | "SETITEM" | "SETITEMS":
                self.extend(name)
            case "GLOBAL" | "INST" | "STACK_GLOBAL" | "EXT1" | "EXT2" | "EXT4":
                self.push_global(name, argument)
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX" | "OBJ":
                self.call(name)
            case "BUILD":
                state = stack.pop()  # of a dict, list or tensor it is ignored: attributes hold no weights
                if isinstance(stack[-1], Inert):
                    stack[-1].states.append(state)
            case "BINPERSID" | "PERSID":
                stack.append(self.persistent(stack.pop() if name == "BINPERSID" else argument))
            case _:
                raise PickleError(f"opcode {name}, which no checkpoint needs")

    def pop_to_mark(self) -> list[Any]:
        """Pop and return the items above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, name: str) -> None:
        """Add the top items to the list, set, dict or object below them."""
        items = self.pop_to_mark() if name.endswith("S") else [self.stack.pop()]
        if name == "SETITEM":
            items = [self.stack.pop(), *items]
        target = self.stack[-1]
        if name.startswith("SETITEM"):
            pairs = target.pairs if isinstance(target, Inert) else target
            if not isinstance(pairs, dict):
                raise PickleError(f"items set on a {type(target).__name__}")
            pairs.update(_pair_items(items))
        else:
            sequence = target.items if isinstance(target, Inert) else target
            if not isinstance(sequence, list):
                raise PickleError(f"items added to a {type(target).__name__}")
            sequence.extend(items)

    def push_global(self, opcode: str, argument: Any) -> None:
        """Push the token of a global; INST calls it too."""
        if opcode == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
        elif opcode.startswith("EXT"):
            module, attribute = "copyreg", f"extension {argument}"
        else:
            module, attribute = argument.split(" ", 1)
        if not (isinstance(module, str) and isinstance(attribute, str) and len(module) + len(attribute) < MAX_GLOBAL):
            raise PickleError("a global without a name")
        token = Global(f"{module}.{attribute}")
        self.stack.append(self.build(token, tuple(self.pop_to_mark())) if opcode == "INST" else token)

    def call(self, opcode: str) -> None:
        """Pop a token and its arguments; push the value that calling it builds."""
        if opcode == "OBJ":
            function, *arguments = self.pop_to_mark()
            self.stack.append(self.build(function, tuple(arguments)))
            return
        options = self.stack.pop() if opcode == "NEWOBJ_EX" else None
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.build(function, arguments, options))

    def build(self, function: Any, arguments: Any, options: Any = None) -> Any:
        """Return the value that calling a token builds: a known one, or an Inert."""
        if not isinstance(function, Global | Inert) or not isinstance(arguments, tuple):
            raise PickleError(f"a call of a {type(function).__name__}")
        if options:
            arguments = (*arguments, options)
        if function.name in RECONSTRUCTORS and arguments and isinstance(arguments[0], Global):
            function, arguments = arguments[0], arguments[1:]
        builder = self.builders.get(function.name) if isinstance(function, Global) and not options else None
        value = builder(*arguments) if builder else NotImplemented
        return Inert(function.name, arguments) if value is NotImplemented else value

    def make_dict(self, items: Any = (), *_: Any) -> Any:
        """Return a dict of the pairs."""
        if not isinstance(items, dict | list | tuple):
            return NotImplemented
        self.count_copies(len(items))
        return {make_key(key): value for key, value in (items.items() if isinstance(items, dict) else items)}

    def encode_bytes(self, text: Any, encoding: Any = None) -> Any:
        """Return bytes that protocol 2 writes as text."""
        if not isinstance(text, str) or encoding != "latin1":
            return NotImplemented
        self.count_copies(len(text))
        return text.encode("latin1")

    def count_copies(self, count: int) -> None:
        """Raise PickleError if calls copy more than the pickle holds: a few bytes could ask for any amount."""
        self.copied += count
        if self.copied > self.limit:
            raise PickleError("a pickle that needs too much memory")


def _pair_items(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(make_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def _make_set(items: Any = None, *_: Any) -> Any:
    """Return a set's items as they are: hashing them could exhaust the stack."""
    return [] if items is None else items


CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
}
COLLECTIONS: dict[str, Callable[[list], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "FROZENSET": list,
    "DICT": lambda items: dict(_pair_items(items)),
}
LITERALS = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"]
    + ["STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"]
    + ["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"]
)
