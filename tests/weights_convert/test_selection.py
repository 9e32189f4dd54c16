"""The model within a file: whatever key, prefix and other entries there are, and which of several models is taken."""

import jax
import numpy as np
import pytest

from tests.weights_convert.tiny import timm_arrays
from vit_jax import InputError
from weights_convert import convert
from weights_convert._convert import convert_with_plan


def add_prefix(prefix, arrays):
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def plan_of(arrays, **options):
    model, plan = convert_with_plan(arrays, num_heads=2, **options)
    return model, plan.selection


def assert_same(model, arrays):
    jax.tree.map(np.testing.assert_array_equal, model, convert(arrays, num_heads=2))


@pytest.mark.parametrize(
    "prefix",
    ["module", "_orig_mod", "module._orig_mod", "_orig_mod.module", "model", "net", "backbone", "visual.trunk"]
    + ["state_dict.model", "state_dict.module.net", "whatever", "0", "params_ema", "_fsdp_wrapped_module.model"],
)
def test_any_prefix_that_all_names_share_is_stripped(prefix):
    arrays = timm_arrays()
    model, selection = plan_of(add_prefix(prefix, arrays))
    assert_same(model, arrays)
    assert selection.unrelated == ()


def test_wrappers_within_names_are_stripped():
    arrays = timm_arrays()
    wrapped = {name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): a for name, a in arrays.items()}
    assert set(wrapped) != set(arrays)
    assert_same(plan_of(wrapped)[0], arrays)


def test_other_entries_of_a_file_are_left_out_and_reported():
    arrays, others = (
        timm_arrays(),
        {"epoch": np.array(3), "best_acc1": np.array(77.0), "optimizer.state.0.m": np.ones(3)},
    )
    model, selection = plan_of(add_prefix("state_dict", arrays) | others)
    assert_same(model, arrays)
    assert set(selection.unrelated) == set(others)
    assert selection.describe() == [
        'the model is under "state_dict."',
        "arrays that are no part of the model: epoch, best_acc1, optimizer.*",
    ]


def test_a_single_number_among_the_names_is_left_out():
    arrays = timm_arrays()
    model, plan = convert_with_plan(arrays | {"epoch": np.array(3)}, num_heads=2)
    assert_same(model, arrays)
    assert plan.unused == ("epoch",)


def test_a_head_next_to_its_backbone_belongs_to_the_model():
    arrays = timm_arrays()
    split = {name if name.startswith("head.") else f"backbone.{name}": array for name, array in arrays.items()}
    model, selection = plan_of(split | {"criterion.weight": np.ones(10)})
    assert_same(model, arrays)
    assert selection.unrelated == ("criterion.weight",)


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("state_dict", "state_dict_ema"), "state_dict"),
        (("state_dict_ema", "state_dict"), "state_dict"),
        (("model_ema", "model"), "model"),
        (("student", "teacher"), "teacher"),
        (("encoder", "target_encoder"), "target_encoder"),
        (("ema", "online"), "online"),
    ],
)
def test_of_two_models_one_is_taken_and_the_other_named(keys, taken):
    arrays = {key: timm_arrays(seed) for seed, key in enumerate(keys)}
    file = {name: a for key in keys for name, a in add_prefix(key, arrays[key]).items()}
    model, selection = plan_of(file)
    assert_same(model, arrays[taken])
    (other,) = set(keys) - {taken}
    assert selection.other_prefixes == (other,)
    assert f"the file holds other models too: {other}" in selection.describe()[1]
    assert_same(plan_of(file, weights_key=other)[0], arrays[other])


def test_two_models_without_a_preference_are_asked_for():
    file = add_prefix("left", timm_arrays(0)) | add_prefix("right", timm_arrays(1))
    with pytest.raises(InputError, match="several models: left, right; choose one with --weights-key"):
        convert(file, num_heads=2)
    assert_same(convert(file, num_heads=2, weights_key="right"), timm_arrays(1))


def test_an_unknown_weights_key_lists_what_there_is():
    file = add_prefix("model", timm_arrays()) | {"epoch": np.array(1)}
    with pytest.raises(InputError, match=r"no arrays under 'ema'; the file has model\.\* \(\d+\), epoch"):
        convert(file, num_heads=2, weights_key="ema")


def test_two_arrays_of_one_name_are_an_error():
    arrays = timm_arrays()
    with pytest.raises(InputError, match=r"_orig_mod\.norm\.weight and norm.weight both become norm.weight"):
        convert(arrays | {"_orig_mod.norm.weight": arrays["norm.weight"]}, num_heads=2)


def test_names_of_no_layout_point_to_rules_files():
    with pytest.raises(InputError, match=r"none of the known layouts; the file has conv1.weight, ...; .*rules file"):
        convert({"conv1.weight": np.zeros((3, 3))})
    partly = {name: a for name, a in timm_arrays().items() if name.startswith(("pos", "cls", "head"))}
    with pytest.raises(InputError, match=r"the closest, timm, has 1 of 4 signature keys: pos_embed; missing: blocks"):
        convert(partly)


def test_training_files_of_dino_and_i_jepa():
    """DINO keeps a projection head next to each backbone; I-JEPA an encoder, its moving average and a predictor."""
    head = {"head.mlp.0.weight": np.ones((4, 4)), "head.last_layer.weight_g": np.ones((5, 1))}
    networks = {name: timm_arrays(seed, num_classes=0) for seed, name in enumerate(("student", "teacher"))}
    file = {"epoch": np.array(1), "optimizer.state.0.exp_avg": np.ones(3)}
    for name, arrays in networks.items():
        file |= add_prefix(f"{name}.module", add_prefix("backbone", arrays) | head)
    model, selection = plan_of(file)
    assert selection.prefix == "teacher.module.backbone"
    assert_same(model, networks["teacher"])

    encoders = {
        name: timm_arrays(seed, num_classes=0, class_token=False, pooling="gap", final_norm="tokens")
        for seed, name in enumerate(("encoder", "target_encoder"))
    }
    file = {"predictor.module.predictor_blocks.0.attn.qkv.weight": np.ones((6, 2)), "opt.state.0.m": np.ones(2)}
    for name, arrays in encoders.items():
        file |= add_prefix(f"{name}.module", arrays)
    model, selection = plan_of(file)
    assert selection.prefix == "target_encoder.module"
    assert_same(model, encoders["target_encoder"])


def test_open_clips_timm_tower():
    arrays = timm_arrays(num_classes=0)
    file = add_prefix("visual.trunk", arrays) | {
        "text.token_embedding.weight": np.ones((9, 4)),
        "logit_scale": np.ones(()),
    }
    model, selection = plan_of(file)
    assert_same(model, arrays)
    assert selection.unrelated == ("text.token_embedding.weight", "logit_scale")
