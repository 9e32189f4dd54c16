"""Run a few float64 steps of the engine on a synthetic data set, for tests that start their own processes.

    python -m tests.vit_jax.train.engine_run OUT CASE... [--process I --port P]

A case is devices, fsdp, accumulate, dropout, scan, remat. Devices "8>2" are 8 for the first epoch, then 2 that restore
its checkpoint. With --process this is one of two processes, which use the devices of both.
"""

import argparse
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType
from PIL import Image

from vit_jax import ImagePreprocess, VisionTransformer, ViTConfig
from vit_jax.data.dataset import Split
from vit_jax.data.loader import CachedImages, training_batches
from vit_jax.execution import BlockExecution
from vit_jax.train import distributed
from vit_jax.train.checkpoints import Checkpoints
from vit_jax.train.classify import ClassifierInputs, classification_loss
from vit_jax.train.distributed import ProcessOptions
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import Recipe
from vit_jax.train.sharding import AXIS, local_replica, place, process_rows, shard_batch
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, make_train_step

COUNT, BATCH, EPOCHS = 27, 16, 3
read: list[int] = []


def picture(index: int) -> Image.Image:
    read.append(index)
    return Image.fromarray(np.random.RandomState(index).randint(0, 256, (16, 16, 3)).astype(np.uint8))


def prepare(batch, key):
    """Flip each image at random; compute in float64."""
    images = jnp.asarray(batch.images).astype(jnp.float64) / 127.5 - 1
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return ClassifierInputs(
        jnp.where(flip, images[:, :, ::-1], images), jnp.asarray(batch.labels), jnp.asarray(batch.weights)
    )


def run(devices: int, then: int, fsdp: bool, accumulate: int, dropout: float, scan: bool, remat: str):
    """Return the arrays of the state after all epochs, then the losses of all steps."""
    config = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, num_heads=2, mlp_dim=64, num_classes=3,
                       dropout=dropout, attention_dropout=dropout)  # fmt: skip
    tx = make_optimizer(
        Recipe(model="x", epochs=1, learning_rate=1e-2), make_schedule(Recipe(model="x", epochs=1), 4), None
    )

    def prepare_step(count: int):
        model = jax.tree.map(lambda x: x.astype(jnp.float64), VisionTransformer(config, rngs=nnx.Rngs(0)))
        mesh = jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
        state = place(mesh, init_state(model, tx, averaged=True), fsdp=fsdp)
        execution = BlockExecution(scan=scan, remat=remat)
        settings = StepSettings(accumulate=accumulate, ema=0.9)
        loss = functools.partial(classification_loss, execution=execution)
        return mesh, state, make_train_step(prepare, loss, tx, settings, mesh=mesh, like=state)

    mesh, state, step = prepare_step(devices)
    split = Split([str(i) for i in range(COUNT)], (np.arange(COUNT) % 3).astype(np.int32), picture)
    pictures = CachedImages(split, ImagePreprocess((16, 16)), budget=0)
    losses, last = [], None
    for epoch in range(EPOCHS):
        if epoch == 1 and then != devices:
            with tempfile.TemporaryDirectory() as folder:
                checkpoints = Checkpoints(Path(folder))
                checkpoints.save(state, {}, step=int(state.step), score=None)
                step(state, shard_batch(mesh, last))  # reuses at once the memory of the state that is being saved
                checkpoints.wait()
                mesh, like, step = prepare_step(then)
                state, _ = checkpoints.restore(like)
                checkpoints.close()
        for batch in training_batches(pictures, BATCH, seed=1, epoch=epoch, rows=process_rows(BATCH)):
            last = batch
            state, _ = step(state, shard_batch(mesh, batch))
            losses.append(float(state.totals.loss))
    divided_parts = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    assert (divided_parts > 20) == (fsdp and then > 1), divided_parts
    replica = local_replica(mesh, state)
    return [np.asarray(x) for x in jax.tree.leaves(replica)] + [np.array(losses)]


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--process", type=int)
    parser.add_argument("--port")
    args = parser.parse_args()
    if args.process is not None:
        distributed.initialize(ProcessOptions(f"127.0.0.1:{args.port}", processes=2, process=args.process))
    arrays = {}
    for case in args.cases:
        devices, fsdp, accumulate, dropout, scan, remat = case.split(",")
        first, _, then = devices.partition(">")
        result = run(
            int(first), int(then or first), fsdp == "fsdp", int(accumulate), float(dropout), scan == "scan", remat
        )
        arrays |= {f"{case}/{i}": x for i, x in enumerate(result)}
    np.savez(args.out, read=np.array(read), **arrays)


if __name__ == "__main__":
    main()
