"""Placing a run on the devices there are: batches divided along one mesh axis, everything else replicated."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax import InputError

AXIS = "data"


def make_mesh(batch_size: int) -> Mesh:
    """All devices in one axis. Raises InputError when they can't share the batch evenly."""
    count = jax.device_count()
    if batch_size % count:
        near = max(count, batch_size // count * count)
        raise InputError(f"batch size {batch_size} is not divisible by the {count} devices; try {near}")
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,))


def divided(mesh: Mesh, batch: Any) -> Any:
    """A batch of host arrays on the devices, divided along the first axis."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(AXIS)))


def replicated(mesh: Mesh, tree: Any) -> Any:
    """A pytree on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
