"""Hugging Face's DINOv3, BEiT, TIPSv2, AIMv2 and SigLIP 2: live parity with transformers on small random models, and
export back into them.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import check_arrays
from tests.weights_convert.test_huggingface import TINY, run_original
from vit_jax import InputError, forward_with_attention
from vit_jax.position import relative_position_index
from weights_convert import convert, export
from weights_convert._convert import convert_with_plan

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")

REGISTERS = dict(num_register_tokens=4)
BIAS = dict(use_relative_position_bias=True)
CASES = {
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", REGISTERS),
    "DINOv3 SwiGLU": ("DINOv3ViTModel", "DINOv3ViTConfig", REGISTERS | dict(use_gated_mlp=True, hidden_act="silu")),
    "DINOv3 with a bias of the keys": ("DINOv3ViTModel", "DINOv3ViTConfig", REGISTERS | dict(key_bias=True)),
    "BEiT": ("BeitModel", "BeitConfig", BIAS),
    "BEiT classifier": ("BeitForImageClassification", "BeitConfig", BIAS | dict(num_labels=7)),
    "BEiT by [class]": ("BeitModel", "BeitConfig", BIAS | dict(use_mean_pooling=False)),
    "BEiT with shared bias and a table": (
        "BeitForImageClassification",
        "BeitConfig",
        dict(use_shared_relative_position_bias=True, use_absolute_position_embeddings=True, num_labels=7),
    ),
    "TIPSv2": ("Tipsv2VisionModel", "Tipsv2VisionConfig", dict(mlp_ratio=1.7)),
    "TIPSv2 SwiGLU": ("Tipsv2VisionModel", "Tipsv2VisionConfig", dict(use_swiglu_ffn=True)),
    "AIMv2": ("Aimv2VisionModel", "Aimv2VisionConfig", {}),
    "AIMv2 with biases": ("Aimv2VisionModel", "Aimv2VisionConfig", dict(qkv_bias=True, mlp_bias=True)),
}
LAYOUTS = {"DINOv3": "hf_dinov3", "BEiT": "hf_beit", "TIPSv2": "dinov2", "AIMv2": "hf_aimv2"}
forward = jax.jit(forward_with_attention)
# transformers rounds the angles of DINOv3 (see exact_angles) and BEiT's attention weights to float32.
EXACT, FLOAT32 = 1e-9, 1e-6


def make(case, **changes):
    """Return a small random float64 model of transformers, no parameter at its initial value."""
    model, config, options = CASES[case]
    torch.manual_seed(0)
    original = getattr(transformers, model)(getattr(transformers, config)(**TINY | options | changes)).double().eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return original


@pytest.mark.parametrize("case", CASES)
def test_parity_and_the_way_back(case, x64, exact_angles, exact_steps, tmp_path):
    original = exact_angles(make(case))
    original.save_pretrained(tmp_path)
    model = convert(tmp_path)
    assert model.config.num_heads == 3
    x = reference.images(3, 2, 32, 32)
    pooled, attention = run_original(original, x)
    output = forward(model, x)
    assert output.logits.dtype == jnp.float64
    assert reference.relative_error(output.logits, pooled) < EXACT
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < (FLOAT32 if "BEiT" in case else EXACT)
    in_memory = convert(reference.state_arrays(original), num_heads=3, settings={"rotary": model.config.rotary})
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(in_memory), strict=True))

    from safetensors.numpy import save_file

    layout = LAYOUTS[case.split()[0]]
    save_file(export(model, layout=layout), tmp_path / "model.safetensors", metadata={"format": "pt"})
    back, info = type(original).from_pretrained(tmp_path, output_loading_info=True, dtype=torch.float64)
    assert {name for name in info["missing_keys"] if "mask_token" not in name} == set()
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    loaded = reference.state_arrays(back)
    for name, array in reference.state_arrays(original).items():
        if "mask_token" not in name:
            assert np.array_equal(loaded[name], array), name


@pytest.mark.parametrize("case", ["DINOv3", "BEiT", "TIPSv2"])
def test_another_image_size(case, x64, exact_angles, exact_steps, tmp_path):
    original = exact_angles(make(case))
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 24, 40)
    pooled, attention = run_original(original, x)
    output = forward(convert(tmp_path), x)
    assert reference.relative_error(output.logits, pooled) < EXACT
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < (FLOAT32 if "BEiT" in case else EXACT)


def test_another_base_of_dinov3s_periods_is_read_from_the_config(x64, exact_angles, tmp_path):
    original = exact_angles(make("DINOv3", rope_theta=30.0))
    original.save_pretrained(tmp_path)
    model, x = convert(tmp_path), reference.images(3, 2, 32, 32)
    assert model.config.rotary.temperature == 30
    with torch.no_grad():
        expected = original(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).last_hidden_state
    assert reference.relative_error(forward(model, x).features, expected) < EXACT


def test_transformers_own_angles_differ_by_their_rounding_alone(x64, tmp_path):
    original = make("DINOv3")
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 32, 32)
    pooled, _ = run_original(original, x)
    assert reference.relative_error(forward(convert(tmp_path), x).logits, pooled) < FLOAT32


@pytest.mark.parametrize("case", ["BEiT", "BEiT with shared bias and a table"])
def test_the_stored_index_is_compared_and_not_used(case):
    """Older files hold it; a file with another one is of another kind."""
    arrays = reference.state_arrays(make(case))
    table = next(name for name in arrays if name.endswith("relative_position_bias_table"))
    name = table.replace("_bias_table", "_index")
    index = relative_position_index((4, 4))
    convert(arrays | {name: index}, num_heads=3)
    with pytest.raises(InputError, match="relative_position_index does not hold what a model of this shape has"):
        convert(arrays | {name: index.T}, num_heads=3)


def test_a_gated_gelu_of_dinov3_is_refused(tmp_path):
    make("DINOv3 SwiGLU", hidden_act="gelu").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="use_gated_mlp with hidden_act 'gelu'"):
        convert(tmp_path)


TEXT = dict(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=16, vocab_size=90)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_siglip_2_of_a_fixed_resolution(size, x64, tmp_path):
    """Its released configs are SigLIP's, with the vocabulary of another tokenizer; so are its arrays."""
    config = transformers.SiglipConfig(vision_config=TINY, text_config=TEXT | dict(projection_size=48))
    torch.manual_seed(0)
    original = transformers.SiglipModel(config).double().eval()
    original.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["model_type"], stored["vision_config"]["model_type"]) == ("siglip", "siglip_vision_model")
    x = reference.images(3, 2, *size)
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    vision = original.vision_model
    vision.set_attn_implementation("eager")
    with torch.no_grad():
        expected = vision(pixel_values=pixels, interpolate_pos_encoding=True, output_attentions=True)
    model = convert(tmp_path)
    output = forward(model, x)
    assert (model.config.activation, model.config.num_heads) == ("gelu_tanh", 3)
    assert reference.relative_error(output.logits, expected.pooler_output) < FLOAT32  # its softmax is float32
    vision.set_attn_implementation("sdpa")
    with torch.no_grad():
        pooled = vision(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    assert reference.relative_error(output.logits, pooled) < EXACT
    for actual, weights in zip(output.attention, expected.attentions, strict=True):
        assert reference.relative_error(actual, weights) < FLOAT32


def test_siglip_2_naflex_is_refused_by_name(tmp_path):
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name != "image_size"}
    original = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**sizes, num_patches=16))
    original.save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "model.safetensors", reference.state_arrays(original)):
        with pytest.raises(InputError, match="SigLIP 2 NaFlex, whose pictures keep their shapes, is not supported"):
            convert(source, num_heads=3)


def test_aimv2_of_native_resolution_is_refused_by_name(tmp_path):
    original = make("AIMv2", is_native=True)
    original.save_pretrained(tmp_path)
    for source in (tmp_path, reference.state_arrays(original)):
        with pytest.raises(InputError, match="an AIMv2 of native resolution, which computes its positions"):
            convert(source, num_heads=3)


def test_aimv2_without_a_head_is_read_as_the_mean_of_its_patches(x64, exact_steps, tmp_path):
    original = make("AIMv2", use_head=False)
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        tokens = original(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).last_hidden_state.numpy()
    output = forward(convert(tmp_path), x)
    assert reference.relative_error(output.features, tokens) < EXACT
    assert reference.relative_error(output.logits, tokens.mean(axis=1)) < EXACT


def test_the_projection_of_an_aimv2_with_a_text_tower_is_the_head(x64, exact_steps, tmp_path):
    torch.manual_seed(0)
    config = transformers.Aimv2Config(vision_config=TINY, text_config=TEXT | dict(eos_token_id=1), projection_dim=24)
    original = transformers.Aimv2Model(config).double().eval()
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        features = original.get_image_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    model = convert(tmp_path)
    assert reference.relative_error(forward(model, x).logits, getattr(features, "pooler_output", features)) < EXACT
    vision = {
        name: array
        for name, array in reference.state_arrays(original).items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    check_arrays(export(model, layout="hf_aimv2"), vision)


@pytest.mark.parametrize("case", ["TIPSv2", "TIPSv2 SwiGLU"])
def test_tipsv2_under_its_authors_names(case, x64, exact_steps, tmp_path):
    """Those that save_pretrained writes, of a tower alone or next to a text tower; without a config.json too."""
    _, _, options = CASES[case]
    torch.manual_seed(0)
    config = transformers.Tipsv2Config(vision_config=TINY | options, text_config=TEXT)
    original = transformers.Tipsv2Model(config).double().eval()
    original.save_pretrained(tmp_path)
    x = reference.images(3, 2, 24, 40)
    with torch.no_grad():
        expected = original.vision_model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).pooler_output
    model, plan = convert_with_plan(tmp_path)
    assert (plan.layout.name, plan.config.preprocess.mean) == ("dinov2", (0.0, 0.0, 0.0))
    assert reference.relative_error(forward(model, x).logits, expected) < EXACT
    (tmp_path / "config.json").unlink()
    bare = convert(tmp_path / "model.safetensors", num_heads=3)
    assert bare.config == model.config
