"""Models with rotary positions, a relative position bias or no positions: attention, executions, explanations, files."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.create import create
from tests.jaxprs import WORKAROUNDS, primitives_of
from tests.vit_jax.test_variants import EXECUTIONS, create_in_float64, draw_images
from vit_jax import VisionTransformer, ViTConfig, forward_with_attention, load, save, with_image_size
from vit_jax.checkpoint import to_arrays
from vit_jax.execution import PLAIN_EXECUTION
from vit_jax.explain import METHODS
from vit_jax.explain.gradients import trace_attention
from vit_jax.explain.methods import MethodOptions
from vit_jax.position import Rotary, make_rotation, relative_position_index
from vit_jax.train.lora import add_lora, merge_lora

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=(4, 4), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=5, key_bias=False
)
INTERLEAVED = Rotary("interleaved", 1e4, coordinates="index", offset=1.0, reference_grid=(2, 3), axes="xy")
BARE = replace(CONFIG, position_table=False)
MODELS = {
    "rotary": replace(BARE, rotary=Rotary(), num_registers=2, layer_scale=True),
    "rotary and a table, normed branches": replace(
        CONFIG, rotary=INTERLEAVED, attention_norm=True, mlp_norm=True, activation="swiglu"
    ),
    "bias in each block": replace(BARE, relative_bias="blocks", posemb_resize="geometric", pooling="gap"),
    "shared bias": replace(BARE, relative_bias="shared", posemb_resize="bilinear"),
    "none": BARE,
}
pytestmark = pytest.mark.parametrize("name", MODELS)
everywhere = pytest.mark.usefixtures("x64")
forward = jax.jit(forward_with_attention, static_argnames=("layers",))
run = jax.jit(
    lambda model, images, execution=None: model(images, **({"execution": execution} if execution else {})),
    static_argnames=("execution",),
)
slopes_of = jax.jit(jax.grad(lambda model, images: jnp.square(model(images)).sum()))


def explicit_weights(model, images):
    """Return the first block's attention weights by their definition, in numpy."""
    config, block = model.config, model.blocks[0]
    grid = config.grid_for(images.shape[1:3])
    q, k, _ = block.attn.project(block.norm1(model.embed(images)), "qkv")
    if config.rotary is not None:
        rotation = make_rotation(config.rotary, grid, config.head_size, config.num_prefix, q.dtype)
        q, k = rotation(q), rotation(k)
    scores = np.einsum("bnhk,bmhk->bhnm", q, k) / config.head_size**0.5
    if config.relative_bias != "none":
        table = block.relative_bias if config.relative_bias == "blocks" else model.relative_bias
        scores += np.asarray(table[...])[relative_position_index(grid)].transpose(2, 0, 1)[None]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@everywhere
def test_attention_weights_follow_their_definition(name):
    model, images = create_in_float64(MODELS[name]), draw_images(MODELS[name])
    output = forward(model, images, layers=(0,))
    np.testing.assert_allclose(output.attention[0], explicit_weights(model, images), rtol=1e-12, atol=1e-14)


@everywhere
def test_execution_and_one_query_do_not_change_the_output(name):
    """With pooling by [class] alone the last block computes one query."""
    for size in ((8, 12), (12, 8)):
        model = create_in_float64(replace(MODELS[name], num_classes=0))
        images = draw_images(replace(MODELS[name], image_size=size))
        expected = forward(model, images).logits
        for execution in EXECUTIONS.values():
            np.testing.assert_allclose(run(model, images, execution), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 12), (48, 52)], ids=["few tokens", "attention per head"])
def test_the_fused_kernels_agree_with_the_explicit_formula(name, size):
    """In float32, whose sums are in another order."""
    model = create(VisionTransformer, replace(MODELS[name], num_classes=0))
    images = draw_images(replace(MODELS[name], image_size=size)).astype(jnp.float32)
    np.testing.assert_allclose(run(model, images), forward(model, images).logits, rtol=0, atol=2e-5)


@everywhere
def test_gradients_in_the_attention_are_finite_differences(name):
    model, images = create_in_float64(MODELS[name]), draw_images(MODELS[name], 1)
    step, entry, n = 1e-6, (0, 1, 0, 2), model.config.num_tokens

    @jax.jit
    def differentiate(model, images):
        trace = trace_attention(model, images, [0, 1])
        return trace.pull(jax.nn.one_hot(jnp.array([2]), 5, dtype=jnp.float64))[0]

    @jax.jit
    def perturb(model, images, perturbation):
        tokens = model.run(images, perturbations={0: perturbation}).tokens
        return model.classify(model.apply_final_norm(tokens))

    nudges = np.zeros((2, 2, n, n))
    nudges[:, *entry[1:]] = step, -step
    up, down = perturb(model, np.repeat(images, 2, axis=0), nudges)[:, 2]
    expected = float(up - down) / (2 * step)
    np.testing.assert_allclose(differentiate(model, images)[entry], expected, rtol=1e-5, atol=1e-8)


@everywhere
def test_a_resized_model_is_the_model_on_images_of_that_size(name):
    model, images = create_in_float64(MODELS[name]), draw_images(replace(MODELS[name], image_size=(20, 16)))
    resized = with_image_size(model, (20, 16))
    np.testing.assert_allclose(run(resized, images), run(model, images), rtol=0, atol=1e-12)


@everywhere
def test_every_parameter_is_trained_but_the_keys_bias(name):
    """The gradient reaches each through the rotation and the bias. The keys' bias has no effect either."""
    model, images = create_in_float64(MODELS[name]), draw_images(MODELS[name])
    slopes = {key: np.asarray(slope) for key, slope in to_arrays(slopes_of(model, images)).items()}
    keys = [slopes.pop(f"blocks.{i}.attn.qkv.bias") for i in range(2)]
    assert [key for key, slope in slopes.items() if not slope.any()] == []
    assert all(not slope[16:32].any() and slope[:16].all() and slope[32:].all() for slope in keys)
    before = run(model, images)
    for block in model.blocks:
        block.attn.qkv.bias[...] = block.attn.qkv.bias[...].at[16:32].add(1.0)
    np.testing.assert_array_equal(run(model, images), before)


@everywhere
def test_lora_adapts_it(name):
    model, images = create_in_float64(MODELS[name]), draw_images(MODELS[name])
    lora = add_lora(model, 2, jax.random.key(0))
    merge = jax.jit(lambda lora, images: merge_lora(lora, 2.0)(images))
    np.testing.assert_array_equal(merge(lora, images), run(model, images))
    slopes = jax.jit(jax.grad(lambda lora: jnp.square(merge(lora, images)).sum()))(lora).adapters
    assert all(np.asarray(slope.up).any() for slope in slopes.values())


def test_the_plain_program_has_no_workaround(name):
    model, images = create(VisionTransformer, MODELS[name]), draw_images(MODELS[name]).astype(jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x: model(x, execution=PLAIN_EXECUTION))(images).jaxpr
    assert not primitives_of(jaxpr) & {*WORKAROUNDS, "jit", "pjit"}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_it(name, method):
    model, images = create(VisionTransformer, MODELS[name]), draw_images(MODELS[name]).astype(jnp.float32)
    maps = METHODS[method].run(model, images, jnp.array([[0, 3], [1, 2]]), MethodOptions(steps=2, num_masks=4))
    scores = (8, 12) if METHODS[method].is_pixelwise else (6, 3) if METHODS[method].is_colour else (6,)
    assert maps.shape == (2, 2, *scores)
    assert np.isfinite(maps).all()
    assert np.asarray(maps).any()


def test_it_is_saved_and_loaded(name, tmp_path):
    config = MODELS[name]
    config = config if config.rotary is None else replace(config, rotary=replace(config.rotary, periods=(1.5, 9.25)))
    model = create(VisionTransformer, config)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.config == config
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(loaded), strict=True))
