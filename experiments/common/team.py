"""The processes that share a program's work: which items each one does, and how the first one learns that all ended.

jax.distributed connects them for a moment, to tell them apart and to wait until the first one has prepared the work.
Afterwards each computes on its own devices only, so that a process that fails or is killed ends no other. Their states
are files in a folder that all of them see.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from jax._src.distributed import global_state  # the only source of the number of a process before devices exist

from vit_jax import InputError
from vit_jax.files import atomic_write
from vit_jax.locks import lock_folder
from vit_jax.train.distributed import ProcessOptions, connect, has_peers

LEASE = 60.0  # seconds
POLL = 0.2  # seconds
PARTS = ".parts"  # a folder below that of the results
WORKING, DONE, FAILED = "working", "done", "failed"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Team:
    """This process's index among `count` processes; by default it is the only one."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that merges results and prints."""
        return self.index == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return the items that this process does: every count-th one. The shares of all processes are disjoint."""
        return list(items[self.index :: self.count])


def join_team(options: ProcessOptions, prepare: Callable[[], None]) -> Team:
    """Return this process's place among those that share the work, once the first one has run `prepare`.

    Call it before jax computes; `prepare` must not compute either. Afterwards only the first process prints to stdout.
    Raises InputError if the other processes cannot be reached.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from the program
    if not connect(options):
        prepare()
        return Team()
    team = Team(global_state.process_id, global_state.num_processes)
    if team.is_first:
        prepare()
    jax.distributed.shutdown()  # waits for all
    global_state.process_id, global_state.num_processes = 0, 1  # from here on this process is jax's only one
    if not team.is_first:
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115  until the process ends
    return team


def check_alone(options: ProcessOptions) -> None:
    """Raise InputError if there are several processes, for a program that is given no folder to share."""
    if has_peers(options):
        raise InputError("several processes need --out, a folder that all of them see")


class SharedFolder(NamedTuple):
    """A folder of results that a team writes.

    parts:   a folder below it, of the team's states and of unfinished work.
    summary: what this process reports at the end, JSON-able; see TeamStates.
    """

    team: Team
    states: "TeamStates"
    parts: Path
    summary: dict[str, Any]


@contextmanager
def share_folder(folder: Path, options: ProcessOptions, work: str) -> Iterator[SharedFolder]:
    """Join the processes that write into a folder, which the first one locks, and report the block as this one's work.

    The first process waits for the others within the block. Its end removes `parts`; an error keeps what is in it.
    work: see lock_folder. Raises InputError as lock_folder and join_team do.
    """
    parts, summary = folder / PARTS, dict[str, Any]()
    with ExitStack() as stack:

        def prepare() -> None:
            stack.enter_context(lock_folder(folder, work))
            clear_states(parts)

        team = join_team(options, prepare)
        states = TeamStates(parts, team)
        try:
            with states.report(summary):
                yield SharedFolder(team, states, parts, summary)
            if team.is_first:
                shutil.rmtree(parts, ignore_errors=True)
        finally:
            with suppress(OSError):  # it holds parts, or does not exist
                parts.rmdir()


def clear_states(folder: Path) -> None:
    """Remove the states of earlier processes; for the first process, before the others start."""
    for path in folder.glob("process-*.json"):
        path.unlink(missing_ok=True)


class TeamStates:
    """The states of a team's processes, in a folder that all see; nothing is written for a team of one.

    A process touches its state while it works. lease: seconds without that after which it counts as dead.
    """

    def __init__(self, folder: Path, team: Team, *, lease: float = LEASE):
        self.folder, self.team, self.lease = folder, team, lease

    @contextmanager
    def report(self, summary: dict[str, Any]) -> Iterator[None]:
        """Report this process as working in the block, and as done with the summary, or as failed, after it.

        The block may fill the summary, JSON-able.
        """
        if self.team.count == 1:
            yield
            return
        self._write(WORKING, {})
        finished = threading.Event()
        threading.Thread(target=self._keep_alive, args=(finished,), daemon=True).start()
        try:
            yield
        except BaseException as error:
            finished.set()
            self._write(FAILED, {"error": str(error) or type(error).__name__})
            raise
        finished.set()
        self._write(DONE, summary)

    def wait_for_all(self) -> list[dict[str, Any]]:
        """Return the summaries of the other processes, by index, once all are done.

        Raises InputError if one has failed, or has given no sign of life during the lease.
        """
        return [self._wait_for(index) for index in range(1, self.team.count)]

    def _wait_for(self, index: int) -> dict[str, Any]:
        path, touched, seen = self._path(index), 0, time.monotonic()
        while True:
            state: dict[str, Any] = {}
            with suppress(FileNotFoundError):  # it has not started yet
                state, modified = json.loads(path.read_text()), path.stat().st_mtime_ns
                if modified != touched:  # whatever the clock of its host
                    touched, seen = modified, time.monotonic()
            if state.get("state") == DONE:
                return state
            if state.get("state") == FAILED:
                error = state["error"]
                raise InputError(f"process {index} failed: {error}; the rest is kept: start all processes again")
            if time.monotonic() - seen > self.lease:
                raise InputError(f"process {index} ended early; the rest is kept: start all processes again")
            time.sleep(POLL)

    def _path(self, index: int) -> Path:
        return self.folder / f"process-{index:04}.json"

    def _write(self, state: str, more: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path(self.team.index)) as temporary:
            temporary.write_text(json.dumps({"state": state} | more) + "\n")

    def _keep_alive(self, finished: threading.Event) -> None:
        while not finished.wait(self.lease / 6):
            with suppress(FileNotFoundError):
                os.utime(self._path(self.team.index))
