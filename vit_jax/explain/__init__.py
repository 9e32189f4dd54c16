"""Where a model looked: pure functions of attention weights and gradients."""
