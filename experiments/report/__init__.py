"""python -m experiments.report: one page about finished runs."""
