"""Figures: maps over their picture, and the similarity of position embeddings.

Every function returns a matplotlib Figure at 150 dpi and leaves pyplot's global state alone; save_figure writes it.
A picture is a PIL image, uint8 [h, w], [h, w, 1] or [h, w, 3], or floats of these shapes in [0, 1]. Maps lie over it in
colours whose opacity follows the heat (see colours.py).
"""

from vit_jax.plot.colours import ALPHA, HeatScale, blend_heat, colour_heat, fit_scale
from vit_jax.plot.files import DPI, FONT, FigureFormat, MapFigureOptions, new_figure, save_figure
from vit_jax.plot.heads import plot_head_table
from vit_jax.plot.maps import plot_attention, plot_classes, plot_heads, plot_layers, plot_methods
from vit_jax.plot.panels import Panel, arrange_in_rows, plot_panels
from vit_jax.plot.picture import as_pixels, shrink_picture
from vit_jax.plot.positions import plot_position_similarity
from vit_jax.plot.titles import format_labels, format_map_title, format_percent, format_prediction

__all__ = [
    "ALPHA",
    "DPI",
    "FONT",
    "FigureFormat",
    "HeatScale",
    "MapFigureOptions",
    "Panel",
    "arrange_in_rows",
    "as_pixels",
    "blend_heat",
    "colour_heat",
    "fit_scale",
    "format_labels",
    "format_map_title",
    "format_percent",
    "format_prediction",
    "new_figure",
    "plot_attention",
    "plot_classes",
    "plot_head_table",
    "plot_heads",
    "plot_layers",
    "plot_methods",
    "plot_panels",
    "plot_position_similarity",
    "save_figure",
    "shrink_picture",
]
