"""Scores of captions: BLEU, ROUGE-L and CIDEr-D, and Java's METEOR and SPICE where installed."""
