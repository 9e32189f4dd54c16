"""Gradient methods against torch's autograd on pytorch_pretrained_vit's stored attention; prefix tokens of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tests.reference as reference
from tests.optional import torch
from vit_jax import (
    InputError,
    VisionTransformer,
    ViTConfig,
    attention_gradcam,
    attention_rollout,
    forward_with_attention,
    grad_rollout,
    readout,
    relevance,
)
from vit_jax.explain.gradients import trace_attention
from weights_convert import convert

pytestmark = pytest.mark.parity

SIZE, CLASSES = (32, 24), 7
TARGETS = np.array([[2, 0, 6], [5, 1, 2]])
METHODS = {
    "relevance": jax.jit(relevance, static_argnames="start_layer"),
    "grad_rollout": jax.jit(grad_rollout, static_argnames=("discard_ratio", "start_layer")),
    "attention_gradcam": jax.jit(attention_gradcam, static_argnames="layer"),
}


@pytest.fixture(scope="module")
def theirs():
    return reference.tiny_torch(SIZE, num_classes=CLASSES)


def torch_layers(theirs, image, target):
    """Return (attention, gradient of the logit in it), [H, N, N] each, of every layer, for one image and class."""
    logits = theirs(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
    scores = [block.attn.scores for block in theirs.transformer.blocks]
    gradients = torch.autograd.grad(logits[0, target], scores)
    return [(a[0].detach(), g[0]) for a, g in zip(scores, gradients, strict=True)]


def relevance_in_torch(layers, start=0):
    """Compute Chefer et al.'s equations 5 and 6 with the full matrix."""
    n = layers[0][0].shape[-1]
    r = torch.eye(n, dtype=torch.float64)
    for scores, gradient in layers[start:]:
        r = r + (gradient * scores).clamp(min=0).mean(dim=0) @ r
    return r[0, 1:].numpy()


def grad_rollout_in_torch(layers, start=0):
    n = layers[0][0].shape[-1]
    r = torch.eye(n, dtype=torch.float64)
    for scores, gradient in layers[start:]:
        fused = (gradient * scores).clamp(min=0).mean(dim=0) + torch.eye(n, dtype=torch.float64)
        r = (fused / fused.sum(dim=1, keepdim=True)) @ r
    return r[0, 1:].numpy()


def gradcam_in_torch(layers, layer=-1):
    scores, gradient = layers[layer]
    weights = gradient[:, 0, 1:].mean(dim=1)
    return (weights[:, None] * scores[:, 0, 1:]).mean(dim=0).clamp(min=0).numpy()


IN_TORCH = {
    "relevance": relevance_in_torch,
    "grad_rollout": grad_rollout_in_torch,
    "attention_gradcam": gradcam_in_torch,
}


@pytest.mark.parametrize("name", METHODS)
def test_against_torch(theirs, name, x64):
    model = convert(reference.state_arrays(theirs), image_size=SIZE, num_heads=3)
    images = reference.images(3, 2, *SIZE)
    maps = METHODS[name](model, images, jnp.asarray(TARGETS))
    assert maps.shape == (2, 3, 12)
    assert float(maps.min()) >= 0
    assert (np.asarray(maps).max(axis=-1) > 0).sum() >= 3  # a map of Grad-CAM can be 0 everywhere
    for i in range(2):
        for k in range(3):
            expected = IN_TORCH[name](torch_layers(theirs, images[i], TARGETS[i, k]))
            np.testing.assert_allclose(maps[i, k], expected, rtol=1e-9, atol=1e-14)
    option = "layer" if name == "attention_gradcam" else "start_layer"
    expected = IN_TORCH[name](torch_layers(theirs, images[0], 0), 1)
    later = METHODS[name](model, images, jnp.array([0, 0]), **{option: 1})
    np.testing.assert_allclose(later[0], expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_one_target_a_batch_and_vmap(theirs, name, x64):
    method = METHODS[name]
    model = convert(reference.state_arrays(theirs), image_size=SIZE, num_heads=3)
    images = reference.images(3, 2, *SIZE)
    batch = method(model, images, jnp.asarray(TARGETS))
    alone = method(model, images[1:], jnp.asarray(TARGETS[1:, 2]))
    assert alone.shape == (1, 12)
    np.testing.assert_allclose(alone[0], batch[1, 2], rtol=1e-9, atol=1e-15)
    mapped = jax.vmap(lambda x, t: method(model, x[None], t[None])[0])(images, jnp.asarray(TARGETS))
    np.testing.assert_allclose(mapped, batch, rtol=1e-9, atol=1e-15)


PREFIXES = {
    "class": dict(),
    "registers": dict(num_registers=3),
    "patches only": dict(class_token=False, pooling="gap"),
    "registers, mean of patches": dict(class_token=False, num_registers=2, pooling="gap"),
    "class, mean of patches": dict(pooling="gap"),
}


FAST = ("registers", "registers, mean of patches")


@pytest.fixture(params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in PREFIXES])
def any_prefix(request):
    """Return a random float64 model with these tokens before its patches, on a rectangular grid."""
    with jax.enable_x64(True):
        config = ViTConfig(
            image_size=(16, 24), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=4,
            **PREFIXES[request.param],
        )  # fmt: skip
        draw = np.random.default_rng(1)
        shapes = jax.eval_shape(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))
        yield jax.tree.map(lambda leaf: jnp.asarray(0.4 * draw.normal(size=leaf.shape)), shapes)


@jax.jit
def weights_and_gradients(model, images, targets):
    """Return the logits, both layers' weights and the gradients of the targets' logits in them."""
    trace = trace_attention(model, images, [0, 1])
    return trace.logits, trace.weights, trace.pull(jax.nn.one_hot(targets[:, 0], 4))


def test_gradients_in_the_weights_are_finite_differences(any_prefix):
    model, x = any_prefix, reference.images(0, 1, 16, 24)
    logits, _, (gradient, _) = weights_and_gradients(model, x, jnp.array([[1]]))
    np.testing.assert_allclose(logits, jax.jit(lambda m, x: m(x))(model, x), rtol=1e-12)
    n = model.config.num_prefix + 6
    assert gradient.shape == (1, 2, n, n)

    @jax.jit
    def logit(step, head, row, column):
        change = jnp.zeros((1, 2, n, n)).at[0, head, row, column].set(step)
        h, _ = model.blocks[0](model.embed(x), perturbation=change)
        return model.classify(model.apply_final_norm(model.blocks[1](h)[0]))[0, 1]

    for head, row, column in [(0, 0, n - 1), (1, n - 1, 0), (1, 2, 3)]:
        slope = (logit(1e-6, head, row, column) - logit(-1e-6, head, row, column)) / 2e-6
        np.testing.assert_allclose(gradient[0, head, row, column], slope, rtol=1e-6, atol=1e-9)


def test_any_prefix_agrees_with_the_matrix_formula_and_the_readout(any_prefix):
    model, x = any_prefix, reference.images(0, 2, 16, 24)
    targets = jnp.array([3, 1])
    _, weights, gradients = weights_and_gradients(model, x, targets[:, None])
    fused = [np.maximum(np.asarray(a * g), 0).mean(axis=1) for a, g in zip(weights, gradients, strict=True)]
    n, prefix = fused[0].shape[-1], model.config.num_prefix
    read = np.asarray(readout(model, n))
    assert read.sum() == pytest.approx(1)
    ours, our_rollout = (METHODS[name](model, x, targets) for name in ("relevance", "grad_rollout"))
    for i in range(2):
        matrix = (np.eye(n) + fused[1][i]) @ (np.eye(n) + fused[0][i])
        np.testing.assert_allclose(ours[i], (read @ matrix)[prefix:], rtol=1e-10)
        steps = [m[i] + np.eye(n) for m in fused]
        steps = [s / s.sum(axis=1, keepdims=True) for s in steps]
        rollout = (read @ steps[1] @ steps[0])[prefix:]
        np.testing.assert_allclose(our_rollout[i], rollout, rtol=1e-10)
    attention = jax.jit(forward_with_attention)(model, x).attention
    row = attention_rollout(attention, query=readout(model, n))
    matrix = attention_rollout(attention)
    np.testing.assert_allclose(row, jnp.einsum("q,bqn->bn", read, matrix), atol=1e-12)
    options = dict(discard_ratio=0.5, class_token=model.config.class_token)
    np.testing.assert_allclose(attention_rollout(attention, **options).sum(axis=-1), 1, atol=1e-12)
    assert METHODS["attention_gradcam"](model, x, targets).shape == (2, 6)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_requests(theirs, name):
    method = METHODS[name].__wrapped__
    model = convert(reference.state_arrays(theirs), image_size=SIZE, num_heads=3)
    x = reference.images(3, 2, *SIZE)
    with pytest.raises(InputError, match="no class 7: the model has 7, counted 0 to 6"):
        method(model, x, np.array([0, 7]))
    with pytest.raises(InputError, match=r"targets must be \[2\] or \[2, K\]"):
        method(model, x, np.array([0]))
    with pytest.raises(InputError, match="no layer 3: the model has 3"):
        method(model, x, np.array([0, 1]), **{"layer" if name == "attention_gradcam" else "start_layer": 3})
    if name == "grad_rollout":
        with pytest.raises(InputError, match="discard_ratio"):
            method(model, x, np.array([0, 1]), discard_ratio=1.5)
