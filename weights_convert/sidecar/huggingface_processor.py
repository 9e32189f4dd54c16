"""preprocessor_config.json of Hugging Face's transformers: how its image processors make a model's input.

An image processor resizes, takes the centre, rescales and normalises, each if its do_* field says so. Fields that are
missing or null have the default of the processor's class. The pixels equal those of the Pillow backend (classes whose
names end in Pil). The torchvision backend has the same sizes and centre, but resizes tensors, which rounds differently.
"""

from collections.abc import Mapping
from typing import Any

from vit_jax import InputError
from weights_convert.sidecar.values import (
    choose,
    drop_nulls,
    find_crop,
    parse_channels,
    parse_count,
    parse_pair,
    parse_positive,
    reject_unsupported,
)

PIL_KERNELS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ALL = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_center_crop": False}
_HALF = _ALL | {"image_mean": 0.5, "image_std": 0.5}
_CLIP = _ALL | {
    "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD, "resample": 3, "do_center_crop": True, "default_to_square": False,
    "size": {"shortest_edge": 224}, "crop_size": 224,
}  # fmt: skip
# The defaults of the classes, by the name of the class without "ImageProcessor".
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": _HALF | {"resample": 2, "size": 224},
    "DeiT": _HALF | {"resample": 3, "size": 256, "do_center_crop": True, "crop_size": 224},
    "CLIP": _CLIP,
    "Bit": _CLIP,  # DINOv2's
    "Siglip": _HALF | {"resample": 3, "size": {"height": 224, "width": 224}, "default_to_square": False},
    "DINOv3ViT": _ALL | {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "resample": 2, "size": 224},
    "Tipsv2": _ALL | {"resample": 2, "size": 448, "do_normalize": False},
    "Beit": _HALF | {"resample": 3, "size": 224, "crop_size": 224},
    "ConvNext": _HALF
    | {"resample": 3, "size": {"shortest_edge": 384}, "crop_pct": 224 / 256, "default_to_square": False},
}
# Each geometry states these three fields: those of the layout's own preprocessing must not leak in.
SQUASH_ONLY = {"crop": None, "squash": False, "centre": "round"}
WARP_FROM = 384  # a ConvNext processor squashes to this size and above, and crops below

Geometry = tuple[dict[str, Any], tuple[int, int] | None]


def parse_processor(processor: Mapping[str, Any], vision: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields of Preprocess that equal an image processor, and notes to print.

    vision: the settings of the image model: num_channels, image_size and processor, the kind for files that name none.
    Raises InputError for a processor or a step that is not supported.
    """
    kind = _find_kind(processor) or vision["processor"]
    settings = choose(PROCESSORS, kind, "image processor") | drop_nulls(processor)
    unknown = [name for name in settings if name.startswith("do_") and name not in KNOWN_STEPS]
    reject_unsupported(settings, [*unknown, "use_square_size", "auto_map"])
    if not settings["do_resize"]:
        geometry = _keep_size(settings)
    elif kind == "ConvNext":
        geometry = _parse_convnext(settings)
    else:
        geometry = _parse_geometry(settings)
    fields, output = geometry
    fields |= {"kernel": choose(PIL_KERNELS, settings["resample"], "resample")}
    fields |= _parse_normalization(settings, parse_count(vision["num_channels"], "num_channels"))
    return fields, _note_size(output, parse_pair(vision["image_size"]))


def _find_kind(processor: Mapping[str, Any]) -> str:
    name = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(suffix)
    return name


def _parse_normalization(settings: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Return the mean and std for pixels in [0, 1] that equal the rescaling and the normalisation of 0 to 255."""
    scale = 255 * (parse_positive(settings["rescale_factor"], "rescale_factor") if settings["do_rescale"] else 1)
    scale = 1.0 if abs(scale - 1) < 1e-9 else scale
    mean, std = (0.0,) * channels, (1.0,) * channels
    if settings["do_normalize"]:
        mean = parse_channels(settings["image_mean"], channels, "image_mean")
        std = parse_channels(settings["image_std"], channels, "image_std")
    return {"mean": tuple(value / scale for value in mean), "std": tuple(value / scale for value in std)}


def _keep_size(settings: Mapping[str, Any]) -> Geometry:
    """Return the geometry without do_resize: pictures of the model's size stay as they are."""
    if settings["do_center_crop"]:
        raise InputError("not supported: do_center_crop without do_resize")
    return dict(SQUASH_ONLY), None


def _parse_geometry(settings: Mapping[str, Any]) -> Geometry:
    size = settings["size"]
    if not isinstance(size, Mapping):
        is_square = settings.get("default_to_square", True) or not isinstance(size, int)
        size = dict(zip(("height", "width"), parse_pair(size), strict=True)) if is_square else {"shortest_edge": size}
    size = drop_nulls(size)
    crop = parse_pair(settings["crop_size"]) if settings["do_center_crop"] else None
    if set(size) == {"height", "width"}:
        return _squash(parse_pair(size), crop)
    if set(size) != {"shortest_edge"}:
        raise InputError(f"not supported: size = {size!r}")
    if crop is None:
        raise InputError("not supported: a size with shortest_edge, without do_center_crop: inputs have many shapes")
    return _crop(parse_count(size["shortest_edge"], "shortest_edge"), crop)


def _parse_convnext(settings: Mapping[str, Any]) -> Geometry:
    size = settings["size"]
    side = parse_count(size["shortest_edge"] if isinstance(size, Mapping) else size, "size")
    reject_unsupported(settings, ("do_center_crop",))
    if side >= WARP_FROM:
        return _squash((side, side), None)
    return _crop(int(side / parse_positive(settings["crop_pct"], "crop_pct")), (side, side))


def _squash(resized: tuple[int, int], crop: tuple[int, int] | None) -> Geometry:
    """Return the geometry of a resize that does not keep the aspect ratio, and of the centre taken after it."""
    if crop is None or crop == resized:
        return dict(SQUASH_ONLY), resized
    _check_crop(resized, crop)
    return {"crop": find_crop(resized, crop), "squash": True, "centre": "floor"}, crop


def _crop(shorter_side: int, crop: tuple[int, int]) -> Geometry:
    """Return the geometry of a resize of the shorter side and of the centre taken after it."""
    if crop[0] != crop[1]:
        raise InputError(f"not supported: crop_size {crop[0]}x{crop[1]} with a shortest_edge")
    resized = (shorter_side, shorter_side)
    _check_crop(resized, crop)
    return {"crop": find_crop(resized, crop), "squash": False, "centre": "floor"}, crop


def _check_crop(resized: tuple[int, int], crop: tuple[int, int]) -> None:
    if crop[0] > resized[0] or crop[1] > resized[1]:
        raise InputError(f"not supported: crop_size {crop[0]}x{crop[1]} is larger than size {resized[0]}x{resized[1]}")


def _note_size(output: tuple[int, int] | None, image_size: tuple[int, int]) -> tuple[str, ...]:
    """Return the notes on the size of a processor's output, None for that of the picture."""
    model = f"{image_size[0]}x{image_size[1]}"
    if output is None:
        return (
            f"the image processor does not resize: the original needs pictures of {model} pixels; others are resized",
        )
    if output == image_size:
        return ()
    size = f"{output[0]}x{output[1]}"
    return (f"the image processor makes {size} pixels, the model has {model}; for the former, --image-size {size}",)
