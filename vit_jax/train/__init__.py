"""The training engine: recipe, step, loop, optimizer, sharding, checkpoints and logging."""
