"""python -m experiments.caption IMAGE... --out DIR: captions of pictures, with a heat map for every word.

Called again with the same settings, it continues with the pictures that are not done yet.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.caption.check import check_released
from experiments.caption.flags import build_captioner, build_parser, parse_map_options
from experiments.caption.html_page import check_page, write_caption_page
from experiments.caption.jobs import CaptionJob, caption_images
from experiments.caption.records import CAPTIONS, PARTS, SETTINGS, TABLE, Records, merge_parts
from experiments.common import runtime
from experiments.common.flags import read_flags
from experiments.common.models import model_files
from experiments.common.pictures import check_results, list_images
from experiments.common.team import Team, TeamStates, has_peers, join_team
from vit_jax import InputError
from vit_jax.data.reading import OnCorrupt
from vit_jax.errors import one_line_errors
from vit_jax.locks import lock_folder
from vit_jax.notes import note
from vit_jax.outputs import check_apart
from vit_jax.plot import MapFigureOptions
from vit_jax.train.distributed import ProcessOptions
from weights_convert.model_types import CAPTION_MODEL
from weights_convert.resolve import find_source

RESULTS = (Path(CAPTIONS), Path(TABLE), Path(SETTINGS))


def _list_jobs(args: argparse.Namespace) -> list[CaptionJob]:
    """Return the jobs of --out. Raises InputError if a result would replace an image."""
    suffix = read_flags(args, MapFigureOptions).suffix
    jobs = [
        CaptionJob(file, str(file), "" if args.no_figures else f"{result}{suffix}")
        for file, result, _ in list_images(args.images)
    ]
    figures = [Path(job.figure) for job in jobs if job.figure]
    check_results(Path(args.out), args.images, [job.file for job in jobs], [*figures, *RESULTS])
    return jobs


def _select_unfinished(jobs: list[CaptionJob], records: Records, figures: MapFigureOptions) -> list[CaptionJob]:
    """Return the jobs without a record or figure. Raises InputError when a figure would replace another picture's."""
    drawing = asdict(figures)
    unfinished = [job for job in jobs if not records.is_done(job.name, job.file, figure=job.figure, drawing=drawing)]
    for job in unfinished:
        if job.figure:
            records.check_free(job.name, job.figure)
    if len(unfinished) < len(jobs):
        note(f"{len(jobs) - len(unfinished)} of {len(jobs)} are done already", file=sys.stderr)
    return unfinished


def _caption_to_folder(args: argparse.Namespace, jobs: list[CaptionJob]) -> None:
    """Caption the pictures into a folder, which the first process locks against other calls."""
    out, vocabulary = Path(args.out), [args.vocabulary] if args.vocabulary else []
    check_apart([out / result for result in RESULTS], [*model_files(args.weights), *vocabulary])
    with ExitStack() as stack:

        def prepare() -> None:
            stack.enter_context(lock_folder(out, "captions into it"))
            merge_parts(out)

        _caption_share(args, jobs, out, join_team(read_flags(args, ProcessOptions), prepare))


def _caption_share(args: argparse.Namespace, jobs: list[CaptionJob], out: Path, team: Team) -> None:
    """Caption this process's share of the pictures; the first process merges the records of all."""
    states, figures = TeamStates(out / PARTS, team), read_flags(args, MapFigureOptions)
    summary: dict[str, Any] = {}
    with states.report(summary):
        captioner = build_captioner(args)
        settings = captioner.settings() | asdict(parse_map_options(args))
        records = Records(out, settings, part=None if team.count == 1 else team.index)
        share = team.share(jobs)
        unfinished = _select_unfinished(share, records, figures)
        on_corrupt: OnCorrupt = "skip" if args.skip_corrupt else "raise"
        done = caption_images(captioner, unfinished, records, args.batch_size, on_corrupt, figures) if unfinished else 0
        summary["readable"] = done + len(share) - len(unfinished)
    if team.is_first:
        summaries = [summary, *states.wait_for_all()]
        if team.count > 1:
            merge_parts(out)
            records = Records(out, settings)
        if not any(each["readable"] for each in summaries):
            raise InputError("none of the images can be read")
        drawn = "" if args.no_figures else f" and a {figures.suffix} for each image"
        print(f"written to {out}/: {len(records.by_file)} captions in {CAPTIONS} and {TABLE}{drawn}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 1 when a caption of --check-released differs, 2 for wrong input."""
    args = build_parser().parse_args(argv)
    runtime.configure()
    if args.check_released:
        if args.images or args.out or args.html or read_flags(args, ProcessOptions).processes is not None:
            raise InputError(
                "--check-released has its own pictures; leave out the images, --out, --html and --processes"
            )
        args.no_figures = True
        return check_released(build_captioner(args), cache=args.cache)
    if not args.images:
        raise InputError("no image given; give pictures or a folder")
    if args.out is None and args.html is None:
        raise InputError("no --out: give a folder to write to, or --html FILE")
    files = [image.file for image in list_images(args.images)]
    jobs = [] if args.out is None else _list_jobs(args)  # before the weights are sought
    args.weights = find_source(args.weights, cache=args.cache, wanted=CAPTION_MODEL)
    if args.html is not None:
        check_page(args, files)
        if has_peers(read_flags(args, ProcessOptions)):
            raise InputError("--html is written by one process; leave out --coordinator, --processes and --process")
    if args.out is not None:
        _caption_to_folder(args, jobs)
    if args.html is not None:
        write_caption_page(args, files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
