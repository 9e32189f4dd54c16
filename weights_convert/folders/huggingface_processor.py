"""preprocessor_config.json of Hugging Face's transformers, from a model's own preprocessing.

The class of image processor follows from the geometry, not from the model, and every step is stated: a class's default
never applies. The pixels equal those of the Pillow backend; see weights_convert/sidecar/huggingface_processor.py.
"""

import math
from typing import Any

from vit_jax import InputError, ViTConfig
from weights_convert.folders.target import require_three_channels
from weights_convert.sidecar.huggingface_processor import PIL_KERNELS

RESAMPLE = {name: number for number, name in PIL_KERNELS.items()}


def describe_processor(config: ViTConfig) -> dict[str, Any]:
    """Return the contents of preprocessor_config.json.

    Raises InputError for other pictures than RGB, and for a crop of pictures that are not square.
    """
    require_three_channels(config, "transformers")
    settings = config.preprocess
    return {
        **_describe_geometry(config),
        "do_resize": True,
        "resample": RESAMPLE[settings.kernel],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(settings.mean),
        "image_std": list(settings.std),
        "do_convert_rgb": True,
    }


def _describe_geometry(config: ViTConfig) -> dict[str, Any]:
    (height, width), crop = config.image_size, config.preprocess.crop
    if crop is None:
        return {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": height, "width": width},
            "do_center_crop": False,
        }
    resized_height, resized_width = math.floor(height / crop), math.floor(width / crop)
    centre = {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    if config.preprocess.squash:
        size = {"height": resized_height, "width": resized_width}
        return {"image_processor_type": "DeiTImageProcessor", "size": size, **centre}
    if height != width:
        shape = f"{height}x{width}"
        raise InputError(f"transformers resizes the shorter side for square crops only, and this model takes {shape}")
    return {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": resized_height}, **centre}
