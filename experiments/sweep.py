"""python -m experiments.sweep: the study's six models, or any models and settings, one after another or one per GPU.

Every run is an ordinary run of experiments.finetune in a folder of its own. The same call again, or --resume, goes on
where a sweep was stopped or killed.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import run
from experiments.study import published
from experiments.sweep_plan import Plan, keep_plan, make_plan, read_plan
from experiments.sweep_runs import DONE, FAILED, RUNNING, Status, SweepRun, forget_failures
from experiments.training.interrupt import Interrupt
from vit_jax.cli import Parser, positive_int
from vit_jax.errors import one_line_errors

LOOK_SECONDS = 0.5
WRITE_SECONDS = 300.0  # what a stopped run may take to save


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


def table(runs: Sequence[SweepRun], data: str) -> list[str]:
    """A line for every run."""
    width = max(len("run"), *(len(r.planned.name) for r in runs))
    lines = [f"{'run':{width}}  {'state':<16}  best val  published  time"]
    for sweep_run in runs:
        lines.append(line_of(sweep_run, sweep_run.status(), width, data))
    return lines


def line_of(sweep_run: SweepRun, status: Status, width: int, data: str) -> str:
    """One run's line."""
    progress = f"epoch {status.epoch}/{status.epochs}" if status.epochs else ""
    state = progress if status.state == RUNNING and progress else status.state
    best = "-" if status.best is None else f"{status.best:.4f}"
    known = published(sweep_run.planned.model, data, (384, 384))
    told = "-" if known is None else f"{known:.4f}"
    minutes, seconds = divmod(round(status.seconds), 60)
    text = f"{sweep_run.planned.name:{width}}  {state:<16}  {best:>8}  {told:>9}  {minutes}:{seconds:02}"
    return f"{text}  {status.error}" if status.state == FAILED else text


class Board:
    """The live table: redrawn in place on a terminal, a line for each change elsewhere."""

    def __init__(self, runs: Sequence[SweepRun], data: str):
        self._runs, self._data, self._terminal = runs, data, sys.stdout.isatty()
        self._shown: list[str] = []

    def show(self) -> None:
        """What has changed since it was last shown."""
        lines = table(self._runs, self._data)
        if self._terminal:
            up = f"\x1b[{len(self._shown)}A" if self._shown else ""
            print(up + "".join(f"\x1b[K{line}\n" for line in lines), end="", flush=True)
        elif self._shown:
            for old, new in zip(self._shown, lines, strict=True):
                if old != new:
                    print(new, flush=True)
        else:
            print("\n".join(lines), flush=True)
        self._shown = lines


def sweep(folder: Path, plan: Plan, gpus: int | None) -> int | None:
    """Bring every run of the plan to its end, `gpus` at once; answers the signal that stopped it, or None."""
    runs = [SweepRun(planned, folder) for planned in plan.runs]
    waiting = [r for r in runs if r.status().state != DONE]
    free: list[int | None] = list(range(gpus)) if gpus else [None]
    going: dict[str, int | None] = {}
    board = Board(runs, plan.data)
    with Interrupt() as interrupt:
        try:
            while waiting or going:
                if interrupt.signal is not None:
                    _stop([r for r in runs if r.process is not None], interrupt.signal)
                    board.show()
                    return interrupt.signal
                while waiting and free:
                    begun = waiting.pop(0)
                    going[begun.planned.name] = free.pop(0)
                    begun.start(going[begun.planned.name])
                board.show()
                time.sleep(LOOK_SECONDS)
                for sweep_run in runs:
                    if sweep_run.planned.name in going and sweep_run.ended():
                        free.append(going.pop(sweep_run.planned.name))
            board.show()
        finally:
            _stop([r for r in runs if r.process is not None], signal.SIGTERM)
    return None


def _stop(runs: Sequence[SweepRun], number: int) -> None:
    """Pass a signal on, and wait until the runs have saved."""
    for sweep_run in runs:
        if sweep_run.process is not None:
            sweep_run.process.send_signal(number)
    for sweep_run in runs:
        if sweep_run.process is not None:
            try:
                sweep_run.process.wait(WRITE_SECONDS)
            except subprocess.TimeoutExpired:
                sweep_run.process.kill()
                sweep_run.process.wait()
            sweep_run.ended()


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 all done, 1 a run failed, 2 a wrong input, 128 + signal when it was stopped."""
    given = list(sys.argv[1:] if argv is None else argv)
    flags = given[given.index("--") + 1 :] if "--" in given else []
    args = _parser().parse_args(given[: given.index("--")] if "--" in given else given)
    began = time.monotonic()
    if args.resume:
        folder = Path(args.resume)
        plan = read_plan(folder)
    else:
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
        )
        keep_plan(folder, plan)
    forget_failures(folder)
    folder = Path(run.settled(str(folder)))
    stopped = sweep(folder, plan, args.gpus)
    if stopped is not None:
        print(f"{signal.Signals(stopped).name}: the runs have saved; go on with")
        print(f"  python -m experiments.sweep --resume {args.resume or folder}")
        return 128 + stopped
    failed = [r for r in plan.runs if SweepRun(r, folder).status().state == FAILED]
    print(f"{len(plan.runs) - len(failed)} of {len(plan.runs)} runs done in {time.monotonic() - began:.0f} s")
    if args.quick and len(failed) < len(plan.runs):
        from experiments import report

        code = report.main([str(folder), "--out", str(folder / "report")])
        if code:
            return code
    else:
        print(f"a report of them: python -m experiments.report {folder} --out {folder / 'report'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
