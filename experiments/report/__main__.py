"""python -m experiments.report RUN... --out DIR: the results of runs, as one HTML page and as Markdown.

A sweep's folder stands for its runs. The page embeds its figures and needs no network. Only the attention viewer in it
needs scripts.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.common import runtime
from experiments.report.page import Block, Figure, Heading, Text, render_html, render_markdown
from experiments.report.runs import FinishedRun, ReportedRuns, find_runs, group_by_data
from experiments.report.sections import build_captions, build_reproduction, build_results, build_settings
from vit_jax import InputError
from vit_jax.cli import Parser, program_name
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write_folder
from vit_jax.outputs import check_apart, check_out_folder
from vit_jax.train.measure import MEAN_AVERAGE_PRECISION

PAGE, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
NUM_EXAMPLES = 3  # correct predictions shown, and as many wrong ones


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=program_name("experiments.report"), description="Report on runs, or on a sweep.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of experiments.finetune, or of a sweep")
    parser.add_argument("--out", required=True, help="folder for report.html, report.md and figures/")
    parser.add_argument("--captions", help="a folder written by experiments.caption, to show too")
    parser.add_argument("--title", help="default: from the name of the data")
    return parser


def check_replaceable(out: Path) -> None:
    """Raise InputError when a folder holds anything but a report, which a new report replaces."""
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - {PAGE, MARKDOWN, FIGURES}):
        raise InputError(f"{out}: exists already and holds more than a report; choose another --out")


def build_blocks(reported: ReportedRuns, captions: list[Block], command: str) -> list[Block]:
    """Build all sections of the report, those of each data set after one another. command: the report's own."""
    blocks: list[Block] = []
    groups = group_by_data(reported.runs)
    for number, (name, runs) in enumerate(groups.items(), 1):
        part = build_data_set(name, runs)
        blocks += part if len(groups) == 1 else name_blocks(part, name, f"data{number}_")
    if reported.unfinished:
        blocks.insert(0, Text(f"Left out, with no complete epoch yet: {', '.join(reported.unfinished)}."))
    return blocks + captions + build_reproduction(reported, command)


def build_data_set(name: str, runs: Sequence[FinishedRun]) -> list[Block]:
    """Build the sections on the runs of one data set."""
    from experiments.report.best_run import compute_interval, inspect_model, predict_validation
    from experiments.report.curves import plot_runs
    from experiments.report.figures import render_figure

    best = max(runs, key=lambda run: run.best_value)
    predictions = predict_validation(best)
    model, intervals = inspect_model(predictions, NUM_EXAMPLES), {best.name: compute_interval(predictions)}
    if best.measure == MEAN_AVERAGE_PRECISION:
        intervals |= {run.name: compute_interval(predict_validation(run)) for run in runs if run is not best}
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    value = f"a {best.measure.label} of {best.best_value:.4f} in epoch {best.best['epoch']}"
    heading, *results = build_results(runs, model.num_images, intervals)
    blocks: list[Block] = [heading, Text(f"{count} on {name}. The best, {best.name}, has {value}."), *results]
    curves = plot_runs({run.name: run.records for run in runs})
    blocks.append(render_figure("curves", f"The {best.measure.label} by epoch; the dot is the best epoch.", curves))
    return blocks + build_settings(best) + model.blocks


def name_blocks(blocks: Sequence[Block], name: str, prefix: str) -> list[Block]:
    """Return blocks with the name of their data set in the headings, and a prefix before the names of the figures."""
    named: list[Block] = []
    for block in blocks:
        if isinstance(block, Heading):
            block = Heading(f"{name}: {block.text}")
        elif isinstance(block, Figure):
            block = replace(block, name=prefix + block.name)
        named.append(block)
    return named


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
    check_apart([out], [*args.runs, *([args.captions] if args.captions else [])])
    check_out_folder(out)
    reported = find_runs(args.runs)
    captions = build_captions(Path(args.captions)) if args.captions else []
    runtime.configure()
    names = " and ".join(group_by_data(reported.runs))
    blocks = build_blocks(reported, captions, f"python -m experiments.report {shlex.join(arguments)}")
    write_report(out, args.title or f"Vision transformers on {names}", blocks)
    print(f"written to {out}/: {PAGE} (one file, all in it), {MARKDOWN} and {FIGURES}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
