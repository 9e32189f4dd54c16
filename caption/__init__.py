"""Image captions with a heat map for every word. Nothing is here yet; see the README's limits."""
