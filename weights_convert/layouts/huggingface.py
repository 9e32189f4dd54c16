"""Hugging Face transformers' vision towers, as save_pretrained writes them: ViT, DeiT, DINOv2, CLIP, SigLIP.

A class with a head keeps its tower's arrays under a prefix (vit., deit., dinov2., vision_model.), the tower alone
without one; the tables here go without. transformers 5 has other names in memory than in files: both are read (but
SwiGLU's in memory).
"""

import re

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.layout import Layout, Shapes, count_layers, grid_of
from weights_convert.rules import CONV, LINEAR, TABLE, TOKEN, Rule, dense, fused_qkv, norm

ENCODER = "encoder.layer.{i}."
LAYERS = "encoder.layers.{i}."
IN_MEMORY = (  # transformers 5's names in memory, as they are in files
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.([qkv])_proj\.", lambda m: f".attention.attention.{dict(q='query', k='key', v='value')[m[1]]}."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)


def _bare(name: str) -> str:
    return re.sub(r"^(vit|deit|dinov2_with_registers|dinov2|vision_model)\.", "", name)


def _vit_spelling(name: str) -> str:
    name = _bare(name)
    for pattern, new in IN_MEMORY:
        name = re.sub(pattern, new, name)
    return name


def _dinov2_spelling(name: str) -> str:
    name = _bare(name)
    for pattern, new in IN_MEMORY[1:3]:
        name = re.sub(pattern, new, name)
    return name


EMBEDDINGS = (
    Rule("embeddings.cls_token", "class_token"),
    Rule("embeddings.distillation_token", "distillation_token"),
    Rule("embeddings.register_tokens", "registers"),
    Rule("embeddings.position_embeddings", "position_embedding"),
    Rule("embeddings.patch_embeddings.projection.weight", "patch_embed.kernel", CONV),
    Rule("embeddings.patch_embeddings.projection.bias", "patch_embed.bias"),
)
ATTENTION = (
    *fused_qkv([f"{ENCODER}attention.attention.{part}" for part in ("query", "key", "value")], "blocks.{i}.attn.qkv"),
    *dense(ENCODER + "attention.output.dense", "blocks.{i}.attn.out"),
)


def two_heads(config: ViTConfig) -> bool:
    """Whether the model is DeiT with its teacher's head."""
    return config.distillation_head


VIT_RULES = (
    *EMBEDDINGS,
    *ATTENTION,
    *norm(ENCODER + "layernorm_before", "blocks.{i}.norm1"),
    *norm(ENCODER + "layernorm_after", "blocks.{i}.norm2"),
    *dense(ENCODER + "intermediate.dense", "blocks.{i}.mlp.up"),
    *dense(ENCODER + "output.dense", "blocks.{i}.mlp.down"),
    *norm("layernorm", "norm"),
    *dense("pooler.dense", "representation"),
    *dense("classifier", "head", when=lambda config: not two_heads(config)),
    *dense("cls_classifier", "head", when=two_heads),
    *dense("distillation_classifier", "distillation_head"),
)


def _embeddings(shapes: Shapes, image_size: tuple[int, int] | None, prefix: int) -> dict:
    width, channels, ph, pw = shapes["embeddings.patch_embeddings.projection.weight"]
    rows, columns = grid_of(shapes["embeddings.position_embeddings"][1] - prefix, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        in_channels=channels,
        depth=count_layers(shapes, ENCODER),
        qkv_bias="encoder.layer.0.attention.attention.query.bias" in shapes,
        posemb_resize="bicubic",
    )


def vit_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """ViTConfig's fields as the arrays tell them, but num_heads. eps is 1e-12 by custom, the GELU exact."""
    distilled = "embeddings.distillation_token" in shapes
    head = "cls_classifier.weight" if "cls_classifier.weight" in shapes else "classifier.weight"
    classes = shapes[head][0] if head in shapes else 0
    return _embeddings(shapes, image_size, 1 + int(distilled)) | dict(
        mlp_dim=shapes["encoder.layer.0.intermediate.dense.weight"][0],
        num_classes=classes,
        distillation_token=distilled,
        distillation_head="distillation_classifier.weight" in shapes,
        representation=0 if classes or "pooler.dense.weight" not in shapes else shapes["pooler.dense.weight"][0],
        norm_eps=1e-12,
    )


def _vit_exported(name: str, config: ViTConfig) -> str:
    if not config.num_classes or "classifier" in name:
        return name
    return ("deit." if config.distillation_token else "vit.") + name


VIT = Layout(
    name="hf_vit",
    title="Hugging Face ViT and DeiT",
    rules=VIT_RULES,
    architecture=vit_architecture,
    marks=(
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.layernorm_before.weight",
        "encoder.layer.0.intermediate.dense.weight",
        "layernorm.weight",
    ),
    unused=(r"embeddings\.mask_token", r"pooler\.dense\.(weight|bias)"),
    spelling=_vit_spelling,
    exported_as=_vit_exported,
)

DINOV2_RULES = (
    *EMBEDDINGS,
    *ATTENTION,
    *norm(ENCODER + "norm1", "blocks.{i}.norm1"),
    Rule(ENCODER + "layer_scale1.lambda1", "blocks.{i}.scale1"),
    *norm(ENCODER + "norm2", "blocks.{i}.norm2"),
    *dense(ENCODER + "mlp.fc1", "blocks.{i}.mlp.up", when=lambda config: config.activation != "swiglu"),
    *dense(ENCODER + "mlp.fc2", "blocks.{i}.mlp.down", when=lambda config: config.activation != "swiglu"),
    *dense(ENCODER + "mlp.weights_in", "blocks.{i}.mlp.up", when=lambda config: config.activation == "swiglu"),
    *dense(ENCODER + "mlp.weights_out", "blocks.{i}.mlp.down", when=lambda config: config.activation == "swiglu"),
    Rule(ENCODER + "layer_scale2.lambda1", "blocks.{i}.scale2"),
    *norm("layernorm", "norm"),
    *dense("classifier", "head"),
)


def dinov2_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """ViTConfig's fields as the arrays tell them, but num_heads. A classifier reads [class] and the patches' mean."""
    gated = "encoder.layer.0.mlp.weights_in.weight" in shapes
    down = shapes[f"encoder.layer.0.mlp.{'weights_out' if gated else 'fc2'}.weight"]
    classes = shapes["classifier.weight"][0] if "classifier.weight" in shapes else 0
    return _embeddings(shapes, image_size, 1) | dict(
        mlp_dim=down[1],
        num_classes=classes,
        num_registers=shapes["embeddings.register_tokens"][1] if "embeddings.register_tokens" in shapes else 0,
        pooling="cls_gap" if classes else "cls",
        layer_scale=True,
        activation="swiglu" if gated else "gelu",
        norm_eps=1e-6,
    )


def _dinov2_exported(name: str, config: ViTConfig) -> str:
    if not config.num_classes or "classifier" in name:
        return name
    return ("dinov2_with_registers." if config.num_registers else "dinov2.") + name


DINOV2 = Layout(
    name="hf_dinov2",
    title="Hugging Face DINOv2, with and without registers",
    rules=DINOV2_RULES,
    architecture=dinov2_architecture,
    marks=(
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.norm1.weight",
        "encoder.layer.0.layer_scale1.lambda1",
        "layernorm.weight",
    ),
    unused=(r"embeddings\.mask_token",),
    spelling=_dinov2_spelling,
    exported_as=_dinov2_exported,
)

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
TEXT = (r"text_model\..*", r"text_projection\..*", r"logit_(scale|bias)", r".*position_ids")


def _tower(shapes: Shapes, image_size: tuple[int, int] | None, prefix: int) -> dict:
    width, channels, ph, pw = shapes["embeddings.patch_embedding.weight"]
    rows, columns = grid_of(shapes["embeddings.position_embedding.weight"][0] - prefix, (ph, pw), image_size)
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


def clip_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """ViTConfig's fields as the arrays tell them, but num_heads. The projection is the head; quick GELU by custom."""
    projected = "visual_projection.weight" in shapes
    return _tower(shapes, image_size, 1) | dict(
        num_classes=shapes["visual_projection.weight"][0] if projected else 0,
        head_bias=not projected,
        pre_norm=True,
        final_norm="pooled",
        activation="quick_gelu",
        norm_eps=1e-5,
    )


def _clip_exported(name: str, config: ViTConfig) -> str:
    return "vision_model." + name if config.num_classes and name != "visual_projection.weight" else name


CLIP = Layout(
    name="hf_clip",
    title="Hugging Face CLIP, its image tower",
    rules=(
        Rule("embeddings.class_embedding", "class_token", TOKEN),
        *norm("pre_layrnorm", "pre_norm"),
        *TOWER,
        Rule("visual_projection.weight", "head.kernel", LINEAR),
    ),
    architecture=clip_architecture,
    marks=(
        "embeddings.class_embedding",
        "embeddings.patch_embedding.weight",
        "pre_layrnorm.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
        "post_layernorm.weight",
    ),
    unused=TEXT,
    spelling=_bare,
    exported_as=_clip_exported,
)

# torch's MultiheadAttention keeps q, k and v one below the other: [3 * D, D].
PACKED = LINEAR


def siglip_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """ViTConfig's fields as the arrays tell them, but num_heads. The tanh GELU by custom."""
    classes = shapes["classifier.weight"][0] if "classifier.weight" in shapes else 0
    if not classes and "head.probe" not in shapes:
        raise InputError(
            "a SigLIP tower without its attention head has no pooled answer; give one with vision_use_head"
        )
    return _tower(shapes, image_size, 0) | dict(
        num_classes=classes,
        class_token=False,
        pooling="gap" if classes else "map",
        activation="gelu_tanh",
        norm_eps=1e-6,
    )


def _siglip_exported(name: str, config: ViTConfig) -> str:
    return "vision_model." + name if config.num_classes and not name.startswith("classifier") else name


SIGLIP = Layout(
    name="hf_siglip",
    title="Hugging Face SigLIP, its image tower",
    rules=(
        *TOWER,
        Rule("head.probe", "pool.probe"),
        Rule("head.attention.in_proj_weight", "pool.qkv_kernel", PACKED),
        Rule("head.attention.in_proj_bias", "pool.qkv_bias"),
        *dense("head.attention.out_proj", "pool.out"),
        *norm("head.layernorm", "pool.norm"),
        *dense("head.mlp.fc1", "pool.mlp.up"),
        *dense("head.mlp.fc2", "pool.mlp.down"),
        *dense("classifier", "head"),
    ),
    architecture=siglip_architecture,
    marks=(
        "embeddings.patch_embedding.weight",
        "embeddings.patch_embedding.bias",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
        "post_layernorm.weight",
    ),
    unused=TEXT,
    spelling=_bare,
    exported_as=_siglip_exported,
)
