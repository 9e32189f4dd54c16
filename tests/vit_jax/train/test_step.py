"""The parts of a training step against plain formulas, and the loop on a task that compiles quickly."""

import functools
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import caption
from caption.data.loader import CaptionBatch
from caption.train import task as caption_step
from caption.train.recipe import RECIPES as CAPTION_RECIPES
from tests.create import create
from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.attention import dropout
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.execution import BlockExecution
from vit_jax.precision import cast
from vit_jax.train import classify, memory
from vit_jax.train import run as session
from vit_jax.train.logging import read_metrics
from vit_jax.train.loop import TrainTask
from vit_jax.train.options import RunOptions
from vit_jax.train.run import run_task
from vit_jax.train.sharding import make_mesh, partition_spec
from vit_jax.train.state import Totals, init_state
from vit_jax.train.step import StepSettings, TaskLoss, apply_step, compute_gradient, make_train_step

CONFIG = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=16, depth=3, num_heads=2, mlp_dim=32, num_classes=3,
                   dropout=0.1, attention_dropout=0.1)  # fmt: skip


def vit():
    """Return a ViT with a random head: a head of zeros would pass no gradient to the layers below."""
    model = create(VisionTransformer, CONFIG)
    arrays = to_arrays(model)
    kernel = jax.random.normal(jax.random.key(1), arrays["head.kernel"].shape, jnp.float32)
    return from_arrays(CONFIG, arrays | {"head.kernel": kernel})


def inputs(count=8):
    rng = np.random.default_rng(0)
    weights = np.ones(count, np.float32)
    weights[-3:] = 0
    images, labels = rng.normal(size=(count, 8, 8, 3)), rng.integers(0, 3, count)
    return classify.ClassifierInputs(jnp.asarray(images), jnp.asarray(labels, jnp.int32), jnp.asarray(weights))


def largest_difference(a, b):
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def to_float64(model):
    return jax.tree.map(lambda x: x.astype(jnp.float64), model)


EXECUTIONS = [
    BlockExecution(scan=True, remat="dots"),
    pytest.param(BlockExecution(remat="full"), marks=pytest.mark.slow),
    pytest.param(BlockExecution(scan=True), marks=pytest.mark.slow),
    pytest.param(BlockExecution(remat="dots"), marks=pytest.mark.slow),
    pytest.param(BlockExecution(scan=True, remat="full"), marks=pytest.mark.slow),
]


@functools.cache
def compute_vit_gradient(execution):
    model, rows = to_float64(vit()), inputs()
    loss = functools.partial(classify.classification_loss, execution=execution)
    return jax.jit(lambda m, r: compute_gradient(loss, m, r, jax.random.key(3), StepSettings()))(model, rows)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
def test_every_execution_mode_gives_the_same_gradient(execution, x64):
    expected = compute_vit_gradient(BlockExecution())
    assert largest_difference(compute_vit_gradient(execution), expected) < 1e-12


def captions(count=6):
    rng = np.random.default_rng(1)
    tokens = rng.integers(4, 32, (count, 10)).astype(np.int32)
    for row in range(count):
        tokens[row, 3 + row :] = 0
    mask = np.ones((count, 64, 64), bool)
    mask[:, 50:] = False
    images = rng.normal(size=(count, 64, 64, 3)) * mask[..., None]
    return CaptionBatch(images, mask, tokens, np.array([1.0] * (count - 1) + [0.0]))


@pytest.fixture
def captioner(x64):
    return to_float64(create(caption.CaptionTransformer, caption.CONFIGS["scenes"]))


@pytest.mark.slow
def test_every_execution_mode_gives_a_captioner_the_same_gradient(captioner):
    batch = jax.tree.map(jnp.asarray, captions(2))

    def gradient(execution):
        def loss(model, batch):
            result = caption_step.captioning_loss(
                model, batch, None, recipe=CAPTION_RECIPES["scenes"], execution=execution
            )
            return result.total / result.divisor

        return jax.jit(jax.grad(loss))(captioner, batch)

    expected = gradient(BlockExecution())
    for execution in (BlockExecution(scan=True), BlockExecution(remat="full"), BlockExecution(scan=True, remat="dots")):
        assert largest_difference(gradient(execution), expected) < 1e-12, execution


def test_accumulated_captions_count_tokens_not_parts(captioner):
    """The parts have different numbers of tokens: the mean over all of them is not the mean of the parts' means."""

    def loss(model, batch, key):
        return caption_step.captioning_loss(model, batch, None, recipe=CAPTION_RECIPES["scenes"])

    batch = jax.tree.map(jnp.asarray, captions())
    results = [
        jax.jit(lambda m, b, n=n: compute_gradient(loss, m, b, None, StepSettings(accumulate=n)))(captioner, batch)
        for n in (1, 3)
    ]
    assert largest_difference(results[0][::2], results[1][::2]) < 1e-12


def test_bfloat16_computes_in_it_and_keeps_float32():
    model, rows = vit(), jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, inputs())
    tx = optax.adamw(1e-3)
    after = {}
    for dtype in ("float32", "bfloat16"):
        step = jax.jit(
            lambda s, r, d=dtype: apply_step(s, r, None, classify.classification_loss, tx, StepSettings(dtype=d))
        )
        after[dtype] = step(init_state(model, tx), rows)
    assert {leaf.dtype for leaf in jax.tree.leaves(after["bfloat16"].model)} == {jnp.dtype("float32")}
    a, b = (float(after[dtype].totals.loss) for dtype in ("float32", "bfloat16"))
    assert 0 < abs(a - b) < 0.02 * a
    jaxpr = str(jax.make_jaxpr(lambda m: classify.classification_loss(cast(m, "bfloat16"), rows, None).total)(model))
    products = [line for line in jaxpr.splitlines() if "dot_general" in line]
    # All but the scores of the attention, which are summed in float32.
    assert sum(":bf16[" in line.split("=")[0] for line in products) >= 4 * CONFIG.depth + 2


def test_the_average_follows_its_formula(x64):
    tx = optax.sgd(0.5)
    state = init_state({"w": jnp.array([1.0, 2.0])}, tx, averaged=True)

    def loss_of(model, inputs, key):
        total = (model["w"] * inputs["x"]).sum()
        return TaskLoss(total, jnp.asarray(1.0), Totals(total, total, jnp.asarray(1.0)))

    weights, average = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    for t in range(30):
        x = np.array([0.1 * t, -0.2])
        state = apply_step(state, {"x": jnp.asarray(x)}, None, loss_of, tx, StepSettings(ema=0.6))
        weights = weights - 0.5 * x
        decay = min(0.6, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * weights
    np.testing.assert_allclose(state.average["w"], average, rtol=1e-12)
    np.testing.assert_allclose(state.eval_params["w"], average, rtol=1e-12)


def test_the_average_of_a_frozen_parameter_equals_it():
    weights = {"w": jax.random.normal(jax.random.key(0), (1000,))}

    def loss_of(model, inputs, key):
        total = model["w"].sum()
        return TaskLoss(total, jnp.asarray(1.0), Totals(total, total, jnp.asarray(1.0)))

    state = init_state(weights, optax.set_to_zero(), averaged=True)
    step = jax.jit(lambda s: apply_step(s, {}, None, loss_of, optax.set_to_zero(), StepSettings(ema=0.99)))
    for _ in range(5):
        state = step(state)
    np.testing.assert_array_equal(state.average["w"], weights["w"])


def test_dropout_in_bfloat16_keeps_the_mean():
    output = dropout(jnp.ones((4,), jnp.bfloat16), 0.2, jax.random.key(1))
    assert set(np.asarray(output, np.float32).tolist()) <= {0.0, 1.25}


def test_how_arrays_are_sharded():
    assert [tuple(partition_spec(shape, 8)) for shape in [(64, 128), (63, 64), (1, 8), (2048,), (63, 33), (16, 2, 64)]] == [
        (None, "data"), (None, "data"), (), ("data",), (), (None, None, "data"),
    ]  # fmt: skip
    assert tuple(partition_spec((64, 128), 1)) == ()


class Tiny:
    """A task that trains w towards the mean of ten numbers, one number a step."""

    def __init__(self, rate=0.1, epochs=3, bad_step=None, **settings):
        self.best_epochs, self.settings = [], StepSettings(**settings)
        self.rate, self.epochs, self.bad_step = rate, epochs, bad_step

    def batches(self, epoch, start):
        for index in range(start, 10):
            bad = epoch * 10 + index + 1 == self.bad_step
            yield {"x": jnp.full((4, 1), np.nan if bad else float(index))}

    def loss_of(self, model, inputs, key):
        total = ((model["w"] - inputs["x"]) ** 2).sum()
        count = jnp.asarray(float(inputs["x"].shape[0]))
        return TaskLoss(total, count, Totals(total, count, count))

    def task(self, **more):
        return TrainTask(
            model={"w": jnp.zeros(())}, tx=optax.sgd(self.rate), prepare=lambda batch, key: batch, loss_of=self.loss_of,
            settings=self.settings, batches=self.batches, batch_size=4, steps_per_epoch=10, epochs=self.epochs,
            validate=lambda model: {"val_loss": float(abs(model["w"] - 4.5)), "val_accuracy": 0.0},
            score=lambda record: -record["val_loss"], keep_best=lambda model, record: self.best_epochs.append(record["epoch"]),
            **more,
        )  # fmt: skip

    def run(self, folder: Path, *, resume=False, options=None, **more):
        folder.mkdir(exist_ok=True)
        (folder / "best").write_text("")
        options = options or RunOptions(memory_check=False)
        return run_task(folder, self.task(**more), make_mesh(4), options, resume=resume, best_file=folder / "best")


def test_training_ends_early_without_a_better_epoch(tmp_path, capsys):
    tiny = Tiny(rate=0.0, epochs=9)
    assert int(tiny.run(tmp_path / "r", patience=2).state.step) == 30
    assert "no improvement in 2 epochs: stopped early" in capsys.readouterr().out
    assert tiny.best_epochs == [1]
    assert int(Tiny(rate=0.0, epochs=9).run(tmp_path / "r", patience=2, resume=True).state.step) == 30


def test_a_non_finite_loss_is_reported_with_its_step_and_the_last_good_state_is_kept(tmp_path):
    message = "non-finite loss at step 17; the checkpoint of step 10 is kept"
    with pytest.raises(InputError, match=message):
        Tiny(bad_step=17).run(tmp_path / "r")
    resumed = Tiny().run(tmp_path / "r", resume=True)  # with good data it resumes from there
    uninterrupted = Tiny().run(tmp_path / "alone")
    assert float(resumed.state.model["w"]) == float(uninterrupted.state.model["w"])
    assert [r["val_loss"] for r in read_metrics(tmp_path / "r" / "metrics.jsonl")] == [
        r["val_loss"] for r in read_metrics(tmp_path / "alone" / "metrics.jsonl")
    ]


def find_largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_torn_checkpoint_is_skipped_with_a_warning(tmp_path, capsys):
    uninterrupted = Tiny(epochs=4).run(tmp_path / "r")
    checkpoints = tmp_path / "r" / "checkpoints"
    assert sorted(int(p.name) for p in checkpoints.iterdir()) == [10, 30, 40]  # the best and the last two
    for file in [p for p in (checkpoints / "40" / "state").rglob("*") if p.is_file() and "ocdbt" in str(p)]:
        file.write_bytes(file.read_bytes()[:5])
    resumed = Tiny(epochs=4).run(tmp_path / "r", resume=True)
    assert "skipped: " in (printed := capsys.readouterr()).err
    assert "checkpoint 40 can't be read" in printed.err
    assert "resuming at step 30" in printed.out
    assert float(resumed.state.model["w"]) == float(uninterrupted.state.model["w"])


def test_the_best_model_is_written_again_after_a_kill_lost_it(tmp_path):
    Tiny(epochs=2).run(tmp_path / "r")
    (tmp_path / "r" / "best").unlink()
    tiny = Tiny(epochs=2)
    task, options = tiny.task(), RunOptions(memory_check=False)
    run_task(tmp_path / "r", task, make_mesh(4), options, resume=True, best_file=tmp_path / "r" / "best")
    best = max(read_metrics(tmp_path / "r" / "metrics.jsonl"), key=lambda record: -record["val_loss"])
    assert tiny.best_epochs == [best["epoch"]] == [1]


def test_checkpoints_within_an_epoch(tmp_path, monkeypatch):
    saved = []
    original = session.Checkpoints.save

    def save(self, state, progress, *, step, score):
        saved.append((step, score is None))
        original(self, state, progress, step=step, score=score)

    monkeypatch.setattr(session.Checkpoints, "save", save)
    Tiny(epochs=1).run(tmp_path / "r", options=RunOptions(save_minutes=1e-9))
    assert saved == [*((step, True) for step in range(1, 10)), (10, False)]


def test_the_memory_of_a_step_is_reported_and_an_accumulation_that_fits_is_suggested(tmp_path, capsys, monkeypatch):
    rows = 64

    class Wide(Tiny):
        def batches(self, epoch, start):
            for index in range(start, 10):
                yield {"x": jnp.full((rows, 1000), float(index))}

        def loss_of(self, model, inputs, key):
            wide = jnp.tanh(inputs["x"][:, :, None] * model["w"] * jnp.arange(64.0).reshape(1, 1, 64))
            total = (wide @ wide.swapaxes(1, 2)).sum()
            count = jnp.asarray(float(inputs["x"].shape[0]))
            return TaskLoss(total, count, Totals(total, count, count))

        def task(self, **more):
            return super().task(**more)._replace(batch_size=rows)

    def measure_memory(count):
        task = Wide(accumulate=count).task()
        step = make_train_step(task.prepare, task.loss_of, task.tx, task.settings)
        state = init_state(task.model, task.tx)
        return memory.memory_use(step.lower(state, next(task.batches(0, 0))).compile())

    one, four = measure_memory(1), measure_memory(4)
    assert one.state >= rows * 1000 * 4
    assert one.total > rows * 1000 * 1000 * 4  # the largest product
    assert one.total > 3 * four.total
    monkeypatch.setattr(memory, "resident_bytes", lambda: 0)  # the steps alone
    monkeypatch.setattr(session, "available_bytes", lambda: four.total + 10**6)
    with pytest.raises(InputError, match=r"training needs .* GB per device .*: --accumulate 4 fits .*--batch-size 16"):
        Wide().run(tmp_path / "r", options=RunOptions())
    assert "memory: training needs about" in capsys.readouterr().out
    monkeypatch.setattr(session, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match="no accumulation fits; give --remat full"):
        Wide().run(tmp_path / "s", options=RunOptions())
    assert memory.available_bytes() > 10**8


@pytest.mark.parametrize("is_large", [True, False])
def test_a_step_with_large_buffers_is_done_before_the_next_one_is_dispatched(monkeypatch, is_large):
    """A CPU allocates the buffers of every step in flight, and the plan counts those of one."""

    class Slow(Tiny):
        def loss_of(self, model, inputs, key):
            wide = jnp.full((400, 400), model["w"].sum())
            total = inputs["x"].sum() + jax.lax.fori_loop(0, 200, lambda _, x: jnp.tanh(x @ x), wide).sum()
            count = jnp.asarray(float(inputs["x"].shape[0]))
            return TaskLoss(total, count, Totals(total, count, count))

    monkeypatch.setattr(memory, "LARGE_WORK", 0 if is_large else 10**12)
    task = Slow().task()._replace(batch_size=4)
    step = session._CompiledStep(task, make_mesh(4), RunOptions(), is_saved=False)
    state = session.place(make_mesh(4), init_state(task.model, task.tx), fsdp=False)
    is_ready = []
    for batch, _ in zip(task.batches(0, 0), range(3), strict=False):
        state, done = step(state, batch)
        is_ready.append(done.is_ready())
    jax.block_until_ready(state)
    assert is_ready[0]  # its time is that of the compilation
    assert is_ready[1:] == [is_large, is_large]


def test_the_plan_counts_the_process_and_the_copy_that_is_saved(monkeypatch):
    state = init_state({"w": jnp.zeros(1000)}, optax.adam(1e-3))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    monkeypatch.setattr(memory, "resident_bytes", lambda: 10**6 * jax.local_device_count())
    need = memory.MemoryUse(state=size, work=500)
    assert memory.host_use(need, state, is_saved=True, epochs=2) == (10**6 - size, 2 * size, True)
    assert memory.host_use(need, state, is_saved=False, epochs=1) == (10**6 - size, 4000, False)
    assert memory.HostUse(3, 4, overlap=True).total(memory.MemoryUse(1, 2)) == 10
    assert memory.HostUse(3, 4, overlap=False).total(memory.MemoryUse(1, 2)) == 8
    line = memory.format_memory(memory.MemoryUse(10**9, 2 * 10**9), memory.HostUse(3 * 10**9, 4 * 10**9), 10**10)
    assert line == (
        "memory: training needs about 8.00 GB of 10.0 GB per device (1.00 for state and batch, 2.00 for temporary "
        "buffers, or 4.00 for copies to save, 3.00 for the process)"
    )


def test_running_out_of_memory_is_reported(tmp_path, monkeypatch):
    class Full(session._CompiledStep):
        def __call__(self, state, batch):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(session, "_CompiledStep", Full)
    with pytest.raises(InputError, match="out of memory with batches of 4: give --accumulate 2"):
        Tiny().run(tmp_path / "r")


def test_accumulation_that_does_not_divide_the_batch(tmp_path):
    with pytest.raises(InputError, match="--accumulate 3 does not divide the 4 rows"):
        Tiny(accumulate=3).run(tmp_path / "r")


def test_a_profile_is_traced(tmp_path, capsys):
    Tiny(epochs=1).run(tmp_path / "r", options=RunOptions(profile=2))
    assert find_largest_file(tmp_path / "r" / "profile").stat().st_size > 1000
    assert "profile: 2 steps traced into" in capsys.readouterr().out


def test_weights_and_biases_get_every_record_and_one_run(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values["epoch"]))

        def finish(self):
            calls.append("finished")

    def init(**options):
        calls.append((options["project"], options["id"], options["resume"]))
        return Run()

    fake = types.SimpleNamespace(init=init, util=types.SimpleNamespace(generate_id=lambda: "abc"))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    options = RunOptions(wandb="pets", memory_check=False)
    Tiny(epochs=2).run(folder, options=options)
    fake.util.generate_id = None  # a resumed run keeps its own
    Tiny(epochs=3).run(folder, options=options, resume=True)
    started = ("pets", "abc", "allow")
    assert calls == [started, (10, 1), (20, 2), "finished", started, (30, 3), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="--wandb needs wandb; pip install wandb"):
        Tiny().run(folder, options=options)
