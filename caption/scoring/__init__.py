"""Metrics of captions: BLEU, ROUGE-L and CIDEr-D; Java's METEOR and SPICE where installed."""
