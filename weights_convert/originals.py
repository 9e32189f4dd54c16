"""PyTorch originals that a converted model is compared with: how each is built, and loads a checkpoint's arrays."""

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import InputError, ViTConfig
from vit_jax.suggest import describe_unknown
from weights_convert.folders.huggingface import describe_config
from weights_convert.folders.huggingface_classes import CHOOSE
from weights_convert.layouts.huggingface_dinov2 import is_tipsv2
from weights_convert.plan import ConversionPlan

COMPOSITE = ("SiglipForImageClassification", "CLIPForImageClassification")  # their config holds that of the tower
MAE_DECODER = "decoder.decoder_embed.weight"


def build_pytorch_pretrained_vit(config: ViTConfig) -> Any:
    """Return pytorch_pretrained_vit's model of this architecture, with random weights and without dropout."""
    package = importlib.import_module("pytorch_pretrained_vit")
    sizes = dict(
        patches=config.patch_size,
        dim=config.width,
        ff_dim=config.mlp_dim,
        num_heads=config.num_heads,
        num_layers=config.depth,
        representation_size=None,
        classifier="token",
        attention_dropout_rate=0.0,
        dropout_rate=0.0,
    )
    registry = package.model.PRETRAINED_MODELS  # 0.0.7 only builds models by name; without one it raises NameError
    registry["config"] = dict(config=sizes, num_classes=config.num_classes, image_size=config.image_size)
    try:
        return package.ViT("config", in_channels=config.in_channels)
    finally:
        del registry["config"]


def find_original(against: str) -> tuple[str, "BuildOriginal"]:
    """Return the module that an original needs, and how to build its model."""
    file, colon, function = against.rpartition(":")
    if colon and file.endswith(".py"):
        return "torch", partial(_build_own, file, function)
    if against not in ORIGINALS:
        raise InputError(describe_unknown("original", against, ORIGINALS, more=", or FILE.py:FUNCTION"))
    return ORIGINALS[against]


def _build_own(
    file: str, function: str, plan: ConversionPlan, state: dict[str, np.ndarray], path: Path
) -> tuple[Any, tuple[str, ...]]:
    """Call a user's function for a torch model and load the arrays; return it and its missing parameters."""
    torch = importlib.import_module("torch")
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        original = getattr(module, function)()
    except Exception as error:
        raise InputError(f"{file}: {function}() failed ({type(error).__name__}: {error})") from error
    if not isinstance(original, torch.nn.Module):
        raise InputError(f"{file}: {function}() returned a {type(original).__name__}, not a torch.nn.Module")
    try:
        keys = original.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
    except RuntimeError as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from error
    if keys.unexpected_keys:
        raise InputError(f"{function}()'s model does not have {', '.join(keys.unexpected_keys[:5])}")
    return original, tuple(keys.missing_keys)


def _build_lukemelas(plan: ConversionPlan, arrays: dict[str, np.ndarray], path: Path) -> tuple[Any, tuple[str, ...]]:
    """Build pytorch_pretrained_vit's model and load the arrays; return it and its missing parameters."""
    torch = importlib.import_module("torch")
    if plan.layout.name != "lukemelas":
        raise InputError(f"a checkpoint in the layout {plan.layout.name}: pytorch_pretrained_vit cannot load it")
    original = build_pytorch_pretrained_vit(plan.config)
    unused = {plan.selection.relative(name) for name in plan.unused}
    state = {name: torch.from_numpy(array) for name, array in arrays.items() if name not in unused}
    keys = original.load_state_dict(state, strict=False)
    if keys.unexpected_keys:
        raise InputError(f"pytorch_pretrained_vit does not know {', '.join(keys.unexpected_keys[:5])}")
    return original, tuple(keys.missing_keys)


def _build_transformers(plan: ConversionPlan, arrays: dict[str, np.ndarray], path: Path) -> tuple[Any, tuple[str, ...]]:
    """Build transformers' model and load the arrays; return it and its missing parameters."""
    torch, package = importlib.import_module("torch"), importlib.import_module("transformers")
    layout = "dinov2" if is_tipsv2(plan.config) else plan.layout.name
    if layout not in CHOOSE or (layout == "dinov2" and not is_tipsv2(plan.config)):
        raise InputError(f"a checkpoint in the layout {plan.layout.name}: transformers cannot load it")
    folder = path if path.is_dir() else path.parent
    if (folder / "config.json").is_file():
        name = CHOOSE[layout](plan.config).name
        settings = package.AutoConfig.from_pretrained(folder)
        settings = settings if name in COMPOSITE else getattr(settings, "vision_config", settings)
    else:
        name, settings = build_transformers_config(package, layout, plan.config)
    is_mae = settings.model_type == "vit_mae" or any(key.endswith(MAE_DECODER) for key in arrays)
    if is_mae:
        name, settings = "ViTMAEModel", package.ViTMAEConfig.from_dict(settings.to_dict() | {"mask_ratio": 0.0})
    package.utils.logging.set_verbosity_error()
    original, info = getattr(package, name).from_pretrained(
        None,
        config=settings,
        state_dict={key: torch.from_numpy(array) for key, array in arrays.items()},
        output_loading_info=True,
        dtype=torch.float64,
        attn_implementation="sdpa",
    )
    if info["mismatched_keys"]:
        raise InputError(f"transformers' {name} has other shapes: {sorted(info['mismatched_keys'])[:5]}")
    if is_mae:  # it orders the patches by this noise, in training to hide some
        rows, columns = plan.config.grid
        original.forward = partial(original.forward, noise=torch.arange(float(rows * columns))[None])
    return original, tuple(sorted(info["missing_keys"]))


def build_transformers_config(package: Any, layout: str, config: ViTConfig) -> tuple[str, Any]:
    """Return the name of transformers' class for a layout, and its config: for a file without a config.json."""
    model_class, stored = describe_config(layout, config)
    return model_class.name, getattr(package, model_class.name).config_class.from_dict(stored)


BuildOriginal = Callable[[ConversionPlan, dict[str, np.ndarray], Path], tuple[Any, tuple[str, ...]]]
# Name of the original library -> the module it needs, and how to build its model.
ORIGINALS: dict[str, tuple[str, BuildOriginal]] = {
    "lukemelas": ("pytorch_pretrained_vit", _build_lukemelas),
    "transformers": ("transformers", _build_transformers),
}
