"""python -m experiments.sweep: the study's six models, or any models and settings, one after another or one per GPU.

Every run is an ordinary run of experiments.finetune in a folder of its own. The same call again, or --resume, goes on
where a sweep was stopped or killed.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.sweep.plan import SweepPlan, keep_plan, lock_sweep, make_plan, read_plan, refuse_other
from experiments.sweep.runs import DONE, SweepRun, forget_failures, wait_for_earlier
from experiments.sweep.table import Board
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int
from vit_jax.data.datasets import open_dataset
from vit_jax.errors import one_line_errors
from vit_jax.train import run_folder as run
from vit_jax.train.signals import Interrupt

LOOK_SECONDS = 0.5
WRITE_SECONDS = 300.0  # what a stopped run may take to save
PLANNING = {  # the flags that a plan is made of
    "data": "--data",
    "models": "--models",
    "weights_dir": "--weights-dir",
    "scratch": "--scratch",
    "seeds": "--seeds",
    "settings": "--set",
    "quick": "--quick",
    "out": "--out",
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m experiments.sweep",
        description="Train several models, one after another or one per GPU. What follows -- goes to each run.",
    )
    parser.add_argument("--data", help="as experiments.finetune has it (default: oxford_iiit_pet)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: the six of the published study")
    parser.add_argument("--weights-dir", help="a folder with NAME.pth or NAME/ for each model (default: fetched)")
    parser.add_argument("--scratch", action="store_true", help="no pretrained weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", dest="settings", nargs="+", default=[], metavar="NAME=A,B", help="as learning_rate=1e-5,3e-5"
    )
    parser.add_argument("--gpus", type=positive_int, help="so many at once, one on each GPU")
    parser.add_argument("--quick", action="store_true", help="small models, a few minutes on a CPU, and the report")
    parser.add_argument("--out", help="the sweep's folder (default: runs/sweep)")
    parser.add_argument("--resume", metavar="SWEEP", help="go on with that sweep")
    return parser


def devices(gpus: int | None) -> list[str | None]:
    """A place for each run that goes at the same time: its CUDA device, or one place with all there are.

    Raises InputError when the user lets fewer devices be seen.
    """
    if gpus is None:
        return [None]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(gpus)] if seen is None else [name for name in seen.split(",") if name]
    if len(names) < gpus:
        raise InputError(f"--gpus {gpus}: CUDA_VISIBLE_DEVICES has {len(names)} ({seen}); give no more than those")
    return list(names[:gpus])


def run_sweep(runs: Sequence[SweepRun], places: Sequence[str | None]) -> int | None:
    """Bring every run to its end, one in each place at once; answers the signal that stopped them, or None."""
    board = Board(runs)
    waiting = [one for one in runs if one.status().state != DONE]
    free = list(places)
    going: list[tuple[SweepRun, str | None]] = []
    with Interrupt() as interrupt:
        try:
            wait_for_earlier(waiting, interrupt)
            while interrupt.signal is None and (waiting or going):
                while waiting and free:
                    going.append((waiting.pop(0), free.pop(0)))
                    going[-1][0].start(going[-1][1])
                board.show()
                time.sleep(LOOK_SECONDS)
                free += [place for one, place in going if one.ended()]
                going = [(one, place) for one, place in going if one.process is not None]
        finally:
            for one, _ in going:
                one.stop(interrupt.signal or signal.SIGTERM)
            for one, _ in going:
                one.wait(WRITE_SECONDS)
        board.show()
        return interrupt.signal


def _planned(args: argparse.Namespace, flags: list[str], given: list[str]) -> tuple[Path, SweepPlan]:
    """The sweep's folder and plan, new or gone on with; the data, if a run is left that needs it, has been opened."""
    if args.resume:
        changed = [flag for name, flag in PLANNING.items() if getattr(args, name) != _parser().get_default(name)]
        if changed or flags:
            more = ", ".join([*changed, *(["--"] if flags else [])])
            raise InputError(f"{args.resume}: a resumed sweep keeps its plan; leave out {more}")
        return Path(args.resume), read_plan(Path(args.resume))
    folder = Path(args.out) if args.out else Path("runs") / ("quick" if args.quick else "sweep")
    plan = make_plan(
        data=args.data,
        models=args.models,
        seeds=args.seeds,
        settings=args.settings,
        flags=flags,
        weights_dir=args.weights_dir,
        scratch=args.scratch,
        quick=args.quick,
        command=given,
    )
    refuse_other(folder, plan)
    config = plan.runs[0].config()  # fetched here where it has to be, once for all runs
    open_dataset(config.data, data_dir=config.data_dir, val_fraction=config.val_fraction, seed=config.recipe.seed)
    keep_plan(folder, plan)
    return folder, plan


def _told(runs: Sequence[SweepRun], seconds: float) -> int:
    """Tell how the sweep ended; answers how many runs are not done."""
    left = [found for found in runs if found.status().state != DONE]
    print(f"{len(runs) - len(left)} of {len(runs)} runs done in {seconds:.0f} s")
    for found in left:
        print(f"  {found.planned.name}: {found.status().error} (all that it printed: {found.log})")
    return len(left)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 all done, 1 a run is not done, 2 a wrong input, 128 + signal when it was stopped."""
    given = list(sys.argv[1:] if argv is None else argv)
    flags = given[given.index("--") + 1 :] if "--" in given else []
    args = _parser().parse_args(given[: given.index("--")] if "--" in given else given)
    began = time.monotonic()
    places = devices(args.gpus)
    folder, plan = _planned(args, flags, given)
    folder = Path(run.absolute_if_path(str(folder)))
    runs = [SweepRun(planned, folder) for planned in plan.runs]
    again = f"python -m experiments.sweep --resume {shlex.quote(str(folder))}"
    with lock_sweep(folder):
        forget_failures(folder)
        stopped = run_sweep(runs, places)
    if stopped is not None:
        print(f"{signal.Signals(stopped).name}: the runs have saved; go on with")
        print(f"  {again}" + (f" --gpus {args.gpus}" if args.gpus else ""))
        return 128 + stopped
    left = _told(runs, time.monotonic() - began)
    if left:
        print(f"try again with: {again}")
    if plan.report and left < len(runs):
        from experiments.report import __main__ as report

        return report.main([str(folder), "--out", str(folder / "report")]) or int(left > 0)
    print("a report of them: " + shlex.join(["python", "-m", "experiments.report", str(folder), "--out", "DIR"]))
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
