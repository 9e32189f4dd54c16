"""python -m experiments.caption --check-released: CATR's released weights on the pictures of its notebook.

Needs the network: five pictures whose captions the reference's notebook (catr.ipynb) prints.
"""

from pathlib import Path

from caption.captioner import Captioner
from vit_jax.data.decode import open_rgb
from vit_jax.download import cache_folder
from weights_convert.hub.releases import Release, fetch_release

ADDRESS = "https://raw.githubusercontent.com/saahiluppal/catr/master/.github"
EXPECTED = {
    "cake": "A person cutting a cake with a knife.",
    "girl": "A woman sitting on a curb holding a pink umbrella.",
    "office": "A group of people sitting at a table with laptops.",
    "horse": "A man riding on the back of a brown horse.",
    "airplane": "A large jetliner sitting on top of an airport runway.",
}
FOLDER = "catr_pictures"  # within the cache


def check_released(captioner: Captioner, *, cache: str | None = None) -> int:
    """Print a table of our captions and the notebook's; return 0 when all agree, else 1.

    Raises InputError when a picture can't be downloaded.
    """
    folder = (cache_folder() if cache is None else Path(cache)) / FOLDER
    lines, agreeing = ["| picture | agrees | here | the reference |", "|---|---|---|---|"], 0
    for name, expected in EXPECTED.items():
        release = Release(name, f"{ADDRESS}/{name}.png", "a picture", "Apache-2.0")
        picture = open_rgb(fetch_release(release, cache=folder))
        actual = captioner([captioner.prepare(picture)], 1)[0].captions[0].caption
        agreeing += actual == expected
        lines.append(f"| {name} | {'yes' if actual == expected else 'NO'} | {actual} | {expected} |")
    print("\n".join(lines))
    print(f"{agreeing} of {len(EXPECTED)} captions agree")
    return 0 if agreeing == len(EXPECTED) else 1
