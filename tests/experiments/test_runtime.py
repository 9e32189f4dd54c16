"""What the programs set: an error that tensorstore prints long after the failure is kept quiet, no other."""

import subprocess
import sys

import pytest

CODE = """
from experiments import runtime
runtime.configure()
class Late:
    def __del__(self):
        try:
            raise {cause}
        except BaseException as error:
            raise RuntimeError({text!r}) from error
Late()
"""


@pytest.mark.parametrize(
    ("text", "cause", "quiet"),
    [
        ("Event loop is closed", "ValueError", True),
        ("a read given up", "GeneratorExit", True),
        ("something else", "ValueError", False),
    ],
)
def test_only_what_orbax_left_behind_is_kept_quiet(text, cause, quiet):
    code = CODE.format(text=text, cause=cause)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr == "") == quiet
