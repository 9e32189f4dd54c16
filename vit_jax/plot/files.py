"""Empty figures, and figures as PNG, PDF or SVG files."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from vit_jax.settings import check_settings, setting

DPI = 150
FONT, TITLE_FONT = 8, 9  # points
FORMATS, SCALES = ("png", "pdf", "svg"), ("own", "shared")
NO_DATE = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}  # one figure gives one file


@dataclass(frozen=True)
class FigureFormat:
    """The file format of figures, and the dots per inch of their pixels; in PDF and SVG of the pictures only."""

    format: str = setting("png", "of the figures", choices=FORMATS)
    dpi: int = setting(DPI, "dots per inch of the figures", interval="[30, 1200]")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def suffix(self) -> str:
        """The end of a figure's file name, as ".png"."""
        return f".{self.format}"


@dataclass(frozen=True)
class MapFigureOptions(FigureFormat):
    """The file format of figures of maps, and the scale of their colours; see plot_panels."""

    scale: str = setting(
        "own",
        "of a figure's colours: each map's own, or shared by the maps of one method (classes, heads, layers, words)",
        choices=SCALES,
    )


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, width x height in inches, that pyplot does not know of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike, *, dpi: int = DPI) -> None:
    """Write a figure, atomically, in the format of the path's suffix: .png, .pdf or .svg.

    The same figure gives the same bytes. Characters that the font lacks are boxes.
    Raises InputError for another suffix.
    """
    from matplotlib import rc_context

    format = Path(path).suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise InputError(f"{path}: a figure is a .png, .pdf or .svg file; choose one of these suffixes")
    # A constant salt gives constant names in an SVG; fonts of type 42 keep the text of a PDF as text.
    constant = rc_context({"svg.hashsalt": "vit_jax", "pdf.fonttype": 42})
    with atomic_write(path) as temporary, constant, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(temporary, format=format, dpi=dpi, metadata=NO_DATE[format])
