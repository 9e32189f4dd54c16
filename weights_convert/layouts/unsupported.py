"""Families that are not supported, recognised by their array names, so that a refusal can name them."""

import re
from collections.abc import Iterable

EVA = "EVA or EVA-02 under its authors' names, which are not read; timm's file of the same model is"
ROPE = "a model with rotary positions (RoPE) of a family that is not supported"
NAFLEX = "SigLIP 2 NaFlex, whose pictures keep their shapes, is not supported; SigLIP 2 of a fixed resolution is"
AIMV2_NATIVE = (
    "an AIMv2 of native resolution, which computes its positions and is not supported; AIMv2 of 224, 336 and 448 are"
)
ADAPTER = "a LoRA adapter of PEFT, without its base model; give that with --base, or merge the adapter first"
OLD_VIT_PYTORCH = (
    "a ViT of vit-pytorch before 0.7.1. Up to 0.6.6 it scales attention by width ** -0.5, which is not supported and "
    'which arrays do not show; if yours is 0.6.7 or 0.7.0, write a rules file with like = "vit_pytorch" and '
    '"patch_to_embedding.{*}" = "to_patch_embedding.1.{*}"'
)

# Regular expressions of array names, each of which a file of the family has, without a prefix -> what the file is.
# The first match counts: the special comes before the general.
UNSUPPORTED: tuple[tuple[tuple[str, ...], str], ...] = (
    ((r".*lora_(A|B|embedding_A)\b.*",), ADAPTER),
    (
        (r".*(oft_|boft_|hada_w|lokr_w|vera_lambda|ia3_l).*",),
        "a PEFT adapter that is no LoRA; merge it with PEFT first",
    ),
    ((r"patch_to_embedding\.weight",), OLD_VIT_PYTORCH),
    (
        (r"MixerBlock_\d+[/.].*|mixer_blocks\.\d+\..*|blocks\.\d+\.mlp_tokens\..*",),
        "an MLP-Mixer, which has no attention",
    ),
    ((r"embeddings\.detection_tokens|det_token",), "a YOLOS detector, which is not supported"),
    ((r"(bbox_embed|class_embed|bbox_predictor)\..*",), "a detector, which is not supported"),
    ((r"layers\.\d+\.blocks\.\d+\..*(relative_position_bias_table|logit_scale)",), "a Swin transformer, not supported"),
    ((r".*attn\.rel_pos_[hw]",), "SAM or another family with decomposed relative positions, which are not supported"),
    ((r"data2vec_vision\..*",), "Data2Vec, which is not supported"),
    ((r".*rope\.freqs_(cos|sin)|blocks\.0\.(attn\.inner_attn_ln|mlp\.ffn_ln)\.weight",), EVA),
    ((r".*(rotary_emb|freqs_(cos|sin|cis)).*",), ROPE),
    (
        (r"visual\.attn_pool\.(probe|attn\.in_proj_weight)",),
        "a Perception Encoder under its authors' names; timm's are read",
    ),
    ((r"stages\.\d+\..*(dwconv|conv_dw|pwconv1)\..*",), "a ConvNeXt, which is no vision transformer"),
    ((r"conv_proj\.conv_bn_relu_0\..*",), "a ViT with a convolutional stem, which is not supported"),
    ((r"layer1\.0\.conv1\.weight|stages\.0\.layers\.0\.layer\.0\.convolution\.weight",), "a ResNet, not supported"),
    ((r"decoder\..*(crossattention|cross_attn|encoder_attn|multihead_attn).*",), "an encoder-decoder, not supported"),
)
PREFIX = r"(?:(?!transformer\.decoder|backbone\.0\.body)\w+\.){0,3}"  # not CATR's


def explain_unsupported(names: Iterable[str]) -> str | None:
    """Return, for a file that fits no layout, what it is by its array names; None if it is no known family."""
    listed = list(names)
    for patterns, message in UNSUPPORTED:
        if all(any(re.fullmatch(f"{PREFIX}(?:{pattern})", name) for name in listed) for pattern in patterns):
            return message
    return None
