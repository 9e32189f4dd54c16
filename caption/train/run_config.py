"""The settings of a captioner's run: what its config.json holds."""

from dataclasses import dataclass

from caption.train.recipe import CaptionRecipe
from vit_jax.settings import check_settings, setting

FORMAT = "caption_run/1"
SCENES = "scenes"
BUILD = "build"


@dataclass(frozen=True)
class CaptionRun:
    """Everything that decides a run, and so everything that resuming needs. Paths are absolute."""

    recipe: CaptionRecipe
    data: str = setting(
        help=f"{SCENES} (synthetic), or captions: a COCO folder, a Karpathy json, a folder or CSV of file,caption"
    )
    images: str | None = setting(None, "folder of the images of a Karpathy json", none="next to it")
    val_fraction: float = setting(0.2, "fraction of a table to hold out for validation", interval="[0, 1)")
    captions_per_image: int | None = setting(
        None, "number of captions per image to use, from the first", interval="[1, inf)", none="all"
    )
    vocabulary: str | None = setting(
        None, f"a file, or {BUILD} for the words of the training captions", none="BERT's vocabulary"
    )
    weights: str | None = setting(
        None, "saved captioner, run, CATR checkpoint or release to start from", none="from scratch"
    )
    encoder: str | None = setting(None, "pretrained vision transformer to use as the encoder of a new captioner")

    def __post_init__(self) -> None:
        check_settings(self)
