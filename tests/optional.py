"""Packages that only some tests need: where one is not installed, the tests that use it are skipped."""

import importlib
from typing import Any

import pytest


class _Missing:
    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks at every object of a module: only a test's use is to skip it
            raise AttributeError(attribute)
        pytest.skip(f"needs {self.name}", allow_module_level=True)


def load(name: str) -> Any:
    """Return a module, or in its place an object whose use skips the test, or the module of tests at import."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return _Missing(name)


torch = load("torch")
pytorch_pretrained_vit = load("pytorch_pretrained_vit")
