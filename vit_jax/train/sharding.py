"""Placement of a run on its devices: batches are sharded along one mesh axis; the state is replicated, or sharded too.

With a sharded state (FSDP, https://arxiv.org/abs/1910.02054 stage 3) every large parameter and its optimizer state are
split evenly over the devices. A parameter is gathered where the forward and the backward pass need it.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.data.process_shard import RowRange
from vit_jax.errors import InputError

AXIS = "data"
SMALL = 1024  # arrays of fewer entries are always replicated


def make_mesh(batch_size: int) -> Mesh:
    """Return a mesh of all devices of all processes in one axis. Raises InputError if they do not divide the batch."""
    count = jax.device_count()
    if batch_size % count:
        near = max(count, batch_size // count * count)
        raise InputError(f"batch size {batch_size} is not divisible by the {count} devices; try {near}")
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,))


def process_rows(batch_size: int) -> RowRange:
    """Return the rows of every batch that this process reads: those of its devices."""
    share = batch_size // jax.process_count()
    return RowRange(jax.process_index() * share, (jax.process_index() + 1) * share)


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Put the rows of this process on its devices, as its part of one array sharded along the first axis."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def place(mesh: Mesh, tree: Any, *, fsdp: bool) -> Any:
    """Put a pytree on the devices: replicated, or with fsdp sharded by partition_spec."""
    leaves, structure = jax.tree.flatten(tree)
    shardings = [
        NamedSharding(mesh, partition_spec(leaf.shape, mesh.size) if fsdp else PartitionSpec()) for leaf in leaves
    ]
    return jax.tree.unflatten(structure, jax.device_put(leaves, shardings))


def partition_spec(shape: tuple[int, ...], count: int) -> PartitionSpec:
    """Return the sharding of an array over `count` devices: the longest axis that they divide evenly, if any."""
    size = 1
    for length in shape:
        size *= length
    even = [axis for axis, length in enumerate(shape) if length % count == 0]
    if size < SMALL or not even or count == 1:
        return PartitionSpec()
    longest = max(even, key=lambda axis: shape[axis])
    return PartitionSpec(*(AXIS if axis == longest else None for axis in range(len(shape))))


def constrain_like(tree: Any, like: Any) -> Any:
    """Inside jit: give the arrays of `tree` the sharding of those of `like`, which are placed."""
    leaves, structure = jax.tree.flatten(tree)
    shardings = [leaf.sharding for leaf in jax.tree.leaves(like)]
    placed = [jax.lax.with_sharding_constraint(leaf, s) for leaf, s in zip(leaves, shardings, strict=True)]
    return jax.tree.unflatten(structure, placed)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Inside jit: gather every array on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def local_replica(mesh: Mesh, tree: Any) -> Any:
    """Return a full copy on the first device of this process, for work that every process does by itself."""
    if jax.process_count() == 1:
        return tree
    replicated = jax.jit(lambda t: t, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), replicated)
