"""Hugging Face BEiT as save_pretrained writes it; transformers 5's names in memory are read too. As huggingface_vit.py.

A class with a head stores its tower under "beit.". Models that are fine-tuned pool by the mean of the patches and norm
that, pretrained ones have a final norm. For another image size the table of relative positions is resized bilinearly.
"""

import re

from vit_jax import ViTConfig
from weights_convert.layouts import huggingface_vit as vit
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_distances
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import SIGLIP, always
from weights_convert.layouts.timm_eva import compute_index
from weights_convert.rules import FUSED_QV_BIAS, Rule, norm

QKV = vit.ENCODER + "attention.attention."
TABLE = "relative_position_bias.relative_position_bias_table"
IN_MEMORY = (
    (r"^layers\.(\d+)\.relative_position_bias\.", r"encoder.layer.\1.attention.attention.relative_position_bias."),
    (r"^shared_position_bias\.", "encoder.relative_position_bias."),
    *vit.IN_MEMORY,
)


def has_pooler(config: ViTConfig) -> bool:
    """Return whether the final norm is the pooler's, of the mean of the patches."""
    return config.final_norm == "pooled"


OWN_NAMES = ("blocks.{i}.attn.qkv.bias", "norm.", "representation", "head.", "distillation", "registers")
RULES = (
    *(rule for rule in vit.VIT_RULES if not rule.target.startswith(OWN_NAMES)),
    Rule((QKV + "query.bias", QKV + "value.bias"), "blocks.{i}.attn.qkv.bias", FUSED_QV_BIAS),
    Rule(QKV + TABLE, "blocks.{i}.relative_bias"),
    Rule("encoder." + TABLE, "relative_bias"),
    Rule(vit.ENCODER + "lambda_1", "blocks.{i}.scale1"),
    Rule(vit.ENCODER + "lambda_2", "blocks.{i}.scale2"),
    *norm("layernorm", "norm", when=lambda config: not has_pooler(config)),
    *norm("pooler.layernorm", "norm", when=has_pooler),
    *(rule for rule in vit.VIT_RULES if rule.sources[0].startswith("classifier.")),
)


def rename_key(name: str) -> str:
    """Return an array's name in a file, without the prefix of its tower."""
    name = name.removeprefix("beit.")
    for pattern, new in IN_MEMORY:
        name = re.sub(pattern, new, name)
    return name


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads."""
    width, channels, ph, pw = shapes["embeddings.patch_embeddings.projection.weight"]
    first = "encoder.layer.0."
    own, shared = first + "attention.attention." + TABLE, "encoder." + TABLE
    rows, columns = infer_distances(shapes[own if own in shapes else shared][0], (ph, pw), image_size)
    mean = "pooler.layernorm.weight" in shapes
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, vit.ENCODER),
        mlp_dim=shapes[first + "intermediate.dense.weight"][0],
        num_classes=count_rows(shapes, "classifier.weight"),
        in_channels=channels,
        position_table="embeddings.position_embeddings" in shapes,
        relative_bias="blocks" if own in shapes else "shared",
        pooling="gap" if mean else "cls",
        final_norm="pooled" if mean else "tokens",
        layer_scale=first + "lambda_1" in shapes,
        key_bias=False,
        norm_eps=1e-12,
        posemb_resize="bilinear",
    )


LAYOUT = Layout(
    name="hf_beit",
    title="Hugging Face BEiT",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "embeddings.cls_token",
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.layernorm_before.weight",
        "encoder.layer.0.intermediate.dense.weight",
        f"encoder.layer.0.attention.attention.{TABLE}|encoder.{TABLE}",
    ),
    unused=(r"embeddings\.mask_token", r"lm_head\..*"),
    buffers={
        r"encoder\.(layer\.\d+\.attention\.attention\.)?relative_position_bias\.relative_position_index": compute_index
    },
    rename_key=rename_key,
    export_key=lambda name, config: name if "classifier" in name or not config.num_classes else f"beit.{name}",
    sidecar_family="hf",
    preprocess=always(SIGLIP),
    assumes=("relative_bias",),
)
