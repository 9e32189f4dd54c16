"""python -m experiments.report: one page on finished runs."""
