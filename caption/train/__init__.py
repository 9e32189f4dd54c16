"""Training of captioners: recipe, loss, optimizer and task."""
