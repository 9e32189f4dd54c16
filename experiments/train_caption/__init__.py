"""python -m experiments.train_caption: train or fine-tune a captioner."""
