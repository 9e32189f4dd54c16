"""Hugging Face's vision towers: live parity with transformers on small random models, and export back into them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from vit_jax import forward_with_attention
from weights_convert import convert, export

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")

TINY = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80, image_size=32, patch_size=8
)
CASES = {
    "ViTForImageClassification": ("ViTConfig", dict(num_labels=7)),
    "ViTModel": ("ViTConfig", {}),
    "ViT without bias": ("ViTConfig", dict(num_labels=7, qkv_bias=False)),
    "DeiTForImageClassification": ("DeiTConfig", dict(num_labels=7)),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", dict(num_labels=7)),
    "DeiTModel": ("DeiTConfig", {}),
    "Dinov2Model": ("Dinov2Config", {}),
    "Dinov2ForImageClassification": ("Dinov2Config", dict(num_labels=7)),
    "Dinov2 SwiGLU": ("Dinov2Config", dict(use_swiglu_ffn=True)),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {}),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", dict(num_labels=7)),
    "CLIPVisionModel": ("CLIPVisionConfig", {}),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", dict(projection_dim=24)),
    "SiglipVisionModel": ("SiglipVisionConfig", {}),
}
CLASSES = {"ViT without bias": "ViTForImageClassification", "Dinov2 SwiGLU": "Dinov2Model"}
LAYOUTS = {"ViT": "hf_vit", "DeiT": "hf_vit", "Dinov2": "hf_dinov2", "CLIP": "hf_clip", "Siglip": "hf_siglip"}
forward = jax.jit(forward_with_attention)
# transformers' DINOv2 resizes its positions in float32 even where the rest is float64.
FLOAT32_TABLE = {"ViTModel": 1e-9, "Dinov2Model": 1e-6, "Dinov2WithRegistersModel": 1e-6}


def make_original(case):
    """Return a small random float64 model of transformers, no parameter at its initial value."""
    config, options = CASES[case]
    torch.manual_seed(0)
    config = getattr(transformers, config)(**TINY | options)
    model = getattr(transformers, CLASSES.get(case, case))(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def run_original(model, x):
    """Return the pooled output and the attention, which only the eager implementation returns, in float32."""
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        output = model(pixel_values=pixels)
        model.set_attn_implementation("eager")
        attention = model(pixel_values=pixels, output_attentions=True).attentions
    pooled = next(
        getattr(output, name)
        for name in ("logits", "image_embeds", "pooler_output")
        if getattr(output, name, None) is not None
    )
    return pooled.numpy(), [a.numpy() for a in attention]


@pytest.mark.parametrize("case", CASES)
def test_parity_and_the_way_back(case, x64, tmp_path):
    original = make_original(case)
    original.save_pretrained(tmp_path)
    model = convert(tmp_path / "model.safetensors", num_heads=3)
    x = reference.images(3, 2, 32, 32)
    pooled, attention = run_original(original, x)
    output = forward(model, x)
    assert output.logits.dtype == jnp.float64
    assert reference.relative_error(output.logits, pooled) < 1e-9
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < 1e-6
    # transformers 5's names in memory are read as well.
    if "SwiGLU" not in case:
        in_memory = convert(reference.state_arrays(original), num_heads=3)
        assert all(
            np.array_equal(a, b) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(in_memory), strict=True)
        )
    # transformers loads the export: nothing missing, nothing left over, bit for bit.
    from safetensors.numpy import save_file

    layout = next(layout for start, layout in LAYOUTS.items() if case.startswith(start))
    save_file(export(model, layout=layout), tmp_path / "model.safetensors", metadata={"format": "pt"})
    back, info = type(original).from_pretrained(tmp_path, output_loading_info=True, dtype=torch.float64)
    missing = {name for name in info["missing_keys"] if "pooler" not in name and "mask_token" not in name}
    assert not missing
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    loaded = reference.state_arrays(back)
    for name, array in reference.state_arrays(original).items():
        if "mask_token" not in name:
            assert np.array_equal(loaded[name], array), name


@pytest.mark.parametrize("size", [(48, 48), (24, 40)])
@pytest.mark.parametrize("case", FLOAT32_TABLE)
def test_other_image_sizes(case, size, x64, tmp_path):
    """Hugging Face resizes positions in the forward pass with its own bicubic kernel, and so does this library.

    That of the DINOv2 with registers is antialiased, which shows where the grid shrinks.
    """
    original = make_original(case)
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, *size)
    options = {} if case.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = original(pixel_values=torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), **options).last_hidden_state
    output = forward(convert(tmp_path, num_heads=3), x)
    assert reference.relative_error(output.features, expected.numpy()) < FLOAT32_TABLE[case]


def test_a_full_clip_gives_its_image_tower(x64, tmp_path):
    vision, text = dict(TINY), dict(TINY, vocab_size=50, max_position_embeddings=8)
    for name in ("image_size", "patch_size"):
        text.pop(name)
    torch.manual_seed(1)
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    clip = transformers.CLIPModel(config).double().eval()
    clip.save_pretrained(tmp_path)
    model = convert(tmp_path / "model.safetensors", num_heads=3)
    x = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        features = clip.get_image_features(pixel_values=torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    expected = getattr(features, "pooler_output", features).numpy()
    assert reference.relative_error(jax.jit(lambda m, x: m(x))(model, x), expected) < 1e-9
