"""Settings beyond the plain recipe, compared with torch and plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tests.reference as reference
from tests.optional import torch
from vit_jax import InputError, VisionTransformer, ViTConfig
from vit_jax.block import drop_path
from vit_jax.checkpoint import to_arrays
from vit_jax.data.augment.mix import MixConfig, cutmix, mix_batch, mixup, partner_rows
from vit_jax.execution import BlockExecution
from vit_jax.train.classify import ClassifierInputs, classification_loss, cross_entropy
from vit_jax.train.lora import ATTENTION, MLP, add_lora, merge_lora
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import Recipe
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, apply_step
from weights_convert import convert, export

STEPS = 4


def batches():
    for i in range(STEPS):
        x = reference.images(10 + i, 4, 32, 32)
        yield x, np.random.RandomState(i).randint(0, 7, 4).astype(np.int32)


def train(recipe, model, loss=classification_loss):
    """Return the state after a few float64 steps."""
    tx = make_optimizer(recipe, make_schedule(recipe, STEPS), model)
    state = init_state(model, tx)
    step = jax.jit(lambda state, *rows: apply_step(state, ClassifierInputs(*rows), None, loss, tx, StepSettings()))
    for x, labels in batches():
        state = step(state, jnp.asarray(x), jnp.asarray(labels), jnp.ones(4))
    return state


def train_torch(theirs, parameters, clip=0.0, forward=None, eps=1e-8):
    rule = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01, eps=eps)
    theirs.eval()
    for x, labels in batches():
        rule.zero_grad()
        images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        logits = theirs(images) if forward is None else forward(images)
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long()).backward()
        if clip:
            trained = [p for group in rule.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, clip)
        rule.step()


def make_recipe(**more):
    return Recipe(model="tiny", epochs=1, learning_rate=1e-2, **more)


@pytest.fixture
def theirs(x64):
    model = reference.tiny_torch(num_classes=7)
    torch.nn.init.normal_(model.fc.weight, generator=torch.Generator().manual_seed(0))
    return model


def test_layer_decay_is_torchs_parameter_groups(theirs):
    model = convert(reference.state_arrays(theirs), num_heads=3)
    depth, decay = len(model.blocks), 0.5

    def layer(name):
        if name.startswith("transformer.blocks."):
            return int(name.split(".")[2]) + 1
        return depth + 1 if name.startswith(("fc.", "norm.")) else 0

    groups = [{"params": [p], "lr": 1e-2 * decay ** (depth + 1 - layer(n))} for n, p in theirs.named_parameters()]
    state = train(make_recipe(layer_decay=decay), model)
    train_torch(theirs, groups)
    ours = export(state.model, layout="lukemelas")
    for name, array in reference.state_arrays(theirs).items():
        assert np.abs(ours[name] - array).max() < 1e-8, name


def test_clipping_is_torchs(theirs):
    model = convert(reference.state_arrays(theirs), num_heads=3)
    plain, clipped = (train(make_recipe(eps=1e-3, clip_norm=c), model).model for c in (0.0, 0.05))
    train_torch(theirs, theirs.parameters(), clip=0.05, eps=1e-3)
    ours, other = export(clipped, layout="lukemelas"), export(plain, layout="lukemelas")
    for name, array in reference.state_arrays(theirs).items():
        assert np.abs(ours[name] - array).max() < 1e-8, name
    assert max(np.abs(ours[name] - other[name]).max() for name in ours) > 1e-4


def test_the_head_alone(theirs):
    model = convert(reference.state_arrays(theirs), num_heads=3)
    before = {name: np.asarray(array) for name, array in to_arrays(model).items()}
    state = train(make_recipe(train="head"), model)
    train_torch(theirs, theirs.fc.parameters())
    after = to_arrays(state.model)
    for name in before:
        if not name.startswith("head."):
            np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_allclose(after["head.kernel"], theirs.fc.weight.detach().numpy().T, atol=1e-9)
    assert np.abs(after["head.kernel"] - before["head.kernel"]).max() > 1e-3
    sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
    assert max(sizes) == before["head.kernel"].size  # frozen parameters have no optimizer state
    assert sum(sizes) < 3 * (before["head.kernel"].size + before["head.bias"].size)


def test_clipping_uses_the_norm_of_the_trained_parameters(theirs):
    model = convert(reference.state_arrays(theirs), num_heads=3)
    state = train(make_recipe(train="head", eps=1e-3, clip_norm=0.05), model)
    train_torch(theirs, theirs.fc.parameters(), clip=0.05, eps=1e-3)
    np.testing.assert_allclose(state.model.head.kernel[...], theirs.fc.weight.detach().numpy().T, atol=1e-9)


PLACES = {"attn.out": "proj", "mlp.up": "pwff.fc1", "mlp.down": "pwff.fc2"}  # in the original's blocks


@pytest.mark.parametrize("targets", [pytest.param(ATTENTION, marks=pytest.mark.slow), (*ATTENTION, *MLP)])
def test_lora_against_torch(theirs, targets):
    rank, alpha = 2, 3.0
    model = convert(reference.state_arrays(theirs), num_heads=3)
    start = add_lora(model, rank, jax.random.key(0), targets)
    assert len(start.adapters) == len(targets) * len(model.blocks)
    for old, new in zip(jax.tree.leaves(model), jax.tree.leaves(merge_lora(start, alpha)), strict=True):
        np.testing.assert_array_equal(old, new)
    adapters = {
        name: [torch.tensor(np.asarray(x), requires_grad=True) for x in pair] for name, pair in start.adapters.items()
    }

    def forward(images):
        changed = dict(theirs.named_parameters())
        for name, (down, up) in adapters.items():
            _, index, *part, _ = name.split(".")
            part, delta = ".".join(part), (alpha / rank * down @ up).T
            split = [f"attn.{p}" for p in ("proj_q", "proj_k", "proj_v")] if part == "attn.qkv" else [PLACES[part]]
            for place, rows in zip(split, delta.chunk(len(split)), strict=True):
                weight = f"transformer.blocks.{index}.{place}.weight"
                changed[weight] = changed[weight].detach() + rows
        return torch.func.functional_call(theirs, changed, (images,))

    def loss(lora_model, inputs, key):
        return classification_loss(merge_lora(lora_model, alpha), inputs, key)

    lora_model = train(make_recipe(train="lora", lora_rank=rank), start, loss).model
    learning = [x for pair in adapters.values() for x in pair] + list(theirs.fc.parameters())
    train_torch(theirs, learning, forward=forward)
    for name, pair in adapters.items():
        for ours, x in zip(lora_model.adapters[name], pair, strict=True):
            np.testing.assert_allclose(ours, x.detach().numpy(), atol=1e-8)
        assert np.abs(lora_model.adapters[name].up).max() > 1e-3
    np.testing.assert_allclose(lora_model.base.head.kernel[...], theirs.fc.weight.detach().numpy().T, atol=1e-8)
    jax.tree.map(np.testing.assert_array_equal, lora_model.base.blocks, model.blocks)
    with pytest.raises(InputError, match="rank of at least 1 and targets among"):
        add_lora(model, rank, jax.random.key(0), ("head.kernel",))


def test_label_smoothing_is_torchs(x64):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)), rng.integers(0, 4, 5).astype(np.int32)
    ours = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(5), label_smoothing=0.1)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(torch.tensor(logits), torch.tensor(labels).long())
    np.testing.assert_allclose(ours.total / ours.divisor, theirs, rtol=1e-12)
    shares = rng.dirichlet(np.ones(4), 5)
    soft = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(5), shares=jnp.asarray(shares))
    np.testing.assert_allclose(
        soft.total / 5, torch.nn.CrossEntropyLoss()(torch.tensor(logits), torch.tensor(shares)), rtol=1e-12
    )
    assert float(soft.totals.correct) == (logits.argmax(1) == labels).sum()
    options = dict(shares=jnp.asarray(shares), label_smoothing=0.1)
    ours = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(5), **options)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(torch.tensor(logits), torch.tensor(shares))
    np.testing.assert_allclose(ours.total / ours.divisor, theirs, rtol=1e-12)


def images_and_shares(count=6, classes=3):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(count, 10, 12, 3)).astype(np.float32)
    return jnp.asarray(images), jax.nn.one_hot(jnp.arange(count) % classes, classes)


def test_mixup_and_cutmix_follow_their_formulas():
    images, shares = images_and_shares()
    weights = jnp.array([1.0, 1, 1, 1, 0, 0])
    partners = partner_rows(weights)
    assert partners.tolist() == [3, 0, 1, 2, 4, 5]
    x, y = np.asarray(images), np.asarray(shares)
    mixed, target = mixup(images, shares, partners, jnp.asarray(0.3))
    np.testing.assert_allclose(mixed[1], 0.3 * x[1] + 0.7 * x[0], rtol=1e-5)
    np.testing.assert_allclose(target[1], 0.3 * y[1] + 0.7 * y[0], rtol=1e-6)
    np.testing.assert_allclose(mixed[4:], x[4:], rtol=1e-5)
    # A share of 0.75 leaves a box of half the sides, here cut at the right edge: rows 2 to 6, columns 7 to 12.
    mixed, target = cutmix(images, shares, partners, jnp.asarray(0.75), (jnp.asarray(4), jnp.asarray(10)))
    expected = x.copy()
    expected[:, 2:6, 7:12] = x[np.asarray(partners), 2:6, 7:12]
    np.testing.assert_array_equal(mixed, expected)
    share = 1 - 4 * 5 / 120
    np.testing.assert_allclose(target, share * y + (1 - share) * y[np.asarray(partners)], rtol=1e-6)


def test_the_random_numbers_of_mixing():
    images, shares = images_and_shares()
    weights = jnp.ones(6)

    def compute_own_share(key, mixing):  # the first image's share of itself; its partner is of another class
        return mix_batch(key, images, shares, weights, mixing)[1][0, 0]

    keys = jax.random.split(jax.random.key(0), 4000)
    uniform = np.sort(np.asarray(jax.jit(jax.vmap(lambda k: compute_own_share(k, MixConfig(1.0, 0, 3))))(keys)))
    np.testing.assert_allclose(uniform, (np.arange(4000) + 0.5) / 4000, atol=0.03)  # Beta(1, 1)
    boxes = jax.jit(jax.vmap(lambda k: compute_own_share(k, MixConfig(0, 1.0, 3))))(keys)
    assert 0.5 < float(boxes.mean()) < 0.75  # boxes cut at the edges leave more than half
    both = jax.jit(jax.vmap(lambda k: mix_batch(k, images, shares, weights, MixConfig(0.1, 1.0, 3))[0]))(keys[:400])
    pasted = (both[:, :, 0, 0, 0] == images[None, :, 0, 0, 0]).all(axis=1).mean()  # a box seldom has the corner
    assert 0.35 < float(pasted) < 0.6


def test_drop_path_drops_whole_images(x64):
    branch = jnp.ones((4000, 2, 3))
    dropped = np.asarray(drop_path(branch, jnp.asarray(0.25), jax.random.key(0)))
    assert set(np.unique(dropped)) == {0.0, 1 / 0.75}
    assert (dropped.reshape(4000, -1).std(axis=1) == 0).all()
    assert abs((dropped[:, 0, 0] == 0).mean() - 0.25) < 0.02
    assert drop_path(branch, None, jax.random.key(0)) is branch
    assert drop_path(branch, jnp.asarray(0.25), None) is branch

    config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=16, depth=3, num_heads=2, mlp_dim=32, num_classes=3,
                       drop_path=0.5)  # fmt: skip
    model = jax.tree.map(lambda x: x.astype(jnp.float64), VisionTransformer(config, rngs=nnx.Rngs(0)))
    x, key = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 8, 3))), jax.random.key(1)
    plain, scanned = (
        jax.jit(lambda m, execution=execution: m.features(x, key=key, execution=execution))(model)
        for execution in (BlockExecution(), BlockExecution(scan=True))
    )
    np.testing.assert_allclose(plain, scanned, atol=1e-12)
    assert np.abs(plain - jax.jit(lambda m: m.features(x))(model)).max() > 1e-3
