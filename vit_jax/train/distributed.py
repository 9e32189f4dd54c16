"""Several processes, one for each host or card: started by a cluster or by flags, and which of them speaks and writes.

Under SLURM, Open MPI and Kubernetes jax finds the others by itself; elsewhere each process is told where the first one
is, how many there are and which one it is.
"""

import argparse
import os
import sys
from typing import Any

import jax
import numpy as np

from vit_jax.cli import positive_int
from vit_jax.errors import InputError

# What a cluster sets in a task of several: the variable, and the least number that means more than one process.
CLUSTERS = {"SLURM_NTASKS": 2, "OMPI_COMM_WORLD_SIZE": 2, "JOB_COMPLETION_INDEX": 0}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for processes that no cluster starts."""
    group = parser.add_argument_group("several processes (found by itself under SLURM, Open MPI and Kubernetes)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where the first process listens")
    group.add_argument("--processes", type=positive_int, help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def initialize(args: argparse.Namespace) -> None:
    """Join the other processes, if there are any; only the first one prints from then on.

    Raises InputError for flags that do not fit one another, and when the others do not come.
    """
    flags = (args.coordinator, args.processes, args.process)
    if any(flag is not None for flag in flags):
        if any(flag is None for flag in flags):
            raise InputError("--coordinator, --processes and --process go together; give all three")
        if not 0 <= args.process < args.processes:
            raise InputError(f"--process {args.process}: from 0 to {args.processes - 1}, as --processes has it")
        _initialize(coordinator_address=args.coordinator, num_processes=args.processes, process_id=args.process)
    elif any(int(os.environ.get(name, least - 1)) >= least for name, least in CLUSTERS.items()):
        _initialize()
    if not is_first_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives


def _initialize(**settings: Any) -> None:
    try:
        jax.distributed.initialize(**settings)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"can't join the other processes: {str(error).splitlines()[0]}") from error


def is_first_process() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def sync_processes(name: str) -> None:
    """Return when every process has come here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process: all of them must ask at the same place."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(flag)).any())
