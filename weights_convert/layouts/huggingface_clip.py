"""Hugging Face CLIP and SigLIP image towers as save_pretrained writes them, alone or next to a text tower.

SigLIP 2 of a fixed resolution is a SigLIP, in its config too.

Their image classifiers read the mean of the patches: CLIP's before its final norm, which is then unused; SigLIP's in
place of its attention head.
"""

from collections.abc import Mapping

import numpy as np

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.huggingface_vit import strip_prefix
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import CLIP_HF, always
from weights_convert.layouts.preprocessing import SIGLIP as SIGLIP_PREPROCESS
from weights_convert.layouts.unsupported import NAFLEX
from weights_convert.rules import CONV, LINEAR, TABLE, TOKEN, Rule, dense, fused_qkv, norm

LAYERS = "encoder.layers.{i}."
TOWER = (
    Rule("embeddings.patch_embedding.weight", "patch_embed.kernel", CONV),
    Rule("embeddings.patch_embedding.bias", "patch_embed.bias"),
    Rule("embeddings.position_embedding.weight", "position_embedding", TABLE),
    *norm(LAYERS + "layer_norm1", "blocks.{i}.norm1"),
    *fused_qkv([f"{LAYERS}self_attn.{part}_proj" for part in "qkv"], "blocks.{i}.attn.qkv"),
    *dense(LAYERS + "self_attn.out_proj", "blocks.{i}.attn.out"),
    *norm(LAYERS + "layer_norm2", "blocks.{i}.norm2"),
    *dense(LAYERS + "mlp.fc1", "blocks.{i}.mlp.up"),
    *dense(LAYERS + "mlp.fc2", "blocks.{i}.mlp.down"),
    *norm("post_layernorm", "norm"),
)
TEXT_TOWER = (r"text_model\..*", r"text_projection\..*", r"logit_(scale|bias)", r".*position_ids")


def _infer_tower(shapes: Shapes, image_size: tuple[int, int] | None, num_prefix: int) -> dict:
    width, channels, ph, pw = shapes["embeddings.patch_embedding.weight"]
    rows, columns = infer_grid(shapes["embeddings.position_embedding.weight"][0] - num_prefix, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        in_channels=channels,
        depth=count_layers(shapes, LAYERS),
        mlp_dim=shapes["encoder.layers.0.mlp.fc1.weight"][0],
        patch_bias="embeddings.patch_embedding.bias" in shapes,
        posemb_resize="bicubic",
    )


def infer_clip_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. The projection, or a classifier, is the head.

    The activation defaults to quick GELU.
    """
    classes, projection = count_rows(shapes, "classifier.weight"), count_rows(shapes, "visual_projection.weight")
    return _infer_tower(shapes, image_size, 1) | dict(
        num_classes=classes or projection,
        head_bias=classes > 0 or not projection,
        pre_norm=True,
        pooling="gap" if classes else "cls",
        final_norm="none" if classes else "pooled",
        activation="quick_gelu",
        norm_eps=1e-5,
    )


def is_classifier(config: ViTConfig) -> bool:
    """Return whether the head is an image classifier rather than the projection."""
    return config.pooling == "gap"


def _export_clip_key(name: str, config: ViTConfig) -> str:
    is_head = name.startswith(("visual_projection", "classifier"))
    return "vision_model." + name if config.num_classes and not is_head else name


def _unused_norm(config: ViTConfig) -> Mapping[str, np.ndarray]:
    """Return the final norm that a classifier's file holds and its model does not use."""
    if not is_classifier(config):
        return {}
    ones = np.ones(config.width, np.float32)
    return {"vision_model.post_layernorm.weight": ones, "vision_model.post_layernorm.bias": 0 * ones}


CLIP = Layout(
    name="hf_clip",
    title="Hugging Face CLIP, image tower",
    rules=(
        Rule("embeddings.class_embedding", "class_token", TOKEN),
        *norm("pre_layrnorm", "pre_norm"),
        *TOWER,
        Rule("visual_projection.weight", "head.kernel", LINEAR, lambda config: not is_classifier(config)),
        *dense("classifier", "head", when=is_classifier),
    ),
    infer_architecture=infer_clip_architecture,
    signature_keys=(
        "embeddings.class_embedding",
        "embeddings.patch_embedding.weight",
        "pre_layrnorm.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
        "post_layernorm.weight",
    ),
    unused=(*TEXT_TOWER, r"post_layernorm\..*"),
    rename_key=strip_prefix,
    export_key=_export_clip_key,
    export_extra=_unused_norm,
    sidecar_family="hf",
    preprocess=always(CLIP_HF),
)


def infer_siglip_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. The activation defaults to tanh GELU.

    Raises InputError for a tower without its head, and for a NaFlex of SigLIP 2, whose patches are vectors.
    """
    if len(shapes["embeddings.patch_embedding.weight"]) == 2:
        raise InputError(NAFLEX)
    tower = _infer_tower(shapes, image_size, 0)
    classes = count_rows(shapes, "classifier.weight")
    if not classes and "head.probe" not in shapes:
        raise InputError("a SigLIP tower without its attention head has no pooled output; use one with vision_use_head")
    return tower | dict(
        num_classes=classes,
        class_token=False,
        pooling="gap" if classes else "map",
        activation="gelu_tanh",
        norm_eps=1e-6,
    )


def _export_siglip_key(name: str, config: ViTConfig) -> str:
    return "vision_model." + name if config.num_classes and not name.startswith("classifier") else name


SIGLIP = Layout(
    name="hf_siglip",
    title="Hugging Face SigLIP and SigLIP 2, image tower",
    rules=(
        *TOWER,
        Rule("head.probe", "pool.probe"),
        Rule("head.attention.in_proj_weight", "pool.qkv_kernel", LINEAR),
        Rule("head.attention.in_proj_bias", "pool.qkv_bias"),
        *dense("head.attention.out_proj", "pool.out"),
        *norm("head.layernorm", "pool.norm"),
        *dense("head.mlp.fc1", "pool.mlp.up"),
        *dense("head.mlp.fc2", "pool.mlp.down"),
        *dense("classifier", "head"),
    ),
    infer_architecture=infer_siglip_architecture,
    signature_keys=(
        "embeddings.patch_embedding.weight",
        "embeddings.patch_embedding.bias",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
        "post_layernorm.weight",
    ),
    unused=(*TEXT_TOWER, r"head\..*"),
    rename_key=strip_prefix,
    export_key=_export_siglip_key,
    sidecar_family="hf",
    preprocess=always(SIGLIP_PREPROCESS),
)
