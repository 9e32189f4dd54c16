"""python -m experiments.report RUN... --out DIR: what came out of runs, as one page (HTML) and as Markdown.

A sweep's folder counts as its runs. The page holds its figures, and needs neither scripts nor a network.
"""

import argparse
import io
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from experiments import run, runtime
from experiments.flags import MORE_OVERRIDES
from experiments.models import BEST
from experiments.recipe import Recipe
from experiments.report_page import Block, Code, Figure, Heading, Table, Text, to_html, to_markdown
from experiments.run import RunConfig
from experiments.study import published
from experiments.sweep_plan import PLAN, read_plan
from experiments.training.metrics import read_metrics
from vit_jax import InputError
from vit_jax.checkpoint import CONFIG
from vit_jax.cli import Parser
from vit_jax.errors import one_line_errors
from vit_jax.files import written_folder

PAGE, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
EXAMPLES = 3  # pictures answered right, and as many answered wrong
CAPTIONED = 12  # captions shown at most


@dataclass(frozen=True)
class Finished:
    """A run with at least one whole epoch. records: of its epochs; stored: all of its config.json."""

    folder: Path
    config: RunConfig
    stored: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def model(self) -> str:
        """The architecture's name, or where its weights came from."""
        return self.config.recipe.model or Path(self.config.weights or "").stem

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the highest validation accuracy."""
        return max(self.records, key=lambda record: record["val_accuracy"])

    @property
    def published(self) -> float | None:
        """The study's figure for it, if it has one."""
        return published(self.model, self.config.data, self.config.recipe.image_size)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.report", description="A report of runs, or of a sweep.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of experiments.finetune, or of a sweep")
    parser.add_argument("--out", required=True, help="folder for report.html, report.md and figures/")
    parser.add_argument("--captions", help="a folder written by experiments.caption, to be shown too")
    parser.add_argument("--title", help="default: from the data's name")
    return parser


def finished_runs(given: Sequence[str]) -> tuple[list[Finished], list[str]]:
    """The runs with a whole epoch, and the names of a sweep's runs that have none yet.

    Raises InputError for what is neither a run nor a sweep, and when no run has a whole epoch.
    """
    found: list[Finished] = []
    without: list[str] = []
    for name in given:
        folder = Path(name)
        sweep = (folder / PLAN).is_file()
        for place in [folder / planned.name for planned in read_plan(folder).runs] if sweep else [folder]:
            if sweep and not (place / "config.json").is_file():
                without.append(place.name)
                continue
            config = run.read(place)
            records = [r for r in read_metrics(place / "metrics.jsonl") if "val_accuracy" in r]
            if records and (place / BEST / CONFIG).is_file():
                found.append(Finished(place, config, json.loads((place / "config.json").read_text()), records))
            elif sweep:
                without.append(place.name)
            else:
                raise InputError(f"{place}: no whole epoch yet; let the run finish one")
    if not found:
        raise InputError(f"{given[0]}: no run of it has finished an epoch yet")
    return found, without


def png_of(figure: Any) -> bytes:
    """A matplotlib figure's PNG."""
    held = io.BytesIO()
    figure.savefig(held, format="png")
    return held.getvalue()


def differing_settings(runs: Sequence[Finished]) -> dict[str, list[str]]:
    """The recipe's numbers in which the runs differ, but for the model: name -> a text for each run."""
    flat = [_flat(asdict(r.config.recipe)) | {"data": r.config.data} for r in runs]
    names = [name for name in flat[0] if name != "model" and len({settings[name] for settings in flat}) > 1]
    return {name: [settings[name] for settings in flat] for name in names}


def _flat(tree: dict[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: str(value)}
    return found


def results(runs: Sequence[Finished]) -> list[Block]:
    """The table of best validation accuracies, best first."""
    differing = differing_settings(runs)
    rows = []
    for index, found in sorted(enumerate(runs), key=lambda pair: -pair[1].best["val_accuracy"]):
        accuracy, known = found.best["val_accuracy"], found.published
        rows.append(
            [
                found.model,
                *(values[index] for values in differing.values()),
                f"{accuracy:.4f}",
                "-" if known is None else f"{known:.4f}",
                "-" if known is None else f"{accuracy - known:+.4f}",
                f"{found.best['epoch']} of {found.config.recipe.epochs}",
                f"{sum(r['seconds'] for r in found.records):,.0f}",
            ]
        )
    header = ["model", *differing, "best validation accuracy", "published", "difference", "epoch", "seconds"]
    first = 1 + len(differing)
    return [Heading("Results"), Table(header, rows, range(first, first + 5))]


def settings(chosen: Finished) -> list[Block]:
    """The chosen run's settings."""
    off = {f.name: str(f.default) for f in fields(Recipe) if f.name in MORE_OVERRIDES}
    told = _flat(asdict(chosen.config.recipe))
    rows = [[name, value] for name, value in told.items() if value != off.get(name)]
    rows += [["data", chosen.config.data], ["weights", chosen.config.weights or "none"]]
    text = (
        f"The highest validation accuracy, {chosen.best['val_accuracy']:.4f}, is that of {chosen.folder.name}. "
        "Its settings; what goes beyond the plain recipe and is off is left out."
    )
    return [Heading("The chosen model"), Text(text), Table(["setting", "value"], rows)]


def reproduction(runs: Sequence[Finished]) -> list[Block]:
    """Commands, seeds and versions."""
    commands = "\n".join(f"python -m experiments.finetune {shlex.join(r.stored['command'])}" for r in runs)
    versions = ", ".join(f"{name} {number}" for name, number in runs[0].stored["versions"].items())
    seeds = ", ".join(sorted({str(r.config.recipe.seed) for r in runs}))
    return [Heading("To do it again"), Code(commands), Text(f"Seeds: {seeds}. Versions: {versions}.")]


def captions(folder: Path) -> list[Block]:
    """The first captions of a folder that experiments.caption wrote, with their word maps.

    Raises InputError when it is none.
    """
    from experiments.caption_records import CAPTIONS

    try:
        records = json.loads((folder / CAPTIONS).read_text())
        if not isinstance(records, list):
            raise TypeError("no list")
        shown = [record for record in records if record.get("figure")][:CAPTIONED]
        blocks: list[Block] = [Heading("Captions, with a map for every word")]
        for index, record in enumerate(shown):
            text = f"{record['file']}: {record['caption']} (log-probability {record['log_probability']:.2f})"
            blocks.append(Figure(f"caption_{index}", text, (folder / record["figure"]).read_bytes()))
        return blocks
    except FileNotFoundError as error:
        raise InputError(f"{folder}: not written by experiments.caption (no {Path(error.filename).name})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CAPTIONS}: not the captions of experiments.caption: {error}") from error


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input."""
    args = _parser().parse_args(argv)
    out = Path(args.out)
    if out.exists() and not (out / PAGE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already and is no report; choose another --out")
    runs, without = finished_runs(args.runs)
    told = captions(Path(args.captions)) if args.captions else []
    runtime.configure()

    from experiments.report_chosen import looked_inside
    from experiments.report_curves import plot_runs

    chosen = max(runs, key=lambda found: found.best["val_accuracy"])
    name = Path(chosen.config.data).name
    title = args.title or f"Vision transformers on {name}"
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    best = f"a validation accuracy of {chosen.best['val_accuracy']:.4f} in epoch {chosen.best['epoch']}"
    blocks: list[Block] = [Text(f"{count} on {name}. The best, {chosen.model}, has {best}.")]
    if without:
        blocks.append(Text(f"Not here, since they have no whole epoch yet: {', '.join(without)}."))
    blocks += results(runs)
    curves = plot_runs({found.folder.name: found.records for found in runs})
    blocks.append(Figure("curves", "Validation accuracy by epoch; the dot is the best epoch.", png_of(curves)))
    blocks += [*settings(chosen), *looked_inside(chosen, EXAMPLES), *told, *reproduction(runs)]
    with written_folder(out) as beside:
        (beside / FIGURES).mkdir()
        for block in blocks:
            if isinstance(block, Figure):
                (beside / FIGURES / f"{block.name}.png").write_bytes(block.png)
        (beside / PAGE).write_text(to_html(title, blocks))
        (beside / MARKDOWN).write_text(to_markdown(title, blocks, FIGURES))
    print(f"written to {out}/: {PAGE} (one file, all in it), {MARKDOWN} and {FIGURES}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
