"""Errors in the user's input. A command reports one as a single line and exits with code 2."""

import errno
import functools
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec

from vit_jax.backend import describe_missing_backend
from vit_jax.interruption import Interruption, interruptible, pass_on
from vit_jax.notes import program_notes
from vit_jax.streams import discard_unwritten, escape_unprintable, flush_at_end

P = ParamSpec("P")
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
BROKEN_PIPE = 128 + 13  # the exit code of a program that SIGPIPE ends, which Windows lacks


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

    These are InputError, operating-system errors, a full disk and devices that jax lacks. All other errors keep their
    traceback. SIGINT and SIGTERM return 128 + the signal; a reader of the output that closes the pipe ends the command
    silently. Characters that the output's encoding lacks are printed as escapes.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        escape_unprintable()
        try:
            with interruptible(), program_notes(), flush_at_end():
                return main(*args, **kwargs)
        except KeyboardInterrupt as error:
            _print_to_stderr("\ninterrupted")
            number = error.number if isinstance(error, Interruption) else signal.SIGINT
            discard_unwritten()
            pass_on(number)
            return 128 + number
        except BrokenPipeError:
            return BROKEN_PIPE
        except Exception as error:
            line = _describe(error)
            if line is None:
                raise
            _print_to_stderr("error: " + " ".join(line.split()))
            return 2
        finally:
            discard_unwritten()

    return wrapped


def _describe(error: Exception) -> str | None:
    """Return one line for an error that the user can fix, None for others."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return describe_os_error(error)
    if is_full_disk(error):
        return "cannot write: no space left on device; free some space or choose another output folder"
    return describe_missing_backend(error)


def _print_to_stderr(text: str) -> None:
    with suppress(OSError):  # its reader may have closed the pipe
        print(text, file=sys.stderr)
