"""Programs: python -m experiments.finetune and its siblings."""
