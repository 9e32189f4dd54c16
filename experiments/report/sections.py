"""The sections of a report on its runs: results, settings of the best run, captions, and how to reproduce them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from experiments.report.comparison import Score, plot_comparison
from experiments.report.figures import render_figure, wrap_png
from experiments.report.page import Block, Code, Heading, Table, Text
from experiments.report.runs import FinishedRun, ReportedRuns, compare_settings, flatten_settings, shorten_path
from experiments.sweep.study import STUDY_VAL
from vit_jax import InputError, load_card
from vit_jax.data.augment.transforms import Augment
from vit_jax.probe import accuracy_interval
from vit_jax.processor import describe_hardware
from vit_jax.saved_folder import BEST
from vit_jax.settings import fields_of
from vit_jax.train.bootstrap import RESAMPLES
from vit_jax.train.measure import ACCURACY
from vit_jax.train.recipe import Recipe

Interval = tuple[float, float]

MAX_CAPTIONS = 12
PUBLISHED_COLUMNS = ("published", "difference")  # if any run has a published accuracy


def build_results(
    runs: Sequence[FinishedRun], num_images: int, map_intervals: Mapping[str, Interval | None]
) -> list[Block]:
    """Build the table and the chart of the best validation accuracies, or mAPs, best first.

    num_images: that the best run was validated on. map_intervals: of runs with a mAP, by name.
    """
    differing = compare_settings(runs)
    labels = [[run.model, *(values[index] for values in differing.values())] for index, run in enumerate(runs)]
    columns = ["model", *differing]
    if len(set(map(tuple, labels))) < len(labels):  # only the folder's name tells such runs apart
        labels = [[run.name, *label] for run, label in zip(runs, labels, strict=True)]
        columns = ["run", *columns]
    best_first = sorted(zip(runs, labels, strict=True), key=lambda pair: -pair[0].best_value)
    is_unique = len({run.model for run in runs}) == len(runs)
    scores = [
        Score(
            run.model if is_unique else run.name,
            run.best_value,
            _accuracy_interval(run, num_images) if run.measure == ACCURACY else map_intervals[run.name],
        )
        for run, _ in best_first
    ]
    rows = [[*label, *_format_result(run, s.interval)] for (run, label), s in zip(best_first, scores, strict=True)]
    header = [*columns, f"best {runs[0].measure.label}", "95 % interval", "parameters", "best epoch", "seconds"]
    if any(run.published is not None for run in runs):
        header += PUBLISHED_COLUMNS
        rows = [[*row, *_compare_published(run)] for row, (run, _) in zip(rows, best_first, strict=True)]
    blocks: list[Block] = [Heading("Results"), Table(header, rows, range(len(columns), len(header)))]
    if len(runs) > 1:
        caption = f"The best {runs[0].measure.label} of each run, with its 95 % interval."
        blocks.append(render_figure("comparison", caption, plot_comparison(scores, runs[0].measure.label)))
    return [*blocks, Text(_explain_results(runs, num_images))]


def _accuracy_interval(run: FinishedRun, num_images: int) -> Interval:
    """Return Wilson's 95 % interval of a run's accuracy.

    num_images: of validation, for a run that does not record them.
    """
    count = run.num_val or num_images
    return accuracy_interval(round(run.best_value * count), count)


def _explain_results(runs: Sequence[FinishedRun], num_images: int) -> str:
    """Explain the interval, and the published accuracies where the table has them."""
    kind = "Wilson's" if runs[0].measure == ACCURACY else f"of {RESAMPLES:,} bootstrap draws of images"
    sentences = [f"The interval ({kind}) covers the choice of the validation images, not that of the best epoch."]
    if any(run.published is not None for run in runs):
        sentences.append(
            "Published: the accuracy that the study's authors report for this checkpoint and recipe on Oxford-IIIT "
            f"Pet, validated on {STUDY_VAL:,} images; here on {num_images:,}. A dash: other data, weights or recipe."
        )
    return " ".join(sentences)


def _format_result(run: FinishedRun, interval: Interval | None) -> list[str]:
    """Return the cells of the measure, its interval, the parameters, the best epoch and the seconds."""
    return [
        f"{run.best_value:.4f}",
        "-" if interval is None else "{:.3f} to {:.3f}".format(*interval),
        f"{run.num_parameters:,}",
        f"{run.best['epoch']} of {run.config.recipe.epochs}",
        f"{sum(record['seconds'] for record in run.records):,.0f}",
    ]


def _compare_published(run: FinishedRun) -> list[str]:
    """Return the cells of PUBLISHED_COLUMNS."""
    if run.published is None:
        return ["-", "-"]
    return [f"{run.published:.4f}", f"{run.best_value - run.published:+.4f}"]


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
    rows += [["data", shorten_path(run.config.data)], ["weights", shorten_path(run.config.weights or "none")]]
    text = (
        f"{run.name} has the highest {run.measure.label}, {run.best_value:.4f}. "
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
    machines = [[run.name, run.started, run.hardware] for run in reported.runs]
    written = datetime.now(UTC).isoformat(timespec="seconds")
    text = f"This report was written at {written} on {describe_hardware()}."
    return [*blocks, Table(["run", "started", "hardware"], machines), Text(text)]


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
            if not record["figure"].endswith(".png"):
                raise InputError(f"{folder}: {record['figure']} is no PNG; caption with --format png for a report")
            text = f"{record['file']}: {record['caption']} (log-probability {record['log_probability']:.2f})"
            blocks.append(wrap_png(f"caption_{index}", text, (folder / record["figure"]).read_bytes()))
        return blocks
    except FileNotFoundError as error:
        raise InputError(f"{folder}: not written by experiments.caption (no {Path(error.filename).name})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CAPTIONS}: not the captions of experiments.caption: {error}") from error
