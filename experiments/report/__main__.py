"""python -m experiments.report RUN... --out DIR: the results of runs, as one HTML page and as Markdown.

A sweep's folder stands for its runs. The page embeds its figures and needs neither scripts nor a network.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.common import runtime
from experiments.report.page import Block, Figure, Text, render_html, render_markdown
from experiments.report.runs import FinishedRun, ReportedRuns, find_runs
from experiments.report.sections import build_captions, build_reproduction, build_results, build_settings
from vit_jax import InputError
from vit_jax.cli import Parser
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write_folder

PAGE, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
NUM_EXAMPLES = 3  # correct predictions shown, and as many wrong ones


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.report", description="Report on runs, or on a sweep.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of experiments.finetune, or of a sweep")
    parser.add_argument("--out", required=True, help="folder for report.html, report.md and figures/")
    parser.add_argument("--captions", help="a folder written by experiments.caption, to show too")
    parser.add_argument("--title", help="default: from the name of the data")
    return parser


def check_replaceable(out: Path) -> None:
    """Raise InputError when a folder holds anything but a report, which a new report replaces."""
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {PAGE, MARKDOWN, FIGURES}):
        raise InputError(f"{out}: exists already and holds more than a report; choose another --out")


def build_blocks(reported: ReportedRuns, best: FinishedRun, captions: list[Block], command: str) -> list[Block]:
    """Build all sections of the report. command: the report's own, for reproduction."""
    from experiments.report.best_run import inspect_model
    from experiments.report.curves import plot_runs
    from experiments.report.figures import render_figure

    runs = reported.runs
    model = inspect_model(best, NUM_EXAMPLES)
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    accuracy = f"a validation accuracy of {best.best['val_accuracy']:.4f} in epoch {best.best['epoch']}"
    blocks: list[Block] = [Text(f"{count} on {Path(best.config.data).name}. The best, {best.name}, has {accuracy}.")]
    if reported.unfinished:
        blocks.append(Text(f"Left out, with no complete epoch yet: {', '.join(reported.unfinished)}."))
    blocks += build_results(runs, model.num_images)
    curves = plot_runs({run.name: run.records for run in runs})
    blocks.append(render_figure("curves", "Validation accuracy by epoch; the dot is the best epoch.", curves))
    return blocks + build_settings(best) + model.blocks + captions + build_reproduction(reported, command)


def write_report(out: Path, title: str, blocks: Sequence[Block]) -> None:
    """Write the page, the Markdown file and the figures: all of them or none."""
    with atomic_write_folder(out) as folder:
        (folder / FIGURES).mkdir()
        for block in blocks:
            if isinstance(block, Figure):
                (folder / FIGURES / f"{block.name}.png").write_bytes(block.png)
        # "replace": a file name may hold bytes that are not valid Unicode; they become question marks.
        (folder / PAGE).write_text(render_html(title, blocks), encoding="utf-8", errors="replace")
        (folder / MARKDOWN).write_text(render_markdown(title, blocks, FIGURES), encoding="utf-8", errors="replace")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a wrong input."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    out = Path(args.out)
    check_replaceable(out)
    reported = find_runs(args.runs)
    captions = build_captions(Path(args.captions)) if args.captions else []
    runtime.configure()
    best = max(reported.runs, key=lambda run: run.best["val_accuracy"])
    blocks = build_blocks(reported, best, captions, f"python -m experiments.report {shlex.join(arguments)}")
    write_report(out, args.title or f"Vision transformers on {Path(best.config.data).name}", blocks)
    print(f"written to {out}/: {PAGE} (one file, all in it), {MARKDOWN} and {FIGURES}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
