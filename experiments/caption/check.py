"""python -m experiments.caption --check-released: CATR's released weights on the pictures of its notebook.

Needs the network: five pictures whose captions the reference's notebook prints. `python -m weights_convert verify
--released catr` compares them too, for the first release and greedy search; this takes any weights and search.
"""

from pathlib import Path

from caption.captioner import Captioner
from vit_jax.data.decode import open_rgb
from vit_jax.download import cache_folder
from weights_convert.hub.releases import fetch_release
from weights_convert.released import PICTURES, select_figures

FIGURES = tuple(select_figures("catr"))


def check_released(captioner: Captioner, *, cache: str | None = None) -> int:
    """Print a table of our captions and the notebook's; return 0 when all agree, else 1.

    Raises InputError when a picture can't be downloaded.
    """
    folder = (cache_folder() if cache is None else Path(cache)) / PICTURES
    lines, agreeing = ["| picture | agrees | here | the reference |", "|---|---|---|---|"], 0
    for figure in FIGURES:
        picture = open_rgb(fetch_release(figure.picture, cache=folder))
        actual = captioner([captioner.prepare(picture)], 1)[0].captions[0].caption
        agreeing += actual == figure.expected
        verdict = "yes" if actual == figure.expected else "NO"
        lines.append(f"| {figure.picture.name} | {verdict} | {actual} | {figure.expected} |")
    print("\n".join(lines))
    print(f"{agreeing} of {len(FIGURES)} captions agree")
    return 0 if agreeing == len(FIGURES) else 1
