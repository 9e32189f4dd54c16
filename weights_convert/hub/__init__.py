"""Where pretrained checkpoints come from: registry of released files, cache and the Hugging Face hub."""
