"""python -m experiments.explain: explanation maps of images, or their faithfulness."""
