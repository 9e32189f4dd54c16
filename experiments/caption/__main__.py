"""python -m experiments.caption IMAGE... --out DIR: captions of pictures, with a heat map for every word.

Called again with the same settings, it continues with the pictures that are not done yet.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from experiments.caption.check import check_released
from experiments.caption.flags import build_captioner, build_parser, parse_map_options
from experiments.caption.jobs import CaptionJob, caption_images
from experiments.caption.records import CAPTIONS, TABLE, Records
from experiments.common import runtime
from experiments.common.pictures import check_no_overwrite, list_images
from vit_jax import InputError
from vit_jax.errors import one_line_errors


def _list_jobs(args: argparse.Namespace) -> list[CaptionJob]:
    jobs = [
        CaptionJob(file, str(file), "" if args.no_figures else f"{result}.png")
        for file, result, _ in list_images(args.images)
    ]
    check_no_overwrite(args.images, [(job.file, Path(job.figure or CAPTIONS)) for job in jobs], Path(args.out))
    return jobs


def _select_unfinished(jobs: list[CaptionJob], records: Records) -> list[CaptionJob]:
    """Return the jobs without a record or figure. Raises InputError when a figure would replace another picture's."""
    unfinished = [job for job in jobs if not records.is_done(job.name, figure=bool(job.figure))]
    for job in unfinished:
        if job.figure:
            records.check_free(job.name, job.figure)
    if len(unfinished) < len(jobs):
        print(f"{len(jobs) - len(unfinished)} of {len(jobs)} are done already", file=sys.stderr)
    return unfinished


def _caption_to_folder(args: argparse.Namespace) -> None:
    jobs = _list_jobs(args)
    captioner = build_captioner(args)
    records = Records(Path(args.out), captioner.settings() | asdict(parse_map_options(args)))
    unfinished = _select_unfinished(jobs, records)
    if unfinished:
        done = caption_images(captioner, unfinished, records, args.batch_size, "skip" if args.skip_corrupt else "raise")
        if not done and unfinished == jobs:
            raise InputError("none of the images can be read")
    figures = "" if args.no_figures else " and a .png for each image"
    print(f"written to {args.out}/: {len(records.by_file)} captions in {CAPTIONS} and {TABLE}{figures}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 1 when a caption of --check-released differs, 2 for wrong input."""
    args = build_parser().parse_args(argv)
    runtime.configure()
    if args.check_released:
        if args.images or args.out:
            raise InputError("--check-released has its own pictures; leave out the images and --out")
        args.no_figures = True
        return check_released(build_captioner(args), cache=args.cache)
    if not args.images:
        raise InputError("no image given; give pictures or a folder")
    if args.out is None:
        raise InputError("no --out: give a folder to write to")
    _caption_to_folder(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
