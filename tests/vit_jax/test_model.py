"""The vision transformer against the golden figures and against pytorch_pretrained_vit itself; its properties."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tests.reference as reference
from tests.create import create
from tests.optional import pytorch_pretrained_vit, torch
from vit_jax import InputError, VisionTransformer, ViTConfig, forward_with_attention, with_image_size
from weights_convert import convert

pytestmark = pytest.mark.parity

NAMES = ["B_32_imagenet1k", "B_32", "B_16", "B_16_imagenet1k", "L_32", "L_32_imagenet1k", "L_16", "L_16_imagenet1k"]
CONFIG = ViTConfig(
    image_size=(24, 16), patch_size=(8, 4), width=32, depth=3, num_heads=4, mlp_dim=48, num_classes=5,
    dropout=0.2, attention_dropout=0.2,
)  # fmt: skip
run_model = jax.jit(forward_with_attention, static_argnames=("layers", "head_fusion"))


@pytest.fixture(scope="module")
def model():
    initial = create(VisionTransformer, CONFIG)
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), initial)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(2), (3, 24, 16, 3), minval=-1, maxval=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_golden_parity_in_float64(name, x64):
    golden = reference.golden_arrays("lukemelas_vit")
    model = convert(reference.golden_parameters("lukemelas_vit", name), layout="lukemelas", name=name)
    config = model.config
    depth = config.depth
    x = reference.images(5, 1, *config.image_size)
    output = run_model(model, x, layers=(0, depth // 2, depth - 1))
    assert output.logits.dtype == jnp.float64
    first, middle, last = output.attention
    for ours, key in [
        (output.logits[:, :128], "logits"),
        (first[:, :, 0], "attn_first"),
        (middle[:, :, 7], "attn_mid_row7"),
        (last[:, :, 0], "attn_last"),
    ]:
        assert reference.relative_error(ours, golden[f"{name}/{key}"]) < 1e-9, key


@pytest.mark.slow
def test_golden_in_float32():
    # Twelve layers of float32 (24 bits) products of length 768: the error measured is 1e-6 of the largest logit, and
    # the bound leaves room for another order of summation on another machine.
    golden = reference.golden_arrays("lukemelas_vit")
    model = convert(reference.golden_parameters("lukemelas_vit", "B_32"), name="B_32")
    output = run_model(model, reference.images(5, 1, 224, 224).astype(np.float32), layers=(0,))
    assert output.logits.dtype == jnp.float32
    assert reference.relative_error(output.logits[:, :128], golden["B_32/logits"]) < 2e-5
    assert reference.relative_error(output.attention[0][:, :, 0], golden["B_32/attn_first"]) < 2e-5


@pytest.mark.parametrize("image_size", [(32, 32), (32, 48)])
def test_live_parity_layer_by_layer(image_size, x64):
    theirs = reference.tiny_torch(image_size, num_classes=7)
    model = convert(reference.state_arrays(theirs), image_size=image_size, num_heads=3)
    x = reference.images(3, 2, *image_size)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    output = run_model(model, x)
    for layer, block in enumerate(theirs.transformer.blocks):
        assert reference.relative_error(output.attention[layer], block.attn.scores.numpy()) < 1e-12
    assert reference.relative_error(output.logits, logits) < 1e-12
    assert reference.relative_error(jax.jit(lambda m, x: m(x))(model, x), logits) < 1e-12


@pytest.mark.parametrize(("size", "classes"), [pytest.param(48, 7, marks=pytest.mark.slow), (16, 7), (48, 11)])
def test_live_parity_at_another_size_and_class_count(size, classes, x64, tmp_path):
    """The original resizes positions when it loads a file. In both, a new head starts at zero."""
    source = reference.tiny_torch((32, 32))
    path = tmp_path / "tiny.pth"
    torch.save(source.state_dict(), path)
    with reference.tiny_architecture((32, 32)):
        theirs = pytorch_pretrained_vit.ViT("tiny", image_size=(size, size), num_classes=classes).double().eval()
    pytorch_pretrained_vit.load_pretrained_weights(
        theirs, weights_path=path, load_fc=classes == 7, resize_positional_embedding=True, verbose=False
    )
    model = convert(path, image_size=size, num_classes=classes, num_heads=3)
    x = reference.images(4, 2, size, size)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    if classes != 7:
        assert not expected.any()
        assert not np.asarray(model(x)).any()
    else:
        assert reference.relative_error(model(x), expected) < 1e-12


def test_rows_of_attention_sum_to_one(model, images):
    output = run_model(model, images)
    assert output.attention.shape == (3, 3, 4, 13, 13)
    assert output.features.shape == (3, 13, 32)
    np.testing.assert_allclose(output.attention.sum(axis=-1), 1, atol=1e-6)


def in_float64(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64), tree)


def test_a_batch_equals_its_items(model, images, x64):
    model, images = in_float64((model, images))
    together = run_model(model, images)
    for i in range(3):
        alone = run_model(model, images[i : i + 1])
        np.testing.assert_allclose(together.logits[i], alone.logits[0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(together.attention[:, i], alone.attention[:, 0], atol=1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
def test_asking_for_attention_does_not_change_the_logits(model, images, dtype, bound):
    # bfloat16 has 8 bits: 1e-2 is about two roundings of the largest logit.
    model = jax.tree.map(lambda x: x.astype(dtype), model)
    plain = jax.jit(lambda m, x: m(x))(model, images.astype(dtype))
    explicit = run_model(model, images.astype(dtype))
    assert explicit.logits.dtype == dtype
    assert reference.relative_error(explicit.logits, plain) < bound


def test_chosen_layers_and_fused_heads(model, images):
    everything = run_model(model, images).attention
    chosen = run_model(model, images, layers=(-1, 0)).attention
    np.testing.assert_allclose(chosen, everything[jnp.array([2, 0])], atol=1e-6)
    for fusion, reduce in [("mean", jnp.mean), ("max", jnp.max), ("min", jnp.min)]:
        fused = run_model(model, images, head_fusion=fusion).attention
        np.testing.assert_allclose(fused, reduce(everything, axis=2), atol=1e-6)
    assert run_model(model, images, layers=()).attention.shape == (0, 3, 4, 13, 13)
    assert run_model(model, images, layers=(), head_fusion="max").attention.shape == (0, 3, 13, 13)


def test_wrong_requests(model, images):
    with pytest.raises(InputError, match="no layer 3"):
        forward_with_attention(model, images, layers=(3,))
    with pytest.raises(InputError, match="unknown head_fusion 'median'"):
        forward_with_attention(model, images, head_fusion="median")
    with pytest.raises(InputError, match="25x16 is not divisible"):
        model(jnp.zeros((1, 25, 16, 3)))
    with pytest.raises(InputError, match="images have 1 channels"):
        model(jnp.zeros((1, 24, 16, 1)))


def test_another_size_on_the_fly_is_the_resized_model(model):
    x = jax.random.uniform(jax.random.key(3), (2, 48, 20, 3))
    resized = jax.jit(lambda m, x: with_image_size(m, (48, 20))(x))(model, x)
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(model, x), resized, rtol=1e-5, atol=1e-5)


def test_dropout_needs_a_key_and_is_unbiased(model, images, x64):
    model, images = in_float64((model, images))
    forward = jax.jit(lambda m, x: m(x))
    plain = forward(model, images)
    np.testing.assert_array_equal(plain, forward(model, images))
    run = jax.jit(lambda key: model(images, key=key))
    dropped = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    assert float(jnp.abs(dropped - plain[None]).max()) > 1e-2
    assert not np.allclose(dropped[0], dropped[1])
    alone = run(jax.random.split(jax.random.key(0), 4)[0])
    np.testing.assert_allclose(dropped[0], alone, rtol=1e-12, atol=1e-12)


def test_dropout_keeps_the_mean():
    from vit_jax.attention import dropout

    x = jnp.ones((200, 200))
    dropped = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(dropped).round(5)) == {np.float32(0), np.float32(4 / 3).round(5)}
    assert abs(float(dropped.mean()) - 1) < 0.02
    assert dropout(x, 0.0, jax.random.key(0)) is x


def test_modules_are_pytrees_of_parameters(model, images):
    leaves = jax.tree.leaves(model)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    gradient = jax.jit(jax.grad(lambda m: m(images).sum()))(model)
    assert jax.tree.structure(gradient) == jax.tree.structure(model)
    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), model)
    assert jax.jit(jax.vmap(lambda m: m(images)))(stacked).shape == (2, 3, 5)


def test_an_mlp_keeps_its_hidden_layer_once(model):
    """The backward pass recomputes the output of the activation."""
    mlp, x = model.blocks[0].mlp, jnp.ones((2, 50, model.config.width))
    _, pull = jax.vjp(lambda mlp, x: mlp(x), mlp, x)
    hidden = 2 * 50 * model.config.mlp_dim
    assert [leaf.size for leaf in jax.tree.leaves(pull)].count(hidden) == 1


def test_fresh_models_start_with_a_head_of_zeros():
    fresh, other = (VisionTransformer(replace(CONFIG, num_classes=9), rngs=nnx.Rngs(seed)) for seed in (0, 1))
    assert not np.asarray(jax.jit(fresh)(jnp.ones((1, 24, 16, 3)))).any()
    assert not np.allclose(fresh.position_embedding[...], other.position_embedding[...])
