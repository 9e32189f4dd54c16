"""Parity check: compare a converted model with the PyTorch original, layer by layer. The only module that needs torch.

Both models load the same file and run the same random image. Compared are the tokens after the embedding and after
every block, and the output.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.suggest import describe_unknown
from weights_convert._convert import convert_with_plan, open_arrays
from weights_convert.formats import find_snapshot
from weights_convert.layouts import Layout
from weights_convert.plan import ConversionPlan
from weights_convert.selection import Selection, select_arrays

BOUNDS = {"float64": 1e-9, "float32": 2e-5}  # relative errors; float32's is explained in BUILD.md
# transformers' classes whose config holds that of an image tower, and their family.
COMPOSITE = {"SiglipForImageClassification": "Siglip", "CLIPForImageClassification": "CLIP"}
OUTPUT_FIELDS = ("logits", "image_embeds", "pooler_output")  # of transformers' outputs, in order of preference


class LayerError(NamedTuple):
    """The error after one layer. relative_error: max_abs_error / largest absolute value of the original."""

    layer: str
    max_abs_error: float
    relative_error: float


class ParityReport(NamedTuple):
    """The result of verify_checkpoint.

    errors:     in the order of computation: "embedding", "block 0", ..., "output".
    num_arrays: number of arrays that the conversion used.
    unused:     the file's arrays that it did not use.
    missing:    the original's parameters that the file does not have.
    """

    errors: list[LayerError]
    num_arrays: int
    unused: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def max_relative_error(self) -> float:
        """The largest relative error; infinite if any is not finite."""
        return max(e.relative_error if np.isfinite(e.relative_error) else np.inf for e in self.errors)


def verify_checkpoint(
    path: str | os.PathLike,
    *,
    against: str,
    dtype: str = "float64",
    layout: str | Layout = "auto",
    num_heads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    seed: int = 0,
) -> ParityReport:
    """Convert a checkpoint and compare it with the original on a random image in [-1, 1].

    against: one of ORIGINALS, or FILE.py:FUNCTION, a function without arguments that returns your own torch model.
    layout, num_heads, settings, preprocess, weights_key: as convert() takes them.

    Raises InputError if torch or the original library is not installed, or if it cannot load the file.
    """
    module, build = _find_original(against)
    torch = _import("torch")
    _import(module)
    with jax.enable_x64(dtype == "float64"):
        model, plan = convert_with_plan(
            path,
            layout=layout,
            num_heads=num_heads,
            settings=settings or {},
            preprocess=preprocess or {},
            weights_key=weights_key,
        )
        config = plan.config
        arrays = {name: jnp.asarray(array, dtype) for name, array in to_arrays(model).items()}
        image_shape = (1, *config.image_size, config.in_channels)
        image = np.random.default_rng(seed).uniform(-1, 1, image_shape).astype(dtype)
        outputs = [np.asarray(output) for output in jax.jit(run_layers)(from_arrays(config, arrays), image)]
    path = find_snapshot(Path(path))
    original, missing = build(plan, read_state(path, plan.selection), path)
    expected = _run_original_layers(original.to(getattr(torch, dtype)).eval(), config, image)
    layers = ["embedding", *(f"block {i}" for i in range(config.depth)), "output"]
    errors = [_compare(*triple) for triple in zip(layers, outputs, expected, strict=True)]
    return ParityReport(errors, sum(len(rule.sources) for rule in plan.rules), plan.unused, missing)


def read_state(path: str | os.PathLike, selection: Selection) -> dict[str, np.ndarray]:
    """Return the model's arrays in a file under their own names, in float32 or float64."""
    return {name: _widen(array.read()) for name, array in select_arrays(selection, open_arrays(path).arrays).items()}


def run_layers(model: VisionTransformer, images: jax.Array) -> list[jax.Array]:
    """Return the tokens [B, N, D] after the embedding and after each block, and the output [B, C]."""
    last, _, outputs = model.run(images, return_outputs=True)
    return [*outputs, model.classify(model.apply_final_norm(last))]


class TextEmbeddings(NamedTuple):
    """What a dual encoder needs to compare a picture with texts: scale * cosine + bias.

    embeddings: [T, D] of unit length.
    """

    embeddings: np.ndarray
    scale: float
    bias: float


def encode_texts(folder: Path, texts: Sequence[str]) -> TextEmbeddings:
    """Return the embeddings of texts by the CLIP or SigLIP in a Hugging Face folder, computed by transformers.

    Raises InputError if torch or transformers is not installed, or if it cannot load the folder.
    """
    torch, package = _import("torch"), _import("transformers")
    try:
        model = package.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = package.AutoTokenizer.from_pretrained(folder)
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            f"{folder}: transformers cannot load its text tower ({' '.join(str(error).split())})"
        ) from error
    vision = model.config.vision_config
    blank = torch.zeros((1, vision.num_channels, vision.image_size, vision.image_size))
    with torch.no_grad():  # the whole model, since only its output has one form in all versions
        embeddings = model(**tokens, pixel_values=blank).text_embeds.double().numpy()
    bias = getattr(model, "logit_bias", None)
    return TextEmbeddings(embeddings, model.logit_scale.exp().item(), 0.0 if bias is None else bias.item())


def _compare(layer: str, output: np.ndarray, expected: np.ndarray) -> LayerError:
    if output.shape != expected.shape:
        raise InputError(f"{layer}: the shape is {output.shape}, the original's is {expected.shape}")
    max_abs_error = float(np.abs(output - expected).max())
    scale = max(float(np.abs(expected).max()), np.finfo(expected.dtype).tiny)
    return LayerError(layer, max_abs_error, max_abs_error / scale)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"verify needs {name}, which is not installed: pip install 'vit-jax[test]'") from error


def _run_original_layers(original: Any, config: ViTConfig, image: np.ndarray) -> list[np.ndarray]:
    """Return what run_layers() returns, recorded by hooks on the original's list of blocks."""
    torch = importlib.import_module("torch")
    blocks = next(
        module
        for module in original.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.depth
    )
    tokens: list[Any] = []

    def record_output(_module: Any, _inputs: Any, output: Any) -> None:
        tokens.append(output[0] if isinstance(output, tuple) else output)

    blocks[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
    for block in blocks:
        block.register_forward_hook(record_output)
    with torch.no_grad():
        output = original(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2))))
    for field in OUTPUT_FIELDS:
        output = getattr(output, field, None) if getattr(output, field, None) is not None else output
    return [tensor.numpy() for tensor in [*tokens, output]]


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


def _find_original(against: str) -> tuple[str, "BuildOriginal"]:
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


def _widen(array: np.ndarray) -> np.ndarray:
    """Return a copy in float64 or float32, which torch.from_numpy accepts."""
    return np.array(array, np.float64 if array.dtype == np.float64 else np.float32)


def _build_transformers(plan: ConversionPlan, arrays: dict[str, np.ndarray], path: Path) -> tuple[Any, tuple[str, ...]]:
    """Build transformers' model and load the arrays; return it and its missing parameters."""
    torch, package = importlib.import_module("torch"), importlib.import_module("transformers")
    if plan.layout.name not in CLASSES:
        raise InputError(f"a checkpoint in the layout {plan.layout.name}: transformers cannot load it")
    name = CLASSES[plan.layout.name](plan.config)
    folder = path if path.is_dir() else path.parent
    model_class = getattr(package, name)
    if (folder / "config.json").is_file():
        settings = package.AutoConfig.from_pretrained(folder)
        settings = settings if name in COMPOSITE else getattr(settings, "vision_config", settings)
    else:
        settings = build_transformers_config(package, name, plan.config)
    package.utils.logging.set_verbosity_error()
    original, info = model_class.from_pretrained(
        None,
        config=settings,
        state_dict={key: torch.from_numpy(array) for key, array in arrays.items()},
        output_loading_info=True,
        dtype=torch.float64,
        attn_implementation="sdpa",
    )
    if info["mismatched_keys"]:
        raise InputError(f"transformers' {name} has other shapes: {sorted(info['mismatched_keys'])[:5]}")
    return original, tuple(sorted(info["missing_keys"]))


def build_transformers_config(package: Any, name: str, config: ViTConfig) -> Any:
    """Return the config of a transformers class for a file without a config.json."""
    if config.image_size[0] != config.image_size[1]:
        raise InputError("transformers' models are square; put a config.json next to the file for other sizes")
    activations = {"gelu_tanh": "gelu_pytorch_tanh", "swiglu": "silu"}
    family = COMPOSITE.get(name)
    config_class = getattr(package, f"{family}VisionConfig") if family else getattr(package, name).config_class
    settings = config_class(
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
    if family:
        return getattr(package, f"{family}Config")(vision_config=settings.to_dict(), num_labels=config.num_classes)
    return settings


def _vit_class(config: ViTConfig) -> str:
    if config.distillation_head:
        return "DeiTForImageClassificationWithTeacher"
    head = "ForImageClassification" if config.num_classes else "Model"
    return ("DeiT" if config.distillation_token else "ViT" if config.class_token else "IJepa") + head


def _clip_class(config: ViTConfig) -> str:
    if config.pooling == "gap":
        return "CLIPForImageClassification"
    return "CLIPVisionModelWithProjection" if config.num_classes else "CLIPVisionModel"


def _dinov2_class(config: ViTConfig) -> str:
    family = "Dinov2WithRegisters" if config.num_registers else "Dinov2"
    return family + ("ForImageClassification" if config.num_classes else "Model")


CLASSES: dict[str, Callable[[ViTConfig], str]] = {
    "hf_vit": _vit_class,
    "hf_dinov2": _dinov2_class,
    "hf_clip": _clip_class,
    "hf_siglip": lambda config: "SiglipForImageClassification" if config.num_classes else "SiglipVisionModel",
}
BuildOriginal = Callable[[ConversionPlan, dict[str, np.ndarray], Path], tuple[Any, tuple[str, ...]]]
# Name of the original library -> the module it needs, and how to build its model.
ORIGINALS: dict[str, tuple[str, BuildOriginal]] = {
    "lukemelas": ("pytorch_pretrained_vit", _build_lukemelas),
    "transformers": ("transformers", _build_transformers),
}
