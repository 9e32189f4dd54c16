"""Training in several processes, one per host or device. The first one prints and writes files.

Under SLURM, Open MPI and Kubernetes jax detects the other processes. Elsewhere each process needs ProcessOptions.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vit_jax.errors import InputError
from vit_jax.numerals import parse_int
from vit_jax.settings import check_settings, setting

# Variables that clusters set, and the least value that means more than one process.
CLUSTERS = {"SLURM_NTASKS": 2, "OMPI_COMM_WORLD_SIZE": 2, "JOB_COMPLETION_INDEX": 0}


@dataclass(frozen=True)
class ProcessOptions:
    """Which process this is, for processes that no cluster starts. Either all fields are None or none is."""

    coordinator: str | None = setting(None, "address at which the first process listens", metavar="HOST:PORT")
    processes: int | None = setting(None, "number of processes", interval="[1, inf)")
    process: int | None = setting(None, "index of this process, from 0", interval="[0, inf)", metavar="I")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.coordinator is None and self.processes is None and self.process is None:
            return
        if self.coordinator is None or self.processes is None or self.process is None:
            raise InputError("--coordinator, --processes and --process go together; give all three")
        if self.process >= self.processes:
            raise InputError(f"--process {self.process}: from 0 to {self.processes - 1}, as --processes has it")


def initialize(options: ProcessOptions) -> None:
    """Connect to the other processes, if there are any. From then on only the first process prints.

    Raises InputError if the other processes can't be reached.
    """
    connect(options)
    if not is_first_process():
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115  until the process ends


def has_peers(options: ProcessOptions) -> bool:
    """Return whether the flags, or the variables of a cluster, name several processes."""
    if options.coordinator is not None:
        return True
    return any(_read_variable(name, least - 1) >= least for name, least in CLUSTERS.items())


def connect(options: ProcessOptions) -> bool:
    """Connect to the other processes, and return whether there are any. Call it before jax computes.

    Raises InputError if they can't be reached.
    """
    if not has_peers(options):
        return False
    if options.coordinator is None:
        _initialize()
    else:
        _initialize(
            coordinator_address=options.coordinator, num_processes=options.processes, process_id=options.process
        )
    return True


def _read_variable(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    value = parse_int(text)
    if value is None:
        raise InputError(f"the environment variable {name} is {text!r}, not a whole number; correct or unset it")
    return value


def _initialize(**settings: Any) -> None:
    try:
        jax.distributed.initialize(**settings)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"can't join the other processes: {str(error).splitlines()[0]}") from error


def is_first_process() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def sync_processes(name: str) -> None:
    """Wait until every process has called this."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process. All processes must call this at the same point."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(flag)).any())
