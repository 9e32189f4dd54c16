"""The training step against torch's AdamW; devices; schedules; the run's files."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tests.reference as reference
from tests.optional import torch
from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from vit_jax.train.checkpoints import Checkpoints
from vit_jax.train.classify import ClassifierInputs, classification_loss, cross_entropy
from vit_jax.train.logging import MetricsLog, open_sinks, read_metrics
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import RECIPES, Recipe, recipe_from_dict
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, apply_step
from weights_convert import convert, export


def test_five_adamw_steps_end_in_torchs_parameters(x64):
    """PyTorch's defaults (decay 0.01 on every parameter), the same weights and batches, float64."""
    theirs = reference.tiny_torch(num_classes=7)
    model = convert(reference.state_arrays(theirs), num_heads=3)
    recipe = Recipe(model="tiny", epochs=1, learning_rate=1e-3, weight_decay=0.01)
    tx = make_optimizer(recipe, make_schedule(recipe, 5), model)
    state = init_state(model, tx)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    assert adamw.defaults["weight_decay"] == 0.01
    settings = StepSettings()
    step = jax.jit(
        lambda state, *rows: apply_step(state, ClassifierInputs(*rows), None, classification_loss, tx, settings)
    )
    theirs.eval()  # dropout off, as no key is given here
    total = 0.0
    for i in range(5):
        x = reference.images(10 + i, 4, 32, 32)
        labels = np.random.RandomState(i).randint(0, 7, 4).astype(np.int32)
        state = step(state, jnp.asarray(x), jnp.asarray(labels), jnp.ones(4))
        adamw.zero_grad()
        logits = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
        loss.backward()
        adamw.step()
        total += 4 * loss.item()
    assert abs(float(state.totals.loss) - total) < 1e-9
    assert int(state.totals.images) == 20
    ours = export(state.model, layout="lukemelas")
    moved = 0.0
    for name, array in reference.state_arrays(theirs).items():
        assert np.abs(ours[name] - array).max() < 1e-8, name
        moved = max(moved, np.abs(array - export(model, layout="lukemelas")[name]).max())
    assert moved > 1e-3


def test_rows_of_weight_zero_count_for_nothing():
    logits, labels = jnp.array([[2.0, 0.0], [0.0, 1.0], [9.0, 9.0]]), jnp.array([0, 0, 1])
    total, count, totals = cross_entropy(logits, labels, jnp.array([1.0, 1.0, 0.0]))
    mean = total / count
    expected = [-np.log(np.exp(2) / (np.exp(2) + 1)), -np.log(1 / (1 + np.e))]
    np.testing.assert_allclose(mean, np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(totals.loss, np.sum(expected), rtol=1e-6)
    assert (float(totals.correct), float(totals.images)) == (1, 2)


def test_schedules():
    constant = make_schedule(Recipe(model="x", epochs=3, learning_rate=0.1), 10)
    assert [float(constant(i)) for i in (0, 15, 29)] == pytest.approx([0.1] * 3)
    cosine = make_schedule(Recipe(model="x", epochs=3, learning_rate=0.1, schedule="cosine", warmup_epochs=1.0), 10)
    assert [float(cosine(i)) for i in (0, 5, 10, 20, 30)] == pytest.approx([0, 0.05, 0.1, 0.05, 0], abs=1e-7)
    step = make_schedule(Recipe(model="x", epochs=5, schedule="step", step_epochs=2), 10, peak=0.5)
    assert [float(step(i)) for i in (0, 19, 20, 39, 40)] == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


def test_recipes_are_written_and_read_back():
    for recipe in RECIPES.values():
        assert recipe_from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    pets = RECIPES["pets"]
    assert (pets.beta1, pets.beta2, pets.eps, pets.weight_decay) == (0.9, 0.999, 1e-8, 0.01)
    assert (pets.learning_rate, pets.batch_size, pets.image_size) == (1e-5, 16, (384, 384))
    assert (pets.augment.degrees, pets.augment.flip, pets.augment.hue) == (30, 0.5, 0.5)
    with pytest.raises(InputError, match="schedule is one of constant, cosine, step, not 'linear'"):
        Recipe(model="x", epochs=1, schedule="linear")
    with pytest.raises(InputError, match=r"weight_decay is a number of at least 0, not -1\.0"):
        Recipe(model="x", epochs=1, weight_decay=-1.0)


EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, sys
jax.config.update("jax_enable_x64", True)
from flax import nnx
from vit_jax.data.augment.transforms import Augment
from vit_jax.data.loader import Batch
from vit_jax.train.recipe import Recipe
from vit_jax.train.classify import classification_loss, make_prepare
from vit_jax.train.optim import *
from vit_jax.train.sharding import make_mesh, place, shard_batch
from vit_jax.train.state import *
from vit_jax.train.step import StepSettings, make_train_step
from vit_jax import *
config = ViTConfig(image_size=(16, 16), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=3,
                   dropout=0.1, attention_dropout=0.1)
recipe = Recipe(model="x", epochs=1, learning_rate=1e-2)
model = jax.tree.map(lambda x: x.astype(jnp.float64), VisionTransformer(config, rngs=nnx.Rngs(0)))
tx = make_optimizer(recipe, make_schedule(recipe, 4), model)
mesh = make_mesh(16)
state = place(mesh, init_state(model, tx), fsdp=False)
prepare = make_prepare(Augment(crop_scale=(0.3, 1.0), flip=0.5), config.preprocess)
step = make_train_step(prepare, classification_loss, tx, StepSettings(), mesh=mesh, like=state)
rng = np.random.RandomState(0)
for _ in range(4):
    batch = Batch(rng.randint(0, 256, (16, 16, 16, 3)).astype(np.uint8), rng.randint(0, 3, 16).astype(np.int32),
                  np.ones(16, np.float32))
    state, _ = step(state, shard_batch(mesh, batch))
assert len(jax.devices()) == int(sys.argv[2]) and len(state.step.sharding.device_set) == int(sys.argv[2])
np.savez(sys.argv[1], *[np.asarray(x) for x in jax.tree.leaves(state)])
"""


@pytest.mark.slow
def test_eight_devices_train_like_one(tmp_path):
    import os

    for count in (1, 8):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        command = [sys.executable, "-c", EIGHT_DEVICES, str(tmp_path / f"{count}.npz"), str(count)]
        subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": flags})
    one, eight = reference.load_arrays(tmp_path / "1.npz"), reference.load_arrays(tmp_path / "8.npz")
    assert len(one) > 50
    for name in one:
        # The images are augmented in float32 on either side; the sums over devices run in another order.
        np.testing.assert_allclose(one[name], eight[name], atol=1e-6)


def test_a_batch_that_the_devices_cannot_share(monkeypatch):
    from vit_jax.train import sharding

    monkeypatch.setattr(sharding.jax, "device_count", lambda: 8)
    with pytest.raises(InputError, match="batch size 20 is not divisible by the 8 devices; try 16"):
        sharding.make_mesh(20)


def tiny_state():
    tx = optax.adam(1e-3)
    params = {"w": jnp.arange(4.0), "b": jnp.zeros(2)}
    return init_state(params, tx)._replace(step=jnp.asarray(3, jnp.int32))


def test_checkpoints_keep_the_latest_and_the_best(tmp_path):
    state = tiny_state()
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() is None
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        checkpoints.restore(state)
    for step, accuracy in enumerate([0.2, 0.9, 0.4], start=1):
        checkpoints.save(state._replace(step=jnp.asarray(step)), {"best": {"a": accuracy}}, step=step, score=accuracy)
    checkpoints.close()
    again = Checkpoints(tmp_path / "c")  # another process remembers which was best
    again.save(state._replace(step=jnp.asarray(4)), {"best": None}, step=4, score=0.5)
    again.save(state._replace(step=jnp.asarray(5)), {"best": None}, step=5, score=None)
    again.wait()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["2", "4", "5"]
    restored, progress = again.restore(tiny_state())
    assert int(restored.step) == 5
    assert progress == {"best": None}
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored.model, state.model)
    other = tiny_state()._replace(model={"w": jnp.zeros(9), "b": jnp.zeros(2)})
    again.close()
    third = Checkpoints(tmp_path / "c")
    with pytest.raises(InputError, match=r"can.t resume from checkpoint 5: .*model.w is \(4,\), not \(9,\)"):
        third.restore(other)
    third.close()


def test_metrics_of_steps_that_are_done_again_are_dropped(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # truncated by a kill
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    log = MetricsLog(tmp_path, step=2, sinks=open_sinks(tmp_path, RunOptions(tensorboard=True), step=2))
    log.write({"step": 3, "loss": 0.25})
    log.close()
    assert [r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [0.5, 0.5, 0.25]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_parameter_names_are_stable():
    """Saved models store parameters under these names: a rename breaks every existing file."""
    from vit_jax import CONFIGS
    from vit_jax.checkpoint import abstract_model

    names = set(to_arrays(abstract_model(CONFIGS["Nano_6"])))
    block = {f"{m}.{p}" for m in ("attn.qkv", "attn.out", "mlp.up", "mlp.down") for p in ("kernel", "bias")}
    block |= {f"norm{i}.{p}" for i in (1, 2) for p in ("scale", "bias")}
    rest = {"class_token", "position_embedding", "norm.scale", "norm.bias", "head.kernel", "head.bias"}
    rest |= {"patch_embed.kernel", "patch_embed.bias"}
    assert names == {f"blocks.{i}.{name}" for i in range(4) for name in block} | rest
