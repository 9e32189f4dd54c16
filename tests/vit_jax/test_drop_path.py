"""Stochastic depth: the output of a block with and without it, its frequency, its rates, its precision."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.create import create
from tests.optional import torch
from vit_jax import InputError, VisionTransformer, ViTConfig, load, save
from vit_jax.attention import dropout
from vit_jax.block import Block, drop_path
from vit_jax.model import drop_path_rates

SIZES = dict(image_size=(8, 8), patch_size=(4, 4), width=8, depth=2, num_heads=2, mlp_dim=16, num_classes=3)


def block_and_tokens(count, **changes):
    block = Block(ViTConfig(**SIZES, **changes), rngs=nnx.Rngs(0))
    return block, jnp.asarray(np.random.default_rng(0).normal(size=(count, 3, 8)))


def test_every_image_has_one_of_timms_four_outputs(x64):
    """Each branch is independently dropped, or divided by the probability of keeping it."""
    rate, count = 0.3, 4000
    block, x = block_and_tokens(count)
    block = jax.tree.map(lambda p: p.astype(jnp.float64), block)
    output = jax.jit(lambda b: b(x, key=jax.random.key(5), drop_path_rate=jnp.asarray(rate, jnp.float32))[0])(block)
    keep = 1 - float(np.float32(rate))

    @jax.jit
    def expected_output(block, attention, mlp):
        y = x + attention / keep * block.attn(block.norm1(x))[0]
        return y + mlp / keep * block.mlp(block.norm2(y))

    close = {}
    for attention in (0.0, 1.0):
        for mlp in (0.0, 1.0):
            close[attention, mlp] = np.abs(output - expected_output(block, attention, mlp)).max(axis=(1, 2)) < 1e-12
    assert (sum(close.values()) == 1).all()
    for (attention, mlp), images in close.items():
        share = (keep if attention else 1 - keep) * (keep if mlp else 1 - keep)
        assert abs(images.mean() - share) < 4 * np.sqrt(share * (1 - share) / count)


def test_without_drop_path_a_block_has_the_same_random_numbers_and_output():
    block, x = block_and_tokens(4, dropout=0.2, attention_dropout=0.1)
    x, key = x.astype(jnp.float32), jax.random.key(3)

    @jax.jit
    def plain(block):
        attention_key, out_key, mlp_key = jax.random.split(key, 3)
        y = x + dropout(block.attn(block.norm1(x), key=attention_key)[0], 0.2, out_key)
        return y + dropout(block.mlp(block.norm2(y)), 0.2, mlp_key)

    np.testing.assert_array_equal(jax.jit(lambda b: b(x, key=key)[0])(block), plain(block))
    rate = jnp.asarray(0.5, jnp.float32)
    np.testing.assert_array_equal(
        jax.jit(lambda b: b(x, drop_path_rate=rate)[0])(block), jax.jit(lambda b: b(x)[0])(block)
    )  # without a key nothing is dropped


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.1])
def test_bfloat16_is_float32_rounded(rate):
    """bfloat16 cannot represent 0.997, nor uniform random numbers of that resolution."""
    branch = jnp.asarray(np.random.default_rng(0).normal(size=(20000, 1, 2)), jnp.bfloat16)
    drop = jax.jit(lambda x: drop_path(x, jnp.asarray(rate, jnp.float32), jax.random.key(0)))
    rounded, exact = drop(branch), drop(branch.astype(jnp.float32))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))
    assert abs((np.asarray(exact)[:, 0, 0] == 0).mean() - rate) < 4 * np.sqrt(rate / 20000)


@pytest.mark.parametrize("depth", [1, 2, 12])
def test_rates_grow_as_timms(depth):
    config = ViTConfig(**SIZES | {"depth": depth}, drop_path=0.2)
    np.testing.assert_allclose(drop_path_rates(config), torch.linspace(0, 0.2, depth), rtol=1e-6)
    assert drop_path_rates(ViTConfig(**SIZES)) == [None, None]
    with pytest.raises(InputError, match=r"drop_path is in \[0, 1\)"):
        ViTConfig(**SIZES, drop_path=1.0)


def test_models_saved_before_drop_path_load(tmp_path):
    model = create(VisionTransformer, ViTConfig(**SIZES))
    save(model, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    card = json.loads(path.read_text())
    del card["config"]["drop_path"]
    path.write_text(json.dumps(card))
    loaded = load(tmp_path / "m")
    assert loaded.config == model.config
    jax.tree.map(np.testing.assert_array_equal, loaded, model)
