"""Released checkpoints by name: registry, cache and the Hugging Face hub."""
