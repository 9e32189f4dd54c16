"""What a run asks of the machine. None of it changes what is learnt, so a resumed run may choose it anew."""

import argparse
from dataclasses import dataclass, fields

from vit_jax.cli import non_negative, positive_int
from vit_jax.execution import POLICIES, BlockExecution


@dataclass(frozen=True)
class RunOptions:
    """How a run uses its devices, and where its metrics go.

    fsdp:         parameters and optimiser state divided over the devices, in place of a copy on each.
    remat:        what the backward pass works out again to save memory: see vit_jax.execution.
    scan_layers:  the blocks compiled once and looped over, in place of one after another: docs/training.md measures it.
    save_minutes: a checkpoint that often within an epoch, beside the one at its end; 0 for none.
    memory_check: whether a step that the estimate says does not fit is refused.
    profile:      so many steps are traced into the run's profile/; 0 for none.
    compile_cache: compiled programs are kept on disk for the next start.
    tensorboard:  event files too. wandb: a Weights & Biases project to log to, or None.
    """

    fsdp: bool = False
    remat: str = "none"
    scan_layers: bool = False
    save_minutes: float = 10.0
    memory_check: bool = True
    profile: int = 0
    compile_cache: bool = True
    tensorboard: bool = False
    wandb: str | None = None

    @property
    def execution(self) -> BlockExecution:
        """How a model runs its layers."""
        return BlockExecution(scan=self.scan_layers, remat=self.remat)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option."""
    group = parser.add_argument_group("the machine (what is learnt stays the same)")
    group.add_argument("--fsdp", action="store_true", help="divide parameters and optimiser state over the devices")
    group.add_argument("--remat", choices=POLICIES, default="none", help="work out again what the backward pass needs")
    group.add_argument(
        "--scan-layers", action=argparse.BooleanOptionalAction, default=False, help="compile one block and loop over it"
    )
    group.add_argument("--save-minutes", type=non_negative, default=10.0, help="between checkpoints in an epoch (10)")
    group.add_argument("--no-memory-check", dest="memory_check", action="store_false", help="try it all the same")
    group.add_argument(
        "--profile", type=positive_int, nargs="?", const=10, default=0, metavar="STEPS",
        help="trace some steps (10) into the run's profile/, for TensorBoard's profiler or Perfetto",
    )  # fmt: skip
    group.add_argument(
        "--no-compile-cache", dest="compile_cache", action="store_false", help="keep no compiled programs on disk"
    )
    group.add_argument("--tensorboard", action="store_true", help="write event files too (needs tensorboardX)")
    group.add_argument("--wandb", metavar="PROJECT", help="log to Weights & Biases too (needs wandb)")


def parse_run_options(args: argparse.Namespace) -> RunOptions:
    """The options that flags ask for."""
    return RunOptions(**{field.name: getattr(args, field.name) for field in fields(RunOptions)})
