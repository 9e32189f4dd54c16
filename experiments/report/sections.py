"""The sections of a report on its runs: results, settings of the best run, captions, and how to reproduce them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.common.models import BEST
from experiments.report.figures import wrap_png
from experiments.report.page import Block, Code, Heading, Table, Text
from experiments.report.runs import FinishedRun, ReportedRuns, compare_settings, flatten_settings
from experiments.sweep.study import STUDY_VAL
from vit_jax import InputError, load_card
from vit_jax.data.augment.transforms import Augment
from vit_jax.settings import fields_of
from vit_jax.train.recipe import Recipe

MAX_CAPTIONS = 12
RESULT_COLUMNS = ("best validation accuracy", "published", "difference", "best epoch", "seconds")


def build_results(runs: Sequence[FinishedRun], num_images: int) -> list[Block]:
    """Build the table of best validation accuracies, best first. num_images: that the best run was validated on."""
    differing = compare_settings(runs)
    labels = [[run.model, *(values[index] for values in differing.values())] for index, run in enumerate(runs)]
    columns = ["model", *differing]
    if len(set(map(tuple, labels))) < len(labels):  # only the folder's name tells such runs apart
        labels = [[run.name, *label] for run, label in zip(runs, labels, strict=True)]
        columns = ["run", *columns]
    by_accuracy = sorted(zip(runs, labels, strict=True), key=lambda pair: -pair[0].best["val_accuracy"])
    rows = [[*label, *_format_result(run)] for run, label in by_accuracy]
    header = [*columns, *RESULT_COLUMNS]
    note = (
        "Published: the accuracy that the study's authors report for this checkpoint and recipe on Oxford-IIIT Pet, "
        f"validated on {STUDY_VAL:,} images; here on {num_images:,}."
        if any(run.published is not None for run in runs)
        else "Published: the study's accuracy on Oxford-IIIT Pet; a dash where data, weights or recipe differ from it."
    )
    return [Heading("Results"), Table(header, rows, range(len(columns), len(header))), Text(note)]


def _format_result(run: FinishedRun) -> list[str]:
    """Return the cells of RESULT_COLUMNS."""
    accuracy, published = run.best["val_accuracy"], run.published
    return [
        f"{accuracy:.4f}",
        "-" if published is None else f"{published:.4f}",
        "-" if published is None else f"{accuracy - published:+.4f}",
        f"{run.best['epoch']} of {run.config.recipe.epochs}",
        f"{sum(record['seconds'] for record in run.records):,.0f}",
    ]


def build_settings(run: FinishedRun) -> list[Block]:
    """Build the table of the best run's settings, without the optional ones that are off."""
    off = flatten_settings(
        {name: field.default for name, field in fields_of(Recipe).items() if field.description.extra}
    )
    off |= flatten_settings({"augment": asdict(Augment())})
    del off["augment.crop_ratio"]  # a property of crops, which crop_scale turns off
    settings = flatten_settings(asdict(run.config.recipe))
    image_size = load_card(run.folder / BEST).config.image_size
    settings |= flatten_settings({"image_size": image_size})
    rows = [[name, value] for name, value in settings.items() if value != off.get(name)]
    rows += [["data", run.config.data], ["weights", run.config.weights or "none"]]
    text = (
        f"{run.name} has the highest validation accuracy, {run.best['val_accuracy']:.4f}. "
        "Its settings, without augmentations and options that are off:"
    )
    return [Heading("The best model"), Text(text), Table(["setting", "value"], rows)]


def build_reproduction(reported: ReportedRuns, report_command: str) -> list[Block]:
    """List the commands, seeds and versions that reproduce the runs and the report."""
    commands = [*reported.sweep_commands, *(run.command for run in reported.runs), report_command]
    runs_by_versions: dict[str, list[str]] = {}
    for run in reported.runs:
        runs_by_versions.setdefault(run.versions, []).append(run.name)
    seeds = ", ".join(str(seed) for seed in sorted({run.config.recipe.seed for run in reported.runs}))
    blocks: list[Block] = [Heading("Reproduction")]
    if reported.sweep_commands:
        blocks.append(Text("The sweep's command runs everything; the commands of its runs follow."))
    blocks += [Code("\n".join(commands)), Text(f"Seeds: {seeds}.")]
    for versions, names in runs_by_versions.items():
        of_runs = f" of {', '.join(names)}" if len(runs_by_versions) > 1 else ""
        blocks.append(Text(f"Versions{of_runs}: {versions}."))
    return blocks


def build_captions(folder: Path) -> list[Block]:
    """Show the first captions of a folder written by experiments.caption, with their word maps.

    Raises InputError when the folder holds none.
    """
    from experiments.caption.records import CAPTIONS

    try:
        records = json.loads((folder / CAPTIONS).read_text(encoding="utf-8"))
        if not isinstance(records, list):
            raise TypeError("not a list")
        blocks: list[Block] = [Heading("Captions, with a map per word")]
        for index, record in enumerate([record for record in records if record.get("figure")][:MAX_CAPTIONS]):
            text = f"{record['file']}: {record['caption']} (log-probability {record['log_probability']:.2f})"
            blocks.append(wrap_png(f"caption_{index}", text, (folder / record["figure"]).read_bytes()))
        return blocks
    except FileNotFoundError as error:
        raise InputError(f"{folder}: not written by experiments.caption (no {Path(error.filename).name})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CAPTIONS}: not the captions of experiments.caption: {error}") from error
