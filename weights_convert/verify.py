"""How exactly a converted model agrees with the PyTorch original, layer by layer. The one module here that needs torch.

Both are given the same file and the same random image, and their token sequences are compared after the embedding
and after each block, then their answers.
"""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import from_arrays, to_arrays
from weights_convert._convert import ConversionPlan, convert_with_plan
from weights_convert.formats.readers import read_checkpoint
from weights_convert.layouts import Layout

BOUNDS = {"float64": 1e-9, "float32": 2e-5}  # relative; float32's is that of BUILD.md


class Row(NamedTuple):
    """One place in the model: the largest difference there, and that relative to the original's largest value."""

    place: str
    maximum: float
    relative: float


class Report(NamedTuple):
    """rows: in the order of the computation. used: how many arrays; unused: names, of the file and of the original."""

    rows: list[Row]
    used: int
    unused: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def worst(self) -> float:
        """The largest relative error; infinite where something was no number."""
        return max(row.relative if np.isfinite(row.relative) else np.inf for row in self.rows)


def verify_checkpoint(
    path: str | os.PathLike,
    *,
    against: str,
    dtype: str = "float64",
    layout: str | Layout = "auto",
    num_heads: int | None = None,
    seed: int = 0,
) -> Report:
    """Convert a checkpoint and hold it against the original library, one of PEERS, on a random image in [-1, 1].

    Raises InputError where torch or the original is not installed, and where the original does not take the file.
    """
    if against not in PEERS:
        raise InputError(f"no original called {against!r}: one of {', '.join(PEERS)}")
    module, build = PEERS[against]
    torch = _imported("torch")
    _imported(module)
    with jax.enable_x64(dtype == "float64"):
        model, found = convert_with_plan(path, layout=layout, num_heads=num_heads)
        arrays = {name: jnp.asarray(array, dtype) for name, array in to_arrays(model).items()}
        size = (1, *found.config.image_size, found.config.in_channels)
        image = np.random.default_rng(seed).uniform(-1, 1, size).astype(dtype)
        ours = [np.asarray(place) for place in jax.jit(places)(from_arrays(found.config, arrays), image)]
    original, missing = build(found, read_checkpoint(path), Path(path))
    theirs = _places_of(original.to(getattr(torch, dtype)).eval(), found.config, image)
    names = ["embedding", *(f"block {i}" for i in range(found.config.depth)), "answer"]
    rows = [_row(*parts) for parts in zip(names, ours, theirs, strict=True)]
    return Report(rows, sum(len(rule.sources) for rule in found.rules), found.unused, missing)


def places(model: VisionTransformer, images: jax.Array) -> list[jax.Array]:
    """The tokens [B, N, D] that enter the first block and that leave each block, and the answer [B, C]."""
    tokens = [model.embed(images)]
    for block in model.blocks:
        tokens.append(block(tokens[-1])[0])
    return [*tokens, model.classify(model.finish(tokens[-1]))]


def _row(place: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    if ours.shape != theirs.shape:
        raise InputError(f"{place}: ours is {ours.shape}, the original's {theirs.shape}")
    maximum = float(np.abs(ours - theirs).max())
    return Row(place, maximum, maximum / max(float(np.abs(theirs).max()), np.finfo(theirs.dtype).tiny))


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"verify needs {name}, which is not installed: pip install 'vit-jax[test]'") from error


def _places_of(original: Any, config: ViTConfig, image: np.ndarray) -> list[np.ndarray]:
    """What places() is for ours, by hooks on the original's list of blocks."""
    torch = importlib.import_module("torch")
    blocks = next(
        module
        for module in original.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.depth
    )
    tokens: list[Any] = []
    blocks[0].register_forward_pre_hook(lambda _, given: tokens.append(given[0]))
    for block in blocks:
        block.register_forward_hook(lambda _, __, made: tokens.append(made[0] if isinstance(made, tuple) else made))
    with torch.no_grad():
        answer = original(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2))))
    for field in ("logits", "image_embeds", "pooler_output"):
        answer = getattr(answer, field, None) if getattr(answer, field, None) is not None else answer
    return [tensor.numpy() for tensor in [*tokens, answer]]


def _lukemelas(found: ConversionPlan, arrays: dict[str, np.ndarray], path: Path) -> tuple[Any, tuple[str, ...]]:
    torch, package = importlib.import_module("torch"), importlib.import_module("pytorch_pretrained_vit")
    config = found.config
    if found.layout.name != "lukemelas":
        raise InputError(f"a checkpoint in the layout {found.layout.name}: pytorch_pretrained_vit does not take it")
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
    known = package.model.PRETRAINED_MODELS  # 0.0.7 builds named models only: without a name it ends in a NameError
    known["verified"] = dict(config=sizes, num_classes=config.num_classes, image_size=config.image_size)
    original = package.ViT("verified", in_channels=config.in_channels)
    del known["verified"]
    state = {ours: torch.from_numpy(_plain(arrays[name])) for ours, name in found.names.items() if name in arrays}
    told = original.load_state_dict(
        {k: v for k, v in state.items() if found.names[k] not in found.unused}, strict=False
    )
    if told.unexpected_keys:
        raise InputError(f"pytorch_pretrained_vit does not know {', '.join(told.unexpected_keys[:5])}")
    return original, tuple(told.missing_keys)


def _plain(array: np.ndarray) -> np.ndarray:
    """A copy that torch takes: half precision as float32."""
    return np.array(array, np.float64 if array.dtype == np.float64 else np.float32)


def _transformers(found: ConversionPlan, arrays: dict[str, np.ndarray], path: Path) -> tuple[Any, tuple[str, ...]]:
    torch, package = importlib.import_module("torch"), importlib.import_module("transformers")
    if found.layout.name not in CLASSES:
        raise InputError(f"a checkpoint in the layout {found.layout.name}: transformers does not take it")
    name = CLASSES[found.layout.name](found.config)
    folder = path if path.is_dir() else path.parent
    kind = getattr(package, name)
    if (folder / "config.json").is_file():
        settings = package.AutoConfig.from_pretrained(folder)
        settings = settings if name == "SiglipForImageClassification" else getattr(settings, "vision_config", settings)
    else:
        settings = _settings(package, name, found.config)
    package.utils.logging.set_verbosity_error()
    state = {key: torch.from_numpy(_plain(array)) for key, array in arrays.items()}
    dtype = torch.float64
    original, told = kind.from_pretrained(
        None, config=settings, state_dict=state, output_loading_info=True, dtype=dtype, attn_implementation="sdpa"
    )
    if told["mismatched_keys"]:
        raise InputError(f"transformers' {name} has other shapes: {sorted(told['mismatched_keys'])[:5]}")
    return original, tuple(sorted(told["missing_keys"]))


def _settings(package: Any, name: str, config: ViTConfig) -> Any:
    """A config of transformers with the numbers of ours, for a file that has none beside it."""
    if config.image_size[0] != config.image_size[1]:
        raise InputError("transformers' models are square; lay a config.json beside the file to say otherwise")
    activations = {"gelu_tanh": "gelu_pytorch_tanh", "swiglu": "silu"}
    kind = getattr(package, name).config_class
    kind = package.SiglipVisionConfig if name == "SiglipForImageClassification" else kind
    settings = kind(
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_dim,
        image_size=config.image_size[0],
        patch_size=config.patch_size[0],
        num_channels=config.in_channels,
        hidden_act=activations.get(config.activation, config.activation),
        layer_norm_eps=config.norm_eps,
        qkv_bias=config.qkv_bias,
        num_labels=config.num_classes or 2,
        **({"projection_dim": config.num_classes} if "Projection" in name else {}),
        **({"num_register_tokens": config.num_registers} if "Registers" in name else {}),
        **({"pooler_output_size": config.representation} if config.representation else {}),
        **({"use_swiglu_ffn": True} if config.activation == "swiglu" else {}),
    )
    if name == "SiglipForImageClassification":
        return package.SiglipConfig(vision_config=settings.to_dict(), num_labels=config.num_classes)
    return settings


def _vit_class(config: ViTConfig) -> str:
    if config.distillation_head:
        return "DeiTForImageClassificationWithTeacher"
    return ("DeiT" if config.distillation_token else "ViT") + (
        "ForImageClassification" if config.num_classes else "Model"
    )


def _dinov2_class(config: ViTConfig) -> str:
    family = "Dinov2WithRegisters" if config.num_registers else "Dinov2"
    return family + ("ForImageClassification" if config.num_classes else "Model")


CLASSES: dict[str, Callable[[ViTConfig], str]] = {
    "hf_vit": _vit_class,
    "hf_dinov2": _dinov2_class,
    "hf_clip": lambda config: "CLIPVisionModelWithProjection" if config.num_classes else "CLIPVisionModel",
    "hf_siglip": lambda config: "SiglipForImageClassification" if config.num_classes else "SiglipVisionModel",
}
PEERS: dict[str, tuple[str, Callable[[ConversionPlan, dict[str, np.ndarray], Path], tuple[Any, tuple[str, ...]]]]] = {
    "lukemelas": ("pytorch_pretrained_vit", _lukemelas),
    "transformers": ("transformers", _transformers),
}
