"""How families normalise and resize images, where no sidecar config says otherwise."""

from collections.abc import Callable
from dataclasses import replace

from vit_jax.preprocess import Preprocess
from weights_convert.layouts.inference import Shapes

# DINO, DINOv2, DeiT and MAE evaluate on the central 224 of images resized to 256.
IMAGENET = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), kernel="bicubic", crop=0.875)
TORCHVISION = replace(IMAGENET, kernel="bilinear")
CLIP = Preprocess((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), kernel="bicubic", crop=1.0)
# Hugging Face's: an odd margin is halved downward; DeiT squashes to 256x256 first; MAE and I-JEPA do not crop.
IMAGENET_HF, CLIP_HF = replace(IMAGENET, centre="floor"), replace(CLIP, centre="floor")
DEIT_HF = replace(IMAGENET_HF, squash=True)
SQUASH_HF = replace(TORCHVISION, crop=None)
SIGLIP = Preprocess(kernel="bicubic")
TIPSV2 = Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels in [0, 1], squashed
# Google's ViT, and those who followed it: to [-1, 1], squashed to the model's size.
GOOGLE = Preprocess()


def always(preprocess: Preprocess) -> Callable[[Shapes], Preprocess | None]:
    """Return the preprocess of a family whose models all have the same."""
    return lambda shapes: preprocess


def unknown(shapes: Shapes) -> Preprocess | None:
    """Return None: nothing about the file shows its preprocessing."""
    return None
