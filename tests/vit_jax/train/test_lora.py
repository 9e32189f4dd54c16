"""LoRA in the engine: steps that donate buffers, checkpoints, and frozen parameters, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.create import create
from vit_jax import VisionTransformer, ViTConfig
from vit_jax.checkpoint import to_arrays
from vit_jax.data.augment.transforms import Augment
from vit_jax.data.loader import Batch
from vit_jax.train.checkpoints import Checkpoints
from vit_jax.train.classify import classification_loss, make_prepare
from vit_jax.train.lora import add_lora, merge_lora
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import Recipe
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, make_train_step

CONFIG = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=8, depth=2, num_heads=2, mlp_dim=16, num_classes=3)
RECIPE = Recipe(model="x", epochs=1, learning_rate=1e-2, weight_decay=0.1, train="lora", lora_rank=2, clip_norm=1.0)


def make_model():
    model = create(VisionTransformer, CONFIG)
    model.head.kernel[...] = jax.random.normal(jax.random.key(1), (8, 3))
    return model


def start_training(dtype="float32"):
    start = add_lora(make_model(), RECIPE.lora_rank, jax.random.key(0))
    tx = make_optimizer(RECIPE, make_schedule(RECIPE, 4), start)
    prepare = make_prepare(Augment(flip=0.5), CONFIG.preprocess)

    def loss(lora_model, inputs, key):
        return classification_loss(merge_lora(lora_model, RECIPE.lora_alpha), inputs, key)

    settings = StepSettings(accumulate=2, dtype=dtype, ema=0.9)
    return init_state(start, tx, averaged=True), make_train_step(prepare, loss, tx, settings)


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        images, labels = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8), rng.integers(0, 3, 4).astype(np.int32)
        yield Batch(images, labels, np.ones(4, np.float32))


@pytest.mark.slow
def test_a_run_resumes_bitwise_from_its_checkpoint(tmp_path):
    state, step = start_training()
    checkpoints = Checkpoints(tmp_path / "c")
    for number, batch in enumerate(batches(4), start=1):
        state, _ = step(state, batch)
        if number == 2:
            checkpoints.save(state, {"best": None}, step=2, score=None)
    checkpoints.wait()
    restored, _ = checkpoints.restore(start_training()[0])
    checkpoints.close()
    for batch in list(batches(4))[2:]:
        restored, _ = step(restored, batch)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_frozen_parameters_stay_bitwise_and_merging_gives_an_ordinary_model():
    """Compute in bfloat16: the cast does not change the stored parameters."""
    before = to_arrays(make_model())
    state, step = start_training("bfloat16")
    for batch in batches(3):
        state, _ = step(state, batch)
    for lora_model in (state.model, state.average):
        for name, array in to_arrays(lora_model.base).items():
            if name.startswith("head."):
                assert np.abs(array - before[name]).max() > 1e-4
            elif lora_model is state.model:
                np.testing.assert_array_equal(array, before[name])
            else:  # a * decay + a * (1 - decay) equals a up to the last digit
                np.testing.assert_allclose(array, before[name], rtol=1e-6)
    merged = jax.jit(lambda lora_model: merge_lora(lora_model, RECIPE.lora_alpha))(state.model)
    assert isinstance(merged, VisionTransformer)
    changed = {name for name, array in to_arrays(merged).items() if not np.array_equal(array, before[name])}
    assert changed == {f"blocks.{i}.attn.{part}.kernel" for i in (0, 1) for part in ("qkv", "out")} | {
        "head.kernel",
        "head.bias",
    }
    down, up = state.model.adapters["blocks.1.attn.out.kernel"]
    expected = before["blocks.1.attn.out.kernel"] + 16.0 / 2 * np.asarray(down) @ np.asarray(up)
    np.testing.assert_allclose(merged.blocks[1].attn.out.kernel[...], expected, atol=1e-6)
    assert jnp.abs(up).max() > 1e-3
