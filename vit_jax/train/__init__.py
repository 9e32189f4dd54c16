"""One training loop for every task: state, step, sharding, checkpoints, metrics."""
