"""Whole modules in a pickle: their state dict, without their classes.

torch.save(module) stores an object with the attributes _parameters, _buffers and _modules; a TorchScript archive stores
one whose attributes are all of these. Reference: torch.nn.Module.state_dict of PyTorch 2.13.
"""

from typing import Any

from vit_jax.errors import InputError
from weights_convert.formats.arrays import Tensor
from weights_convert.formats.inert import Inert

SCRIPT = "__torch__."
MAX_NAME, MAX_ENTRIES = 1000, 200_000


def is_module(node: Any) -> bool:
    """Return whether a value is a torch module."""
    if not isinstance(node, Inert):
        return False
    attributes = node.attributes
    is_eager = all(isinstance(attributes.get(key), dict) for key in ("_parameters", "_buffers", "_modules"))
    return is_eager or (node.name.startswith(SCRIPT) and bool(attributes))


def module_state_dict(module: Inert) -> dict[str, Any]:
    """Return the parameters and persistent buffers of a module and its submodules under the names of state_dict().

    Raises InputError for modules that hold themselves.
    """
    flat: dict[str, Any] = {}
    pending, visited = [("", module)], 0
    while pending:
        prefix, node = pending.pop()
        visited += 1
        arrays, modules = _split_attributes(node)
        flat.update({f"{prefix}{key}": value for key, value in arrays.items()})
        pending += [(f"{prefix}{key}.", child) for key, child in reversed(modules.items()) if is_module(child)]
        if len(prefix) > MAX_NAME or visited + len(flat) > MAX_ENTRIES:
            raise InputError(
                f"{module.name}: modules nested too deep, or in themselves; save model.state_dict() instead"
            )
    return flat


def _split_attributes(module: Inert) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return a module's own parameters and persistent buffers, and its submodules."""
    attributes = module.attributes
    if module.name.startswith(SCRIPT):
        return {key: value for key, value in attributes.items() if isinstance(value, Tensor)}, attributes
    transient = attributes.get("_non_persistent_buffers_set")
    transient = transient if isinstance(transient, list) else ()
    buffers = {key: value for key, value in attributes["_buffers"].items() if key not in transient}
    arrays = {key: value for key, value in {**attributes["_parameters"], **buffers}.items() if value is not None}
    return arrays, attributes["_modules"]
