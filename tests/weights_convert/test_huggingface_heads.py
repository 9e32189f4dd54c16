"""Hugging Face classes with other heads than usual: live parity with transformers, and export back into them."""

import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import forward, randomize
from vit_jax import InputError
from weights_convert import convert, export
from weights_convert.verify import verify_checkpoint

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")
from_numpy = torch.from_numpy  # without torch this skips the module

TINY = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80, image_size=32, patch_size=8
)
TEXT = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50)
PATCHES = 16


def build(name):
    """Return a small random float64 model of a class, and the layout of its files."""
    if name.startswith("IJepa"):
        config, layout = transformers.IJepaConfig(**TINY, num_labels=7), "hf_vit"
    elif name.startswith("CLIP"):
        config, layout = transformers.CLIPConfig(vision_config=TINY, text_config=TEXT, num_labels=7), "hf_clip"
    else:
        config, layout = transformers.SiglipConfig(vision_config=TINY, text_config=TEXT, num_labels=7), "hf_siglip"
    return randomize(getattr(transformers, name)(config)), layout


def to_torch(images):
    return from_numpy(images.transpose(0, 3, 1, 2).copy())


CLASSIFIERS = ["IJepaForImageClassification", "CLIPForImageClassification", "SiglipForImageClassification"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_on_the_mean_of_the_patches(name, x64, tmp_path):
    original, layout = build(name)
    original.save_pretrained(tmp_path)
    model = convert(tmp_path / "model.safetensors", num_heads=3)
    images = reference.images(3, 2, 32, 32)
    output = forward(model, images)
    with torch.no_grad():
        logits = original(pixel_values=to_torch(images)).logits
    assert reference.relative_error(output.logits, logits.numpy()) < 1e-9
    report = verify_checkpoint(tmp_path / "model.safetensors", against="transformers", num_heads=3)
    assert report.max_relative_error < 1e-9
    export_and_reload(original, model, layout, tmp_path)
    original.set_attn_implementation("eager")
    with torch.no_grad():
        attention = original(pixel_values=to_torch(images), output_attentions=True).attentions
    for actual, weights in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, weights.numpy()) < 1e-6  # whose softmax is in float32


def export_and_reload(original, model, layout, tmp_path):
    """Assert that transformers loads the export, with the original's values."""
    from safetensors.numpy import save_file

    save_file(export(model, layout=layout), tmp_path / "model.safetensors", metadata={"format": "pt"})
    back, info = type(original).from_pretrained(tmp_path, output_loading_info=True, dtype=torch.float64)
    # SigLIP's attention head is not used by the classifier, and an export has none.
    assert {key for key in info["missing_keys"] if "vision_model.head." not in key} == set()
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    unused = ("vision_model.head.", "post_layernorm" if layout == "hf_clip" else "mask_token")
    loaded = reference.state_arrays(back)
    for name, array in reference.state_arrays(original).items():
        assert np.array_equal(loaded[name], array) or any(part in name for part in unused), name


def test_ijepa_without_head_pools_by_the_mean(x64):
    original, _ = build("IJepaModel")
    images = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        expected = original(pixel_values=to_torch(images)).last_hidden_state.numpy()
    output = forward(convert(reference.state_arrays(original), num_heads=3), images)
    assert reference.relative_error(output.features, expected) < 1e-9
    assert reference.relative_error(output.logits, expected.mean(1)) < 1e-9


def test_mae_with_its_decoder(x64, tmp_path):
    decoder = {f"decoder_{name}": 16 for name in ("hidden_size", "intermediate_size")}
    decoder |= dict(decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    config = transformers.ViTMAEConfig(**TINY, **decoder, mask_ratio=0.0)
    original = randomize(transformers.ViTMAEForPreTraining(config))
    original.save_pretrained(tmp_path)
    model = convert(tmp_path / "model.safetensors", num_heads=3)
    images = reference.images(3, 2, 32, 32)
    in_order = torch.arange(PATCHES, dtype=torch.float64).expand(2, -1)  # MAE shuffles patches by this noise
    with torch.no_grad():
        expected = original.vit(pixel_values=to_torch(images), noise=in_order).last_hidden_state.numpy()
    assert reference.relative_error(forward(model, images).features, expected) < 1e-9


def test_masked_image_modeling(x64, tmp_path):
    original = randomize(transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**TINY, encoder_stride=8)))
    original.save_pretrained(tmp_path)
    images = reference.images(3, 2, 32, 32)
    with torch.no_grad():
        expected = original.vit(pixel_values=to_torch(images)).last_hidden_state.numpy()
    model = convert(tmp_path / "model.safetensors", num_heads=3)
    assert reference.relative_error(forward(model, images).features, expected) < 1e-9


def test_a_siglip_tower_without_any_head_is_refused(x64):
    original, _ = build("SiglipForImageClassification")
    arrays = reference.state_arrays(original)
    kept = {name: array for name, array in arrays.items() if "head" not in name and "classifier" not in name}
    with pytest.raises(InputError, match="SigLIP tower without its attention head"):
        convert(kept, num_heads=3)
