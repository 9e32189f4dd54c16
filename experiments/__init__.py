"""Programs: python -m experiments.finetune and its siblings, or vit-jax finetune (vit_jax_command.py)."""

import sys

if sys.argv[:1] == ["-m"]:  # so while `python -m experiments.NAME` looks for its module, before the slow imports
    from weights_convert.startup import exit_on_signals, exit_with_version

    exit_on_signals()
    exit_with_version()
