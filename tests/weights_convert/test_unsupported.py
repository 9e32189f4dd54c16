"""Families that are not supported are named; supported ones are not mistaken for them."""

import json

import pytest

import tests.reference as reference
from weights_convert.layouts import LAYOUTS, explain_unsupported
from weights_convert.rules import Rule

CASES = {
    "EVA-02 under its authors' names": [
        ["blocks.0.attn.rope.freqs_cos", "pos_embed"],
        ["visual.blocks.0.attn.inner_attn_ln.weight", "visual.blocks.0.mlp.w1.weight"],
    ],
    "RoPE": [["layers.0.attention.rotary_emb.inv_freq"], ["freqs_cis"]],
    "Perception Encoder under its authors' names": [["visual.attn_pool.probe", "visual.conv1.weight"]],
    "Data2Vec": [["data2vec_vision.encoder.layer.0.lambda_1"]],
    "MLP-Mixer": [
        ["MixerBlock_0/token_mixing/Dense_0/kernel", "stem/kernel"],
        ["blocks.0.mlp_tokens.fc1.weight"],
        ["mixer_blocks.0.x"],
    ],
    "encoder-decoder": [["decoder.transformer.h.0.crossattention.c_attn.weight", "encoder.layernorm.weight"]],
    "YOLOS": [["vit.embeddings.detection_tokens", "vit.embeddings.cls_token"]],
    "LoRA adapter": [["base_model.model.vit.encoder.layer.0.attention.attention.query.lora_A.weight"]],
    "Swin": [
        ["layers.0.blocks.0.attn.relative_position_bias_table"],
        ["swin.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table"],
        ["layers.0.blocks.0.attn.logit_scale"],
    ],
    "ConvNeXt": [
        ["stages.0.blocks.0.conv_dw.weight"],
        ["stages.0.0.dwconv.weight"],
        ["convnext.encoder.stages.0.layers.0.dwconv.weight"],
    ],
    "ResNet": [["layer1.0.conv1.weight", "conv1.weight"], ["encoder.stages.0.layers.0.layer.0.convolution.weight"]],
    "SAM": [["image_encoder.blocks.0.attn.rel_pos_h"]],
    "convolutional stem": [["conv_proj.conv_bn_relu_0.0.weight"]],
    "detector": [["bbox_embed.layers.0.weight", "class_embed.weight"]],
    "before 0.7.1": [["patch_to_embedding.weight", "transformer.layers.0.0.fn.norm.weight"]],
}


@pytest.mark.parametrize("family", CASES)
def test_families_are_named(family):
    for names in CASES[family]:
        assert family in explain_unsupported(["x.weight", *names]), names


def expand(rules: tuple[Rule, ...]) -> list[str]:
    return [source.replace("{i}", "0") for rule in rules for source in rule.sources]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_supported_families_are_not_mistaken(layout):
    names = expand(LAYOUTS[layout].rules)
    for prefix in ("", "module.", "model.backbone."):
        assert explain_unsupported(prefix + name for name in names) is None


@pytest.mark.parametrize("family", ["timm_vit", "timm_modern", "lukemelas_vit", "catr", "vit_pytorch"])
def test_golden_files_of_supported_families(family):
    stored = json.loads((reference.GOLDEN / f"{family}_state_dict.json").read_text())
    models = {"": stored} if family == "catr" else stored
    assert {name: explain_unsupported(keys) for name, keys in models.items()} == dict.fromkeys(models)
