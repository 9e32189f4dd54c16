"""The ViT image tower of OpenAI's CLIP (https://github.com/openai/CLIP) and of open_clip.

A file holds both towers, of which the text tower is not used, or the image tower alone under the prefix "visual.". The
projection becomes the head. OpenAI released TorchScript archives; their arrays are read, their code is not run.
"""

from weights_convert.layouts.inference import Shapes, count_layers, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import CLIP, always
from weights_convert.rules import CONV, LINEAR, TABLE, TOKEN, Rule, dense, norm

LAYER = "visual.transformer.resblocks.{i}."
RULES = (
    Rule("visual.class_embedding", "class_token", TOKEN),
    Rule("visual.positional_embedding", "position_embedding", TABLE),
    Rule("visual.conv1.weight", "patch_embed.kernel", CONV),
    *norm("visual.ln_pre", "pre_norm"),
    *norm(LAYER + "ln_1", "blocks.{i}.norm1"),
    Rule(LAYER + "attn.in_proj_weight", "blocks.{i}.attn.qkv.kernel", LINEAR),
    Rule(LAYER + "attn.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
    *dense(LAYER + "attn.out_proj", "blocks.{i}.attn.out"),
    *norm(LAYER + "ln_2", "blocks.{i}.norm2"),
    *dense(LAYER + "mlp.c_fc", "blocks.{i}.mlp.up"),
    *dense(LAYER + "mlp.c_proj", "blocks.{i}.mlp.down"),
    *norm("visual.ln_post", "norm"),
    Rule("visual.proj", "head.kernel"),
)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads.

    The activation defaults to OpenAI's quick GELU. open_clip's own models use the exact GELU, which their sidecar
    open_clip_config.json states.
    """
    width, channels, ph, pw = shapes["visual.conv1.weight"]
    rows, columns = infer_grid(shapes["visual.positional_embedding"][0] - 1, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, LAYER),
        mlp_dim=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        num_classes=shapes["visual.proj"][1] if "visual.proj" in shapes else 0,
        in_channels=channels,
        pre_norm=True,
        final_norm="pooled",
        activation="quick_gelu",
        patch_bias=False,
        head_bias="visual.proj" not in shapes,
        norm_eps=1e-5,
        posemb_resize="bicubic_antialias",
    )


LAYOUT = Layout(
    name="openai_clip",
    title="OpenAI CLIP and open_clip, image tower",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.transformer.resblocks.0.attn.in_proj_weight",
    ),
    unused=(
        r"transformer\..*",
        r"token_embedding\..*",
        r"positional_embedding",
        r"ln_final\..*",
        r"text_projection",
        r"text\..*",
        r"logit_(scale|bias)",
        r"input_resolution",
        r"context_length",
        r"vocab_size",
    ),
    sidecar_family="openai",
    preprocess=always(CLIP),
)
