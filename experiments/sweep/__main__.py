"""python -m experiments.sweep: the study's six models, or any models and settings, one after another or one per GPU.

Every run is an ordinary run of experiments.finetune in a folder of its own. Repeating the command, or --resume,
continues a sweep that was stopped or killed.
"""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.sweep.folder import PLAN, check_unused, read_plan, write_plan
from experiments.sweep.plan import SweepPlan, make_plan
from experiments.sweep.runs import SweepRun, forget_failures, unfinished_runs
from experiments.sweep.scheduler import list_devices, run_sweep
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int, program_name, seed
from vit_jax.errors import one_line_errors
from vit_jax.locks import lock_folder
from vit_jax.notes import note
from vit_jax.outputs import check_out_folder, check_outside
from vit_jax.train.run_data import open_data
from vit_jax.train.run_folder import absolute_if_path

PLAN_FLAGS = {  # argument -> flag, for the flags that make the plan
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
        prog=program_name("experiments.sweep"),
        description="Train several models, one after another or one per GPU. Flags after -- go to every run.",
    )
    parser.add_argument("--data", help="as for experiments.finetune (default: oxford_iiit_pet)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: the six of the published study")
    parser.add_argument("--weights-dir", help="a folder with NAME.pth or NAME/ for each model (default: download)")
    parser.add_argument("--scratch", action="store_true", help="no pretrained weights")
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0])
    parser.add_argument(
        "--set", dest="settings", nargs="+", default=[], metavar="NAME=A,B", help="as learning_rate=1e-5,3e-5"
    )
    parser.add_argument("--gpus", type=positive_int, help="number of simultaneous runs, one on each GPU")
    parser.add_argument("--quick", action="store_true", help="small models, a few minutes on a CPU, and the report")
    parser.add_argument("--out", help="the sweep's folder (default: runs/sweep)")
    parser.add_argument("--resume", metavar="SWEEP", help="continue that sweep")
    return parser


def _open_plan(args: argparse.Namespace, flags: list[str], command: list[str]) -> tuple[Path, SweepPlan]:
    """Return the sweep's folder and its plan, of --resume or new."""
    if not args.resume:
        return _new_plan(args, flags, command)
    changed = [flag for name, flag in PLAN_FLAGS.items() if getattr(args, name) != _parser().get_default(name)]
    changed += ["--"] if flags else []
    if changed:
        raise InputError(f"{args.resume}: a resumed sweep keeps its plan; leave out {', '.join(changed)}")
    return Path(args.resume), read_plan(Path(args.resume))


def _new_plan(args: argparse.Namespace, flags: list[str], command: list[str]) -> tuple[Path, SweepPlan]:
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
        command=command,
    )
    check_out_folder(folder)
    check_unused(folder, plan)
    config = plan.runs[0].config()
    check_outside(folder, [config.data] if Path(config.data).is_dir() else [])
    open_data(config)  # downloads the data once, before the runs need it
    write_plan(folder, plan)
    return folder, plan


def _print_outcome(runs: Sequence[SweepRun], seconds: float) -> int:
    """Print how the sweep ended; return the number of runs that are not done."""
    unfinished = unfinished_runs(runs)
    print(f"{len(runs) - len(unfinished)} of {len(runs)} runs done in {seconds:.0f} s")
    for run in unfinished:
        print(f"  {run.planned.name}: {run.status().error} (its full output: {run.log})")
    return len(unfinished)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0 when all runs are done, 1 when one is not, 2 for a wrong input, 128 + a signal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    args = _parser().parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    start = time.monotonic()
    devices = list_devices(args.gpus)
    folder, plan = _open_plan(args, flags, arguments)
    folder = Path(absolute_if_path(str(folder)))
    runs = [SweepRun(planned, folder) for planned in plan.runs]
    resume_command = f"{program_name('experiments.sweep')} --resume {shlex.quote(str(folder))}"
    with lock_folder(folder, "runs this sweep", name=f"{PLAN}.lock"):
        forget_failures(folder)
        stopped_by = run_sweep(runs, devices)
    if stopped_by is not None:
        print(f"{signal.Signals(stopped_by).name}: the runs have saved; continue with")
        print(f"  {resume_command}" + (f" --gpus {args.gpus}" if args.gpus else ""))
        return 128 + stopped_by
    num_unfinished = _print_outcome(runs, time.monotonic() - start)
    if num_unfinished:
        print(f"try again with: {resume_command}")
    if plan.report and num_unfinished < len(runs):
        from experiments.report import __main__ as report

        return report.main([str(folder), "--out", str(folder / "report")]) or int(num_unfinished > 0)
    note(f"report them with: {program_name('experiments.report')} {shlex.quote(str(folder))} --out DIR")
    return int(num_unfinished > 0)


if __name__ == "__main__":
    sys.exit(main())
