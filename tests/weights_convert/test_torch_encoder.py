"""ViTs around nn.TransformerEncoder: parity with torch's own encoder, and the common spellings of the other names."""

import re
from dataclasses import replace

import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import check_arrays, check_parity, randomize, record_attention, run_original
from vit_jax import InputError
from weights_convert import convert, export
from weights_convert.layouts import LAYOUTS

pytestmark = pytest.mark.parity

nn = torch.nn
WIDTH, HEADS, PATCH = 32, 4, 8
LAYOUT = LAYOUTS["torch_encoder"]


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """A ViT as tutorials write it.

    head: "linear", "norm" (a norm, then linear) or "mlp" (two linear layers). pool: "cls" or "mean" of all tokens.
    """

    def __init__(self, *, norm_first, activation, head="linear", class_token=True, pool="cls"):
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH)) if class_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, 16 + int(class_token), WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 48, activation=activation, batch_first=True, norm_first=norm_first
        )
        final_norm = nn.LayerNorm(WIDTH) if norm_first and head == "linear" else None
        self.transformer = nn.TransformerEncoder(layer, 2, norm=final_norm, enable_nested_tensor=False)
        linear = nn.Linear(WIDTH, 7)
        self.head = {
            "linear": linear,
            "norm": nn.Sequential(nn.LayerNorm(WIDTH), linear),
            "mlp": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), linear),
        }[head]
        self.pool = pool if class_token else "mean"

    def forward(self, x):
        x = self.patch_embed(x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = self.transformer(x + self.pos_embed)
        return self.head(x.mean(1) if self.pool == "mean" else x[:, 0])


def layout_with(**settings):
    """Return the layout with the settings that arrays do not show."""
    return replace(
        LAYOUT, ask=(), infer_architecture=lambda shapes, size: LAYOUT.infer_architecture(shapes, size) | settings
    )


CASES = {
    "norm first": dict(norm_first=True, activation="gelu"),
    "torch's defaults": dict(norm_first=False, activation="relu"),
    "norm in the head": dict(norm_first=True, activation="relu", head="norm"),
    "without [class]": dict(norm_first=True, activation="gelu", class_token=False),
}


@pytest.mark.parametrize("case", CASES)
def test_parity_and_the_way_back(case, x64):
    original = randomize(VisionTransformer(**CASES[case]))
    attention = record_attention(original)
    arrays = reference.state_arrays(original)
    images = reference.images(3, 2, 32, 32)
    norm_position = "pre" if CASES[case]["norm_first"] else "post"
    layout = layout_with(norm_position=norm_position, activation=CASES[case]["activation"])
    model = convert(arrays, layout=layout, num_heads=HEADS)
    check_parity(model, images, run_original(original, images), attention)
    exported = {
        re.sub(r"^layers", "transformer.layers", name)
        .replace("patch_embed.", "patch_embed.proj.")
        .replace("norm.", "transformer.norm.")
        if not name.startswith("head")
        else name: array
        for name, array in export(model, layout="torch_encoder").items()
    }
    check_arrays(exported, arrays)


SPELLINGS = {
    "cls_token": ["cls_token", "class_token", "cls", "patch_embedding.cls_token", "embedding.cls_token"],
    "pos_embed": [
        *("pos_embed", "pos_embedding", "position_embedding", "positional_embedding", "position_embeddings"),
        *("pos_emb", "positional_encoding", "embeddings.position_embeddings", "pos_embedding.weight", "positions"),
        *("pos_encoding.pos_embedding", "patch_embed.pos_embed"),
    ],
    "patch_embed.weight": [
        *("patch_embed.weight", "patch_embed.proj.weight", "patch_embedding.weight", "conv_proj.weight"),
        *("patch_embedding.projection.weight", "to_patch_embedding.0.weight", "embedding.patch_embedding.weight"),
        *("patch_embedding.patcher.weight", "embeddings.patch_embeddings.projection.weight"),
    ],
    "layers.3.self_attn.in_proj_weight": [
        *(f"{prefix}layers.3.self_attn.in_proj_weight" for prefix in ("", "transformer.", "encoder.", "a.encoder.")),
        *(f"{prefix}.3.self_attn.in_proj_weight" for prefix in ("blocks", "transformer_encoder", "encoder_layers")),
    ],
    "layers.0.linear1.bias": ["transformer_encoder.layers.0.linear1.bias", "blocks.0.linear1.bias"],
    "layers.0.norm2.weight": ["encoder.encoder.layers.0.norm2.weight"],
    "norm.bias": ["norm.bias", "ln.bias", "layer_norm.bias", "encoder.norm.bias", "transformer.encoder.norm.bias"],
    "head.weight": ["head.weight", "fc.weight", "classifier.weight", "mlp_head.weight", "heads.head.weight"],
    "head.0.weight": ["mlp_head.0.weight", "head.0.weight", "classifier.0.weight"],
    "head.1.bias": ["mlp_head.1.bias", "head.1.bias"],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_common_spellings(name):
    assert {LAYOUT.rename_key(spelling) for spelling in SPELLINGS[name]} == {name}


@pytest.mark.parametrize(
    "name",
    ["decoder.layers.0.self_attn.in_proj_weight", "transformer.decoder.norm.weight", "optimizer.state", "head.x.y"],
)
def test_other_names_stay(name):
    assert LAYOUT.rename_key(name) == name


def test_unknown_settings_must_be_stated_and_dense_patches_described():
    arrays = reference.state_arrays(VisionTransformer(norm_first=True, activation="gelu"))
    assert set(LAYOUT.signature_keys) <= set(map(LAYOUT.rename_key, arrays))
    assert LAYOUT.ask == ("norm_position", "activation")
    arrays["patch_embed.proj.weight"] = arrays["patch_embed.proj.weight"].reshape(WIDTH, -1)
    with pytest.raises(InputError, match="arrays do not show the order of its pixels; write a rules file"):
        convert(arrays, layout=layout_with(), num_heads=HEADS)
