"""python -m experiments.report RUN... --out DIR: what came out of runs, as one page (HTML) and as Markdown.

A sweep's folder counts as its runs. The page holds its figures, and needs neither scripts nor a network.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from experiments.common import runtime
from experiments.common.flags import MORE_OVERRIDES
from experiments.common.models import BEST
from experiments.report.figures import figure, png_figure
from experiments.report.page import Block, Code, Figure, Heading, Table, Text, render_html, render_markdown
from experiments.report.runs import Finished, Found, differing_settings, find_runs, flat_settings
from experiments.sweep.study import STUDY_VAL
from vit_jax import InputError, load_card
from vit_jax.cli import Parser
from vit_jax.data.augment.transforms import Augment
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write_folder
from vit_jax.train.recipe import Recipe

PAGE, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
EXAMPLES = 3  # pictures answered right, and as many answered wrong
CAPTIONED = 12  # captions shown at most


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.report", description="A report of runs, or of a sweep.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of experiments.finetune, or of a sweep")
    parser.add_argument("--out", required=True, help="folder for report.html, report.md and figures/")
    parser.add_argument("--captions", help="a folder written by experiments.caption, to be shown too")
    parser.add_argument("--title", help="default: from the data's name")
    return parser


def results(runs: Sequence[Finished], images: int) -> list[Block]:
    """The table of best validation accuracies, best first. images: that the chosen run was validated on."""
    differing = differing_settings(runs)
    told = [(found.model, *(values[index] for values in differing.values())) for index, found in enumerate(runs)]
    named = len(set(told)) < len(told)  # what tells runs apart is then their folders
    rows = []
    for index, found in sorted(enumerate(runs), key=lambda pair: -pair[1].best["val_accuracy"]):
        accuracy, known = found.best["val_accuracy"], found.published
        rows.append(
            [
                *([found.name] if named else []),
                *told[index],
                f"{accuracy:.4f}",
                "-" if known is None else f"{known:.4f}",
                "-" if known is None else f"{accuracy - known:+.4f}",
                f"{found.best['epoch']} of {found.config.recipe.epochs}",
                f"{sum(r['seconds'] for r in found.records):,.0f}",
            ]
        )
    first = [*(["run"] if named else []), "model", *differing]
    header = [*first, "best validation accuracy", "published", "difference", "best epoch", "seconds"]
    note = (
        "Published: what the study's authors report for this checkpoint and recipe on Oxford-IIIT Pet, validated on "
        f"{STUDY_VAL:,} pictures; here it was {images:,}."
        if any(found.published is not None for found in runs)
        else "Published figures are those of the study on Oxford-IIIT Pet; a dash where data, weights or recipe differ."
    )
    return [Heading("Results"), Table(header, rows, range(len(first), len(header))), Text(note)]


def settings(chosen: Finished) -> list[Block]:
    """The chosen run's settings."""
    off = flat_settings({f.name: f.default for f in fields(Recipe) if f.name in MORE_OVERRIDES})
    off |= flat_settings({"augment": asdict(Augment())})
    del off["augment.crop_ratio"]  # what a crop has, not what turns it off
    told = flat_settings(asdict(chosen.config.recipe))
    size = load_card(chosen.folder / BEST).config.image_size
    told["image_size"] = flat_settings({"image_size": size})["image_size"]
    rows = [[name, value] for name, value in told.items() if value != off.get(name)]
    rows += [["data", chosen.config.data], ["weights", chosen.config.weights or "none"]]
    text = (
        f"The highest validation accuracy, {chosen.best['val_accuracy']:.4f}, is that of {chosen.name}. "
        "Its settings; augmentations and what goes beyond the plain recipe are left out where they are off."
    )
    return [Heading("The chosen model"), Text(text), Table(["setting", "value"], rows)]


def reproduction(found: Found, own: str) -> list[Block]:
    """Commands, seeds and versions. own: the report's command."""
    commands = [*found.sweeps, *(one.command for one in found.runs), own]
    by_versions: dict[str, list[str]] = {}
    for one in found.runs:
        by_versions.setdefault(one.versions, []).append(one.name)
    seeds = ", ".join(str(seed) for seed in sorted({one.config.recipe.seed for one in found.runs}))
    blocks: list[Block] = [Heading("To do it again")]
    if found.sweeps:
        blocks.append(Text("The first does all at once; each run's own command comes after it."))
    blocks += [Code("\n".join(commands)), Text(f"Seeds: {seeds}.")]
    for versions, names in by_versions.items():
        of = f" of {', '.join(names)}" if len(by_versions) > 1 else ""
        blocks.append(Text(f"Versions{of}: {versions}."))
    return blocks


def captions(folder: Path) -> list[Block]:
    """The first captions of a folder that experiments.caption wrote, with their word maps.

    Raises InputError when it is none.
    """
    from experiments.caption.records import CAPTIONS

    try:
        records = json.loads((folder / CAPTIONS).read_text(encoding="utf-8"))
        if not isinstance(records, list):
            raise TypeError("no list")
        shown = [record for record in records if record.get("figure")][:CAPTIONED]
        blocks: list[Block] = [Heading("Captions, with a map for every word")]
        for index, record in enumerate(shown):
            text = f"{record['file']}: {record['caption']} (log-probability {record['log_probability']:.2f})"
            blocks.append(png_figure(f"caption_{index}", text, (folder / record["figure"]).read_bytes()))
        return blocks
    except FileNotFoundError as error:
        raise InputError(f"{folder}: not written by experiments.caption (no {Path(error.filename).name})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CAPTIONS}: not the captions of experiments.caption: {error}") from error


def refuse_taken(out: Path) -> None:
    """Raise InputError when a report's folder holds anything but a report, which a new one replaces."""
    ours = {PAGE, MARKDOWN, FIGURES}
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - ours):
        raise InputError(f"{out}: exists already and holds more than a report; choose another --out")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input."""
    given = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(given)
    out = Path(args.out)
    refuse_taken(out)
    found = find_runs(args.runs)
    told = captions(Path(args.captions)) if args.captions else []
    runtime.configure()

    from experiments.report.chosen import inspect_model
    from experiments.report.curves import plot_runs

    runs = found.runs
    chosen = max(runs, key=lambda one: one.best["val_accuracy"])
    inside = inspect_model(chosen, EXAMPLES)
    name = Path(chosen.config.data).name
    title = args.title or f"Vision transformers on {name}"
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    best = f"a validation accuracy of {chosen.best['val_accuracy']:.4f} in epoch {chosen.best['epoch']}"
    blocks: list[Block] = [Text(f"{count} on {name}. The best, {chosen.name}, has {best}.")]
    if found.without:
        blocks.append(Text(f"Not here, since they have no whole epoch yet: {', '.join(found.without)}."))
    blocks += results(runs, inside.images)
    curves = plot_runs({one.name: one.records for one in runs})
    blocks.append(figure("curves", "Validation accuracy by epoch; the dot is the best epoch.", curves))
    blocks += [*settings(chosen), *inside.blocks, *told]
    blocks += reproduction(found, f"python -m experiments.report {shlex.join(given)}")
    with atomic_write_folder(out) as beside:
        (beside / FIGURES).mkdir()
        for block in blocks:
            if isinstance(block, Figure):
                (beside / FIGURES / f"{block.name}.png").write_bytes(block.png)
        # a file name that is no unicode is told with a question mark in it
        (beside / PAGE).write_text(render_html(title, blocks), encoding="utf-8", errors="replace")
        (beside / MARKDOWN).write_text(render_markdown(title, blocks, FIGURES), encoding="utf-8", errors="replace")
    print(f"written to {out}/: {PAGE} (one file, all in it), {MARKDOWN} and {FIGURES}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
