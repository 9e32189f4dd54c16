"""What a wrong input is, and how a command ends on one: a single line, exit code 2."""

import errno
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InputError(ValueError):
    """Something the user gave is wrong. The message is one line that names the thing and the remedy."""


def describe_os_error(error: OSError) -> str:
    """One line for an operating-system error: the file, what happened, and the remedy where there is one."""
    what = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL_DISK:
        return f"{where}cannot write: {what}; free some space or choose another output folder"
    return f"{where}{what}"


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that the disk is full.

    Libraries that write from threads of their own (tensorstore under orbax) wrap the system's error in a text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL_DISK:
            return True
        if "No space left on device" in str(seen) or "File too large" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def one_line_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Wrap a command's `main` so that a wrong input prints one line to stderr and returns 2.

    Programming errors keep their traceback: only InputError, errors of the operating system and a full disk
    are the user's to mend.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except InputError as error:
            line = str(error)
        except OSError as error:
            line = describe_os_error(error)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130
        except Exception as error:
            if not is_full_disk(error):
                raise
            line = "cannot write: no space left on device; free some space or choose another output folder"
        print("error: " + " ".join(line.split()), file=sys.stderr)
        return 2

    return wrapped
