"""The kinds of models that checkpoints become, and what conversion asks of each: one table, no branches elsewhere."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import caption
import vit_jax
from caption.checkpoint import FORMAT as CAPTION_FORMAT
from caption.checkpoint import abstract_model as abstract_caption
from vit_jax import InputError, ViTConfig
from vit_jax.checkpoint import CONFIG, abstract_model
from vit_jax.checkpoint import FORMAT as VIT_FORMAT
from vit_jax.config import as_pair
from weights_convert.sidecar import SidecarConfig, preprocess_with

VIT_TOLD = ("patch_size", "width", "depth", "mlp_dim", "in_channels")
CAPTION_UNTOLD = ("num_heads", "dropout", "preprocess")  # no array tells these
CAPTION_TOLD = tuple(f.name for f in fields(caption.CaptionConfig) if f.name not in CAPTION_UNTOLD)
HEADS_OF_WIDTH = {1152: 16}  # SigLIP's so400m has heads of 72; elsewhere a head is 64 wide
CATR_HEAD = 32  # wide


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    title:      what it is called.
    config:     the class of its configs.
    format:     what a saved one's config.json says it is.
    configs:    its named architectures.
    told:       fields of the config that a named architecture is held against.
    abstract:   config -> the model's shapes, with nothing allocated.
    config_of:  fields as the arrays tell them, named architecture or None, heads or None, what lies beside -> config.
    name_of:    config -> the named architecture that it is, or "".
    check:      config, image size or None, classes or None; raises InputError where a model can't have them.
    changed:    model, image size or None, classes or None -> the model with these.
    save:       model, folder, class names, provenance.
    load:       folder, image size or None, classes or None -> the model.
    described:  config -> what the arrays told, and what they could not, in a line each.
    """

    title: str
    config: type
    format: str
    configs: Mapping[str, Any]
    told: tuple[str, ...]
    abstract: Callable[[Any], Any]
    config_of: Callable[[dict[str, Any], Any, int | None, SidecarConfig], Any]
    name_of: Callable[[Any], str]
    check: Callable[[Any, Any, int | None], None]
    changed: Callable[[Any, Any, int | None], Any]
    save: Callable[[Any, Path, tuple[str, ...], dict[str, Any]], None]
    load: Callable[[str | os.PathLike, Any, int | None], Any]
    described: Callable[[Any], tuple[str, str]]

    def named(self, name: str | None) -> Any:
        """The named architecture; None for None. Raises InputError for a name that there is not."""
        if name is not None and name not in self.configs:
            raise InputError(f"unknown architecture {name!r}: one of {', '.join(self.configs)}")
        return self.configs[name] if name else None

    def differences(self, known: Any, found: Mapping[str, Any]) -> list[str]:
        """What sets arrays apart from a named architecture, class count and image size aside."""
        return [f"{f} is {found[f]}, not {getattr(known, f)}" for f in self.told if getattr(known, f) != found[f]]


def _vit_config(found: dict[str, Any], known: Any, num_heads: int | None, beside: SidecarConfig) -> ViTConfig:
    heads = HEADS_OF_WIDTH.get(found["width"], max(1, found["width"] // 64))
    settings = {"num_heads": known.num_heads if known else heads} | found | dict(beside.settings)
    if found.get("activation") == "swiglu":
        settings["activation"] = "swiglu"  # the arrays know better than a config's hidden_act
    if num_heads is not None:
        settings["num_heads"] = num_heads
    return ViTConfig(**settings, preprocess=preprocess_with(beside, found["image_size"]))


def _vit_name(config: ViTConfig) -> str:
    """The architecture of its image size and classes first."""
    alike = [
        name
        for name, known in vit_jax.CONFIGS.items()
        if known.num_heads == config.num_heads and not VIT.differences(known, vars(config))
    ]
    exact = [name for name in alike if vit_jax.CONFIGS[name].resized(config.image_size) == config]
    return next(iter(exact + alike), "")


def _vit_check(config: ViTConfig, image_size: Any, num_classes: int | None) -> None:
    if image_size is not None:
        config.grid_for(image_size)


def _vit_changed(
    model: vit_jax.VisionTransformer, image_size: Any, num_classes: int | None
) -> vit_jax.VisionTransformer:
    if num_classes is not None:
        model = vit_jax.with_num_classes(model, num_classes)
    if image_size is not None and as_pair(image_size) != model.config.image_size:
        model = vit_jax.with_image_size(model, image_size)
    return model


def _vit_save(model: Any, folder: Path, class_names: tuple[str, ...], provenance: dict[str, Any]) -> None:
    names = class_names if len(class_names) == model.config.num_classes else ()
    vit_jax.save(model, folder, class_names=names, provenance=provenance)


def _vit_described(config: ViTConfig) -> tuple[str, str]:
    (ph, pw), (height, width) = config.patch_size, config.image_size
    return (
        f"width {config.width}, depth {config.depth}, {config.num_heads} heads, MLP {config.mlp_dim}, "
        f"patch {ph}x{pw}, image {height}x{width}, {config.num_classes} classes",
        f"{config.num_heads} heads, {config.activation}, eps {config.norm_eps:g}, preprocessing",
    )


VIT = Kind(
    title="image model",
    config=ViTConfig,
    format=VIT_FORMAT,
    configs=vit_jax.CONFIGS,
    told=VIT_TOLD,
    abstract=abstract_model,
    config_of=_vit_config,
    name_of=_vit_name,
    check=_vit_check,
    changed=_vit_changed,
    save=_vit_save,
    load=lambda folder, image_size, num_classes: vit_jax.load(folder, image_size=image_size, num_classes=num_classes),
    described=_vit_described,
)


def _caption_config(
    found: dict[str, Any], known: Any, num_heads: int | None, beside: SidecarConfig
) -> caption.CaptionConfig:
    heads = known.num_heads if known else max(1, found["width"] // CATR_HEAD)
    return caption.CaptionConfig(**found | {"num_heads": heads if num_heads is None else num_heads})


def _caption_check(config: caption.CaptionConfig, image_size: Any, num_classes: int | None) -> None:
    if image_size is not None or num_classes is not None:
        raise InputError("a caption model takes images of any size and has no classes; give neither")


def _unchanged(model: Any, image_size: Any, num_classes: int | None) -> Any:
    _caption_check(model.config, image_size, num_classes)
    return model


def _caption_described(config: caption.CaptionConfig) -> tuple[str, str]:
    encoder = config.encoder
    if isinstance(encoder, caption.ResNetConfig):
        image = f"ResNet of {'+'.join(map(str, encoder.stage_depths))} blocks"
    else:
        image = f"ViT of {encoder.depth} blocks"
    return (
        f"{image}, {config.encoder_layers} + {config.decoder_layers} layers, width {config.width}, "
        f"{config.num_heads} heads, MLP {config.mlp_dim}, {config.vocab_size} words, {config.max_positions} positions",
        f"{config.num_heads} heads, dilation of the last stage, eps {config.norm_eps:g}, preprocessing",
    )


CAPTION = Kind(
    title="caption model",
    config=caption.CaptionConfig,
    format=CAPTION_FORMAT,
    configs=caption.CONFIGS,
    told=CAPTION_TOLD,
    abstract=abstract_caption,
    config_of=_caption_config,
    name_of=lambda config: next((name for name, known in caption.CONFIGS.items() if known == config), ""),
    check=_caption_check,
    changed=_unchanged,
    save=lambda model, folder, class_names, provenance: caption.save(model, folder, provenance=provenance),
    load=lambda folder, image_size, num_classes: _unchanged(caption.load(folder), image_size, num_classes),
    described=_caption_described,
)

KINDS = (VIT, CAPTION)


def kind_of_saved(folder: str | os.PathLike) -> Kind | None:
    """The kind of a folder that `save` wrote, by its config.json; None for anything else."""
    path = Path(folder) / CONFIG
    try:
        stored = json.loads(path.read_text(errors="replace")) if path.is_file() else None
    except ValueError:
        stored = None
    told = stored.get("format") if isinstance(stored, dict) else None
    return next((kind for kind in KINDS if kind.format == told), None)
