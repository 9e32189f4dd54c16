"""The decomposition of a logit against an explicit sum, and edits against models and tokens edited by hand, in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.create import create
from vit_jax import (
    Edit,
    InputError,
    VisionTransformer,
    ViTConfig,
    ablate_each_head,
    decompose_logits,
    forward,
    forward_with_attention,
    head_contributions,
    single_head_edits,
)
from vit_jax.attention import attend
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.execution import BlockExecution
from vit_jax.position import Rotary

TINY = ViTConfig(image_size=(24, 16), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=5)
KINDS = {
    "cls": dict(),
    "gap, layer scale, rotary": dict(pooling="gap", layer_scale=True, num_registers=2, rotary=Rotary()),
    "norm of the pooled, relative bias": dict(pooling="gap", final_norm="pooled", relative_bias="blocks"),
    "cls_gap, no final norm": dict(pooling="cls_gap", final_norm="none", pre_norm=True),
    "two heads": dict(distillation_token=True, distillation_head=True),
    "mean, no biases": dict(pooling="mean", out_bias=False, qkv_bias=False, mlp_bias=False, mlp_norm=True),
    "RMS norms": dict(pooling="gap", norm="rms", embed_norm=True, activation="swiglu"),
}
IMAGES = reference.images(3, 2, 24, 16)
TARGETS = np.array([[4, 0, 1], [2, 2, 3]])


def make_model(**changes):
    return jax.tree.map(lambda leaf: leaf.astype("float64"), create(VisionTransformer, replace(TINY, **changes)))


@pytest.mark.parametrize("name", KINDS)
def test_contributions_sum_to_the_logit(x64, name):
    model = make_model(**KINDS[name])
    terms = jax.jit(decompose_logits)(model, IMAGES, TARGETS)
    assert terms.heads.shape == (2, 2, 3, 2)
    expected = np.take_along_axis(np.asarray(model(IMAGES)), TARGETS, axis=1)
    np.testing.assert_allclose(terms.total(), expected, rtol=1e-11, atol=1e-13)
    assert float(jnp.abs(terms.heads).min()) > 0


def test_each_contribution_is_the_product_of_its_token_with_the_frozen_norm_and_the_head(x64):
    """Of the [class] token alone, written out in numpy from the arrays of the heads."""
    model = make_model()
    outputs = model.run(IMAGES, return_outputs=True).outputs
    last = np.asarray(outputs[-1][:, 0])
    scale = 1 / np.sqrt(last.var(axis=-1) + model.config.norm_eps)
    direction = np.asarray(model.norm.scale[...])[:, None] * np.asarray(model.head.kernel[...])  # [D, C]
    direction = direction - direction.mean(axis=0)
    terms = decompose_logits(model, IMAGES, TARGETS[:, 0])
    chosen = direction[:, TARGETS[:, 0]].T * scale[:, None]  # [B, D]
    np.testing.assert_allclose(terms.embedding, (np.asarray(outputs[0][:, 0]) * chosen).sum(axis=1), rtol=1e-9)
    for layer, block in enumerate(model.blocks):
        q, k, v = block.attn.project(block.norm1(outputs[layer]), "qkv")
        heads = np.asarray(attend(q, k, v)[0])[:, 0]  # [B, H, K]
        kernel = np.asarray(block.attn.out.kernel[...]).reshape(2, 8, 16)
        expected = np.einsum("bhk,hkd,bd->bh", heads, kernel, chosen)
        np.testing.assert_allclose(terms.heads[layer], expected, rtol=1e-9, atol=1e-14)
        bias = np.asarray(block.attn.out.bias[...]) @ chosen.T
        np.testing.assert_allclose(terms.attention_bias[layer], bias, rtol=1e-9, atol=1e-14)
    constant = np.asarray(model.norm.bias[...]) @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    np.testing.assert_allclose(terms.constant, constant[TARGETS[:, 0]], rtol=1e-9)
    np.testing.assert_array_equal(terms.heads, head_contributions(model, IMAGES, TARGETS[:, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(norm_position="post"), "needs norms before the branches"),
        (dict(pooling="map"), "attention pooling is not linear"),
        (dict(representation=4), "the layer before the head has an activation"),
        (dict(attention_norm=True), "a norm between the heads and the attention's output layer"),
        (dict(num_classes=0), "no classification head"),
    ],
)
def test_models_whose_logit_is_no_sum_are_refused(change, message):
    model = create(VisionTransformer, replace(TINY, **change))
    with pytest.raises(InputError, match=message):
        head_contributions(model, IMAGES.astype(np.float32), TARGETS)


def test_every_head_ablated_once_is_one_call(x64):
    """Against models whose rows of the output layer are zero for that head."""
    model = make_model(layer_scale=True)
    logits = jax.jit(ablate_each_head)(model, IMAGES)
    mapped = jax.vmap(lambda edit: forward(model, IMAGES, edit=edit))(single_head_edits(model.config))
    np.testing.assert_allclose(mapped.reshape(logits.shape), logits, rtol=1e-12)
    assert logits.shape == (2, 2, 2, 5)
    for layer, head in np.ndindex(2, 2):
        arrays = to_arrays(model)
        kernel = np.array(arrays[f"blocks.{layer}.attn.out.kernel"])
        kernel[8 * head : 8 * head + 8] = 0
        ablated = from_arrays(model.config, arrays | {f"blocks.{layer}.attn.out.kernel": kernel})
        np.testing.assert_allclose(logits[layer, head], ablated(IMAGES), rtol=1e-9)


def test_a_replaced_head_reads_the_shift(x64):
    model = make_model()
    shift = np.random.default_rng(0).normal(size=(2, 2, 8))
    scale = jnp.ones((2, 2)).at[1, 0].set(0)
    edit = Edit(head_scale=scale, head_shift=jnp.asarray(shift) * (1 - scale)[..., None])
    arrays = to_arrays(model)
    kernel = np.array(arrays["blocks.1.attn.out.kernel"])
    bias = np.asarray(arrays["blocks.1.attn.out.bias"]) + shift[1, 0] @ kernel[:8]
    kernel[:8] = 0
    changed = {"blocks.1.attn.out.kernel": kernel, "blocks.1.attn.out.bias": bias}
    expected = from_arrays(model.config, arrays | changed)(IMAGES)
    np.testing.assert_allclose(forward(model, IMAGES, edit=edit), expected, rtol=1e-9)


def test_a_skipped_block_passes_its_tokens_on_and_no_edit_changes_nothing(x64):
    model = make_model()
    skipped = forward(model, IMAGES, edit=Edit(branch_scale=jnp.ones((2, 2)).at[0].set(0)))
    outputs = model.run(IMAGES).tokens
    np.testing.assert_allclose(forward(model, IMAGES), model.classify(model.apply_final_norm(outputs)), rtol=1e-12)
    tokens, _ = model.blocks[1](model.embed(IMAGES))
    np.testing.assert_allclose(skipped, model.classify(model.apply_final_norm(tokens)), rtol=1e-9)


def test_replaced_tokens_and_block_outputs(x64):
    """A block's output taken from other images gives these images' logits; a patch removed at the input is a zero."""
    model = make_model()
    others = reference.images(4, 2, 24, 16)
    outputs = jnp.stack(model.run(others, return_outputs=True).outputs)
    scale = jnp.ones((3, 7)).at[1].set(0)
    replaced = Edit(token_scale=scale, token_shift=outputs * (1 - scale)[:, None, :, None])
    np.testing.assert_allclose(forward(model, IMAGES, edit=replaced), model(others), rtol=1e-9)
    scale = jnp.ones((3, 7)).at[0, 3].set(0)
    output = forward_with_attention(model, IMAGES, edit=Edit(token_scale=scale))
    x = model.embed(IMAGES).at[:, 3].set(0)
    attention = []
    for block in model.blocks:
        x, weights = block(x, return_weights=True)
        attention.append(weights)
    np.testing.assert_allclose(output.logits, model.classify(model.apply_final_norm(x)), rtol=1e-9)
    np.testing.assert_allclose(output.attention, jnp.stack(attention), rtol=1e-9)
    scanned = model.run(IMAGES, edit=Edit(token_scale=scale), execution=BlockExecution(scan=True)).tokens
    np.testing.assert_allclose(scanned, x, rtol=1e-9)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(head_scale=np.ones((2, 3))), r"head_scale must be \[2, 2\] for this model, not \[2, 3\]"),
        (Edit(head_shift=np.ones((2, 2, 4))), r"head_shift must be \[2, 2, 8\]"),
        (Edit(branch_scale=np.ones(2)), r"branch_scale must be \[2, 2\]"),
        (Edit(token_scale=np.ones((2, 7))), r"token_scale must be \[3, 7\]"),
        (Edit(token_shift=np.ones((3, 3, 7, 16))), r"token_shift must be \[3, 2, 7, 16\]"),
    ],
)
def test_an_edit_of_another_shape_is_one_line(edit, message):
    model = create(VisionTransformer, TINY)
    with pytest.raises(InputError, match=message):
        forward(model, IMAGES.astype(np.float32), edit=edit)
