"""How a run uses its machine. None of it changes what is trained, so a resumed run may change it."""

from dataclasses import dataclass

from vit_jax.execution import POLICIES, BlockExecution
from vit_jax.settings import check_settings, setting


@dataclass(frozen=True)
class RunOptions:
    """How a run uses its devices, and where its metrics go."""

    fsdp: bool = setting(False, "shard parameters and optimizer state over the devices")
    remat: str = setting("none", "what the backward pass recomputes, to save memory", choices=tuple(POLICIES))
    scan_layers: bool = setting(False, "compile one block and loop over it", paired=True)
    save_minutes: float = setting(10.0, "minutes between checkpoints within an epoch, 0 for none", interval="[0, inf)")
    memory_check: bool = setting(True, "try a step even if it does not fit in memory by the compiler's estimate")
    profile: int = setting(
        0, "trace some steps into the run's profile/, for TensorBoard's profiler or Perfetto; 10 if no number is given",
        interval="[0, inf)", const=10, metavar="STEPS",
    )  # fmt: skip
    compile_cache: bool = setting(True, "keep no compiled programs on disk for the next start")
    tensorboard: bool = setting(False, "write TensorBoard event files too (needs tensorboardX)")
    wandb: str | None = setting(None, "log to this Weights & Biases project too (needs wandb)", metavar="PROJECT")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def execution(self) -> BlockExecution:
        """How a model executes its blocks."""
        return BlockExecution(scan=self.scan_layers, remat=self.remat)
