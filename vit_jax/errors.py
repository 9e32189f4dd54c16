"""Errors in the user's input. A command reports one as a single line and exits with code 2."""

import errno
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InputError(ValueError):
    """An error in the user's input. The message is one line that names the thing, the problem and the remedy."""


def describe_os_error(error: OSError) -> str:
    """Return one line for an operating-system error: the file, the problem, and the remedy if there is one."""
    problem = error.strerror or str(error)
    file = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL_DISK:
        return f"{file}cannot write: {problem}; free some space or choose another output folder"
    return f"{file}{problem}"


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, reports a full disk.

    Libraries that write in their own threads (tensorstore under orbax) report the system's error only as text.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL_DISK:
            return True
        if "No space left on device" in str(cause) or "File too large" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def one_line_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Wrap a command's `main`: errors that the user can fix print one line to stderr and return 2.

    These are InputError, operating-system errors and a full disk. All other errors keep their traceback.
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
