"""Vision transformers around torch's nn.TransformerEncoder, as people write their own.

The names within a layer are torch's. Those of the stem, the tokens, the positions and the head differ by author: common
spellings are read, for others write a rules file with like = "torch_encoder". Arrays do not show whether norms come
before or after a branch (norm_first), nor the activation, and torch's defaults (after, ReLU) are often changed: both
have to be stated. A head of two linear layers needs a rules file: the first is named pre_head here. eps is torch's
default, 1e-5. Export uses the first spelling of each.
"""

import re

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_positions
from weights_convert.layouts.layout import Layout
from weights_convert.rules import CONV, LINEAR, Rule, dense, norm

LAYER = "layers.{i}."
STEM = r"(?:(?:patch_)?embed(?:ding)?s?\.)?"  # tokens and positions are often kept in the stem's module
PATCH = r"(?:patch_?embed(?:ding|dings)?|to_patch_embedding|patch_proj|conv_proj|patchify|proj|projection|conv)"
INNER = r"(?:\.(?:proj|projection|conv|patch_embed|patch_embedding|patcher|[01]))?"
NORM = r"(?:norm|ln|layer_?norm|final_norm|norm_layer|ln_f)"
HEAD = r"(?:head|heads|fc|classifier|mlp_head|classification_head|linear_head|fc_out|output)"
POSITION = r"(?:pos\w*\.)?pos(?:ition|itional)?_?(?:embed|embedding|embeddings|emb|encoding|s)"
LAYER_ARRAY = r"((?:self_attn\.(?:in_proj_|out_proj\.)|linear[12]\.|norm[12]\.)\w+)"
SPELLINGS = (
    # Any module but a decoder may hold the layers.
    (r"(?!.*decoder)(?:.+\.)?(\d+)\." + LAYER_ARRAY, r"layers.\1.\2"),
    (STEM + r"(?:cls_token|class_token|cls|cls_embedding|class_embedding)", "cls_token"),
    (STEM + POSITION + r"(?:\.weight)?", "pos_embed"),
    (STEM + PATCH + INNER + r"\.(weight|bias)", r"patch_embed.\1"),
    (r"(?:(?:transformer|encoder|transformer_encoder|blocks)\.)*" + NORM + r"\.(weight|bias)", r"norm.\1"),
    (HEAD + r"(?:\.(?:head|fc|linear))?(\.\d)?\.(weight|bias)", r"head\1.\2"),
)


def has_head_norm(config: ViTConfig) -> bool:
    """Return whether the final norm is the first layer of the head."""
    return config.final_norm == "pooled"


RULES = (
    Rule("cls_token", "class_token"),
    Rule("pos_embed", "position_embedding"),
    Rule("patch_embed.weight", "patch_embed.kernel", CONV),
    Rule("patch_embed.bias", "patch_embed.bias"),
    *norm(LAYER + "norm1", "blocks.{i}.norm1"),
    Rule(LAYER + "self_attn.in_proj_weight", "blocks.{i}.attn.qkv.kernel", LINEAR),
    Rule(LAYER + "self_attn.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
    *dense(LAYER + "self_attn.out_proj", "blocks.{i}.attn.out"),
    *norm(LAYER + "norm2", "blocks.{i}.norm2"),
    *dense(LAYER + "linear1", "blocks.{i}.mlp.up"),
    *dense(LAYER + "linear2", "blocks.{i}.mlp.down"),
    *norm("norm", "norm", when=lambda config: not has_head_norm(config)),
    *norm("head.0", "norm", when=has_head_norm),
    *dense("head.1", "head", when=has_head_norm),
    *dense("pre_head", "representation"),
    *dense("head", "head", when=lambda config: not has_head_norm(config)),
)


def rename_key(name: str) -> str:
    """Return an array's name in this layout's spelling; unchanged if it is none of the common ones."""
    matches = ((re.fullmatch(pattern, name), new) for pattern, new in SPELLINGS)
    return next((match.expand(new) for match, new in matches if match is not None), name)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads, norm_position and activation.

    Raises InputError for a dense patch embedding: arrays do not show the order of a patch's pixels.
    """
    if len(shapes["patch_embed.weight"]) == 2:
        raise InputError(
            "the patch embedding is a dense layer, and arrays do not show the order of its pixels; write a rules file "
            'with like = "torch_encoder" and [arrays]: see docs/families.md'
        )
    width, channels, ph, pw = shapes["patch_embed.weight"]
    has_class = "cls_token" in shapes
    grid, class_position = infer_positions(shapes["pos_embed"][-2], int(has_class), (ph, pw), image_size)
    representation = count_rows(shapes, "pre_head.weight")
    norm_in_head = len(shapes.get("head.0.weight", ())) == 1
    return dict(
        image_size=(grid[0] * ph, grid[1] * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, LAYER),
        mlp_dim=shapes[LAYER.replace("{i}", "0") + "linear1.weight"][0],
        num_classes=count_rows(shapes, "head.1.weight" if norm_in_head else "head.weight"),
        in_channels=channels,
        class_token=has_class,
        class_position=class_position,
        pooling="cls" if has_class else "gap",
        final_norm="pooled" if norm_in_head else "tokens" if "norm.weight" in shapes else "none",
        representation=representation,
        **({"representation_activation": "tanh"} if representation else {}),
        patch_bias="patch_embed.bias" in shapes,
        norm_eps=1e-5,
        posemb_resize="bilinear",
    )


LAYOUT = Layout(
    name="torch_encoder",
    title="a ViT around torch's nn.TransformerEncoder",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "pos_embed",
        "patch_embed.weight",
        "layers.0.self_attn.in_proj_weight",
        "layers.0.linear1.weight",
        "layers.0.norm1.weight",
    ),
    rename_key=rename_key,
    ask=("norm_position", "activation"),
    assumes=("pooling", "representation_activation"),
)
