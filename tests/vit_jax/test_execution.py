"""What the compiler is told to leave out: that it does, and that the answer stays."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from flax import nnx

from vit_jax import VisionTransformer, ViTConfig, compiler_options
from vit_jax._xla import materialize

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
    found = [
        jax.jit(two_readers, compiler_options=given).lower(jnp.ones((64, 64))).compile().as_text().count(" fusion(")
        for given in (options, {})
    ]
    assert found[0] > found[1]


@pytest.mark.parametrize("forward_only", [False, True])
def test_the_answer_stays(forward_only):
    config = ViTConfig(
        image_size=(64, 96), patch_size=(16, 16), width=96, depth=2, num_heads=4, mlp_dim=192, num_classes=5
    )
    model = VisionTransformer(config, rngs=nnx.Rngs(0))
    tokens = model.features  # a new head is all zeros
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 96, 3)).astype(np.float32)
    plain = jax.jit(tokens)(images)
    ours = jax.jit(tokens, compiler_options=compiler_options(forward_only=forward_only))(images)
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-5)
