"""python -m experiments.caption --check-released: CATR's released weights on the pictures of its own notebook.

The one check that needs the network: five pictures, whose captions the notebook (catr.ipynb of the reference) prints.
"""

from pathlib import Path

from caption.captioner import Captioner
from vit_jax.data.decode import open_rgb
from vit_jax.download import cache_folder
from weights_convert.hub.releases import Release, fetch_release

ADDRESS = "https://raw.githubusercontent.com/saahiluppal/catr/master/.github"
PRINTED = {
    "cake": "A person cutting a cake with a knife.",
    "girl": "A woman sitting on a curb holding a pink umbrella.",
    "office": "A group of people sitting at a table with laptops.",
    "horse": "A man riding on the back of a brown horse.",
    "airplane": "A large jetliner sitting on top of an airport runway.",
}
FOLDER = "catr_pictures"  # within the cache


def check_released(captioner: Captioner, *, cache: str | None = None) -> int:
    """Print a table of the captions found and printed there: 0 when all are alike, else 1.

    Raises InputError when a picture can't be had.
    """
    folder = (cache_folder() if cache is None else Path(cache)) / FOLDER
    lines, alike = ["| picture | agrees | here | the reference |", "|---|---|---|---|"], 0
    for name, expected in PRINTED.items():
        release = Release(name, f"{ADDRESS}/{name}.png", "a picture", "Apache-2.0")
        picture = open_rgb(fetch_release(release, cache=folder))
        found = captioner([captioner.prepare(picture)], 1)[0].captions[0].caption
        alike += found == expected
        lines.append(f"| {name} | {'yes' if found == expected else 'NO'} | {found} | {expected} |")
    print("\n".join(lines))
    print(f"{alike} of {len(PRINTED)} captions agree")
    return 0 if alike == len(PRINTED) else 1
