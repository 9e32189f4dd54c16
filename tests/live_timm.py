"""timm, where it and torchvision are installed."""

import sys
import types

import pytest


def load():
    """Return the module timm, or skip the test.

    torchvision's wheels import next to a CPU build of torch only if their registration of fake kernels is left out.
    """
    pytest.importorskip("torch")
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    return pytest.importorskip("timm", exc_type=ImportError)
