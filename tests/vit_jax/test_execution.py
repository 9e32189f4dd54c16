"""compiler_options() skip the named compiler passes without changing values; the plain mode has no workaround."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from flax import nnx

from tests.create import create
from tests.jaxprs import primitives_of, product_types
from vit_jax import VisionTransformer, ViTConfig, compiler_options
from vit_jax._xla import can_truncate_last_block, materialize
from vit_jax.execution import PLAIN_EXECUTION
from vit_jax.precision import cast

known = pytest.mark.skipif(
    jaxlib.__version__ != "0.10.2" or jax.default_backend() != "cpu", reason="nothing is changed here"
)


@known
@pytest.mark.parametrize("forward_only", [False, True])
def test_long_sums_are_in_windows_only_where_there_is_a_gradient(forward_only):
    program = jax.jit(lambda x: x.sum(axis=-1), compiler_options=compiler_options(forward_only=forward_only))
    text = program.lower(jnp.ones((8, 1000))).compile().as_text()
    assert ("reduce-window" in text) == (not forward_only)


@known
@pytest.mark.parametrize("forward_only", [False, True])
def test_what_is_materialized_is_not_fused_into_its_readers(forward_only):
    def two_readers(x):
        sum_ = materialize(jnp.sin(x) + x)
        return jnp.cos(sum_) * sum_.T

    options = compiler_options(forward_only=forward_only)
    fusions = [
        jax.jit(two_readers, compiler_options=compiler_flags)
        .lower(jnp.ones((64, 64)))
        .compile()
        .as_text()
        .count(" fusion(")
        for compiler_flags in (options, {})
    ]
    assert fusions[0] > fusions[1]


@pytest.mark.parametrize("forward_only", [False, True])
def test_compiler_options_do_not_change_the_output(forward_only):
    config = ViTConfig(
        image_size=(64, 96), patch_size=(16, 16), width=96, depth=2, num_heads=4, mlp_dim=192, num_classes=5
    )
    model = create(VisionTransformer, config)
    tokens = model.features  # a new head is all zeros
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 96, 3)).astype(np.float32)
    plain = jax.jit(tokens)(images)
    ours = jax.jit(tokens, compiler_options=compiler_options(forward_only=forward_only))(images)
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {},
        dict(image_size=(512, 512)),  # 1,024 patches: with the workarounds, one head at a time
        dict(activation="gelu_tanh"),
        dict(activation="quick_gelu"),
        dict(activation="swiglu"),
        dict(pooling="map", final_norm="none", class_token=False),
        dict(num_registers=2, layer_scale=True, pre_norm=True, patch_norms=True, representation=8),
    ],
    ids=str,
)
def test_the_plain_forward_pass_has_no_workaround(change):
    """OpenVINO's JAX front end converts it: no barrier, rematerialization, split, stack or nested jit; same features."""
    settings = dict(image_size=(32, 32), width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=3)
    config = ViTConfig(**settings | change)
    model = create(VisionTransformer, config)
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, *config.image_size, 3)), jnp.float32)
    plain = primitives_of(jax.make_jaxpr(partial(model, execution=PLAIN_EXECUTION))(images).jaxpr)
    usual = primitives_of(jax.make_jaxpr(model)(images).jaxpr)
    assert not plain & {
        "optimization_barrier",
        "remat2",
        "checkpoint",
        "remat",
        "split",
        "stack",
        "name",
        "jit",
        "pjit",
    }
    assert "optimization_barrier" in usual
    features = model.features(images, execution=PLAIN_EXECUTION)  # a new head is all zeros
    np.testing.assert_allclose(features, model.features(images), rtol=0, atol=1e-5)  # float32, sums in another order


@pytest.mark.parametrize(
    ("size", "pooling"),
    [pytest.param(64, "cls", marks=pytest.mark.slow), (96, "cls"), pytest.param(96, "gap", marks=pytest.mark.slow)],
    ids=["few tokens", "attention per head, the last of [class] alone", "attention per head"],
)
def test_a_bfloat16_gradient_is_the_float32_one(size, pooling):
    """On a CPU, where attention runs per head, every product of the gradient multiplies bfloat16."""
    config = ViTConfig(
        image_size=(size, size), patch_size=(8, 8), width=128, depth=2, num_heads=2, num_classes=5, pooling=pooling
    )
    model = jax.jit(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))()
    model.head.kernel[...] = jax.random.normal(jax.random.key(0), model.head.kernel.shape)
    images = jax.random.uniform(jax.random.key(1), (2, size, size, 3), minval=-1, maxval=1)

    def loss(model, images):
        return jnp.square(model(images).astype(jnp.float32)).sum()

    def gradient(dtype):
        gradients = jax.jit(jax.grad(loss))(*cast((model, images), dtype))
        return jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in jax.tree.leaves(gradients)])

    exact, half = gradient("float32"), gradient("bfloat16")
    assert jnp.linalg.norm(half - exact) < 0.02 * jnp.linalg.norm(exact)  # bfloat16 has 8 bits
    if pooling == "gap" and jax.default_backend() == "cpu" and jaxlib.__version__ != "0.10.2":
        program = jax.make_jaxpr(jax.grad(loss))(*cast((model, images), "bfloat16"))
        assert product_types(program) == {("bfloat16", "bfloat16")}


def test_the_last_block_computes_the_class_query_alone(monkeypatch):
    """Not in bfloat16 on a CPU by jaxlib 0.10.2."""
    assert can_truncate_last_block(jnp.dtype("float32"))
    assert can_truncate_last_block(jnp.dtype("bfloat16"), workarounds=False)
    for version, backend, expected in (("0.10.2", "cpu", False), ("0.10.2", "gpu", True), ("0.12.0.1", "cpu", True)):
        monkeypatch.setattr(jaxlib, "__version__", version)
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert can_truncate_last_block(jnp.dtype("bfloat16")) is expected
