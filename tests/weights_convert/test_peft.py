"""LoRA adapters of PEFT: merging against arithmetic, and refusal of what is no plain LoRA."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.weights_convert.tiny import timm_arrays
from vit_jax import InputError, load
from weights_convert.__main__ import main
from weights_convert.peft import merge_lora

RANK, CONFIG = 4, dict(peft_type="LORA", r=4, lora_alpha=8, bias="none", use_dora=False, target_modules=["query"])
QUERY = "vit.encoder.layer.0.attention.attention.query"


def draw(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape)


BASE = {
    f"{QUERY}.weight": draw(6, 5),
    f"{QUERY}.bias": draw(6),
    "classifier.weight": draw(3, 6),
    "patch.weight": draw(6, 3, 2, 2),
}
A, B = draw(RANK, 5, seed=1), draw(6, RANK, seed=2)
ADAPTER = {f"base_model.model.{QUERY}.lora_A.weight": A, f"base_model.model.{QUERY}.lora_B.weight": B}


def check(merged, expected):
    """Assert that the query's weight is as expected and that nothing else changed."""
    np.testing.assert_allclose(merged[f"{QUERY}.weight"], expected, rtol=1e-12, atol=1e-12)
    assert set(merged) == set(BASE)
    assert all(merged[name] is BASE[name] for name in BASE if name != f"{QUERY}.weight")


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({}, 2.0),
        (dict(use_rslora=True), 4.0),
        (dict(r=64), 2.0),  # the arrays' rank counts: rank_pattern sets it by layer
        (dict(alpha_pattern={"query": 20}), 5.0),
        (dict(alpha_pattern={"key": 20}), 2.0),
        (dict(init_lora_weights="gaussian"), 2.0),
    ],
)
def test_merging(options, scale):
    check(merge_lora(BASE, ADAPTER, CONFIG | options), BASE[f"{QUERY}.weight"] + scale * B @ A)


def test_names_with_the_adapters_name():
    adapter = {name.replace(".weight", ".default.weight"): array for name, array in ADAPTER.items()}
    check(merge_lora(BASE, adapter, CONFIG), BASE[f"{QUERY}.weight"] + 2 * B @ A)


def test_a_base_without_the_prefix_of_the_adapter():
    base = {name.removeprefix("vit."): array for name, array in BASE.items()}
    merged = merge_lora(base, ADAPTER, CONFIG)
    assert set(merged) == set(base)
    np.testing.assert_allclose(
        merged[f"{QUERY.removeprefix('vit.')}.weight"], BASE[f"{QUERY}.weight"] + 2 * B @ A, rtol=1e-12, atol=1e-12
    )


def test_transposed_weights_and_convolutions():
    base = BASE | {f"{QUERY}.weight": draw(5, 6)}
    merged = merge_lora(base, ADAPTER, CONFIG | {"fan_in_fan_out": True})
    np.testing.assert_allclose(
        merged[f"{QUERY}.weight"], base[f"{QUERY}.weight"] + 2 * (B @ A).T, rtol=1e-12, atol=1e-12
    )
    a, b = draw(RANK, 3, 2, 2, seed=3), draw(6, RANK, 1, 1, seed=4)
    adapter = {"base_model.model.patch.lora_A.weight": a, "base_model.model.patch.lora_B.weight": b}
    expected = BASE["patch.weight"] + 2 * np.einsum("or,rihw->oihw", b[..., 0, 0], a)
    np.testing.assert_allclose(merge_lora(BASE, adapter, CONFIG)["patch.weight"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.modules_to_save.default.weight"])
def test_saved_modules_replace_the_bases(name):
    head = draw(7, 6, seed=5)
    adapter = ADAPTER | {f"base_model.model.{name}": head}
    merged = merge_lora(BASE, adapter, CONFIG | {"modules_to_save": ["classifier"]})
    assert np.array_equal(merged["classifier.weight"], head)
    without_head = {name: array for name, array in BASE.items() if name != "classifier.weight"}
    merged = merge_lora(without_head, adapter, CONFIG | {"modules_to_save": ["classifier"]})
    assert np.array_equal(merged["classifier.weight"], head)


def test_trained_biases_replace_the_bases():
    bias = draw(6, seed=6)
    adapter = ADAPTER | {f"base_model.model.{QUERY}.base_layer.bias": bias}
    merged = merge_lora(BASE, adapter, CONFIG | {"bias": "lora_only"})
    assert np.array_equal(merged[f"{QUERY}.bias"], bias)


def test_half_precision_becomes_float32():
    half = {name: array.astype(np.float16) for name, array in BASE.items()}
    merged = merge_lora(half, ADAPTER, CONFIG)[f"{QUERY}.weight"]
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, half[f"{QUERY}.weight"] + 2 * B @ A, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(use_dora=True), "LoRA adapter with use_dora, which is not supported"),
        (dict(layer_replication=[[0, 1]], some_new_field=3), "with layer_replication, some_new_field"),
        (dict(peft_type="IA3"), "adapter of type IA3; only LORA"),
        (dict(init_lora_weights="pissa_niter_4"), "init_lora_weights 'pissa_niter_4', which changes the base"),
        (dict(peft_type=None), "adapter of type None"),
    ],
)
def test_other_variants_are_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        merge_lora(BASE, ADAPTER, CONFIG | options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model.model.x.lora_A.weight": A, "base_model.model.x.lora_B.weight": B}, "x.weight, which the base"),
        ({f"base_model.model.{QUERY}.lora_magnitude_vector": A}, "lora_magnitude_vector is no array of a plain LoRA"),
        ({"base_model.model.classifier.weight": A}, "classifier.weight is no array of a plain LoRA"),
        ({f"base_model.model.{QUERY}.lora_A.weight": A[:, :3]}, r"has shape \(6, 5\) in the base model, and \(6, 3\)"),
        ({"base_model.model.patch.lora_A.weight": A}, "only one of lora_A and lora_B for patch"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        merge_lora(BASE, ADAPTER | changes, CONFIG)


def test_ambiguous_and_empty_adapters():
    adapter = {"base_model.model.query.lora_A.weight": A, "base_model.model.query.lora_B.weight": B}
    base = {"a.query.weight": draw(6, 5), "b.query.weight": draw(6, 5)}
    with pytest.raises(InputError, match=r"may be a\.query\.weight or b\.query\.weight of"):
        merge_lora(base, adapter, CONFIG)
    with pytest.raises(InputError, match="holds no LoRA arrays"):
        merge_lora(BASE, {}, CONFIG)


def test_an_adapters_folder_is_merged_into_its_base_by_command(tmp_path, capsys):
    arrays, rank = timm_arrays(), 2
    a, b = draw(rank, 32, seed=3).astype(np.float32), draw(96, rank, seed=4).astype(np.float32)
    name = "base_model.model.blocks.0.attn.qkv.lora_{}.weight"
    save_file({f"net.{key}": array for key, array in arrays.items()}, tmp_path / "base.safetensors")
    (tmp_path / "adapter").mkdir()
    save_file({name.format("A"): a, name.format("B"): b}, tmp_path / "adapter" / "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(CONFIG | {"r": rank, "lora_alpha": 6}))
    command = ["convert", str(tmp_path / "adapter"), "--num-heads", "2", "--out", str(tmp_path / "m")]
    assert main([*command, "--base", str(tmp_path / "base.safetensors")]) == 0
    expected = arrays["blocks.0.attn.qkv.weight"] + 3 * b @ a
    np.testing.assert_allclose(load(tmp_path / "m").blocks[0].attn.qkv.kernel[...], expected.T, atol=1e-5)
    assert main([*command, "--force", "--base", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors: no such file" in capsys.readouterr().err
    (tmp_path / "adapter" / "adapter_config.json").write_text("[]")
    assert main([*command, "--force", "--base", str(tmp_path / "base.safetensors")]) == 2
    assert "adapter_config.json: not a JSON object" in capsys.readouterr().err


def test_of_a_base_with_two_models_the_chosen_one_is_merged(tmp_path, capsys):
    raw, averaged, rank = timm_arrays(0), timm_arrays(1), 2
    a, b = draw(rank, 32, seed=3).astype(np.float32), draw(96, rank, seed=4).astype(np.float32)
    name = "base_model.model.blocks.0.attn.qkv.lora_{}.weight"
    file = {f"model.{key}": array for key, array in raw.items()}
    save_file(file | {f"model_ema.{key}": array for key, array in averaged.items()}, tmp_path / "base.safetensors")
    save_file({name.format("A"): a, name.format("B"): b}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG | {"r": rank, "lora_alpha": 6}))
    command = ["convert", str(tmp_path / "adapter_model.safetensors"), "--base", str(tmp_path / "base.safetensors")]
    command += ["--num-heads", "2", "--out", str(tmp_path / "m")]
    assert main(command) == 0
    assert "the file holds other models too: model_ema" in capsys.readouterr().out
    assert main([*command, "--force", "--weights-key", "model_ema"]) == 0
    expected = averaged["blocks.0.attn.qkv.weight"] + 3 * b @ a
    np.testing.assert_allclose(load(tmp_path / "m").blocks[0].attn.qkv.kernel[...], expected.T, atol=1e-5)
