"""Properties of the caption transformer over a small ResNet and a small ViT; parameter counts; wrong input."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tests.reference as reference
from caption import (
    CONFIGS,
    CaptionConfig,
    CaptionTransformer,
    ResNetConfig,
    decode_step,
    empty_cache,
    forward_with_attention,
    load,
    load_card,
    prepare_decoder,
    save,
)
from caption._conv import convolve, max_pool
from caption.backbone import ResNet
from caption.checkpoint import abstract_model
from tests.create import create
from tests.jaxprs import WORKAROUNDS, primitives_of
from tests.optional import torch
from vit_jax import InputError, ViTConfig, count_parameters
from vit_jax.execution import PLAIN_EXECUTION

COUNTS = {"catr": 84_392_954, "vit_b16": 119_367_482, "scenes": 353_872, "mini": 9_133_738}
SMALL = CaptionConfig(
    encoder=ResNetConfig(stage_depths=(1, 2, 1, 2), stage_widths=(4, 4, 8, 8), stem_width=4),
    width=16, num_heads=4, mlp_dim=24, encoder_layers=2, decoder_layers=2, head_width=20, vocab_size=31,
    max_positions=12, dropout=0.3,
)  # fmt: skip
VIT = ViTConfig(image_size=(32, 32), patch_size=(8, 8), width=24, depth=2, num_heads=3, mlp_dim=32, num_classes=0)
OVER_VIT = replace(SMALL, encoder=VIT, encoder_layers=0)
forward = jax.jit(forward_with_attention, static_argnames="padding")
compute_logits = jax.jit(lambda m, *inputs, **options: m(*inputs, **options), static_argnames="padding")


@functools.cache
def random_model(config, dtype):
    """Return a model with every parameter away from its initial value."""
    model = create(CaptionTransformer, config)
    random = np.random.RandomState(0)
    return jax.tree.map(lambda x: jnp.abs(jnp.asarray(x + 0.2 * random.standard_normal(x.shape), dtype)) if x.ndim == 1
                        else jnp.asarray(x + 0.05 * random.standard_normal(x.shape), dtype), model)  # fmt: skip


@pytest.fixture(params=["resnet", "vit"])
def model(request, x64):
    return random_model(SMALL if request.param == "resnet" else OVER_VIT, jnp.float64)


@pytest.fixture
def inputs():
    random = np.random.RandomState(3)
    tokens = random.randint(1, 31, (2, 9))
    tokens[1, 6:] = 0
    images = random.uniform(-1, 1, (2, 32, 32, 3))
    return images, np.ones((2, 32, 32), bool), tokens, tokens != 0


def test_no_config_is_left_out():
    assert set(COUNTS) == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_count(name):
    assert count_parameters(abstract_model(CONFIGS[name])) == COUNTS[name]


def test_shapes_and_rows(model, inputs):
    output = forward(model, *inputs)
    rows, columns = output.grid
    cells = rows * columns
    assert (rows, columns) == ((2, 2) if isinstance(model.config.encoder, ResNetConfig) else (4, 4))
    assert output.logits.shape == (2, 9, 31)
    assert output.cross_attention.shape == (2, 2, 4, 9, cells)
    assert output.decoder_attention.shape == (2, 2, 4, 9, 9)
    assert output.encoder_attention.shape == (model.config.encoder_layers, 2, 4, cells, cells)
    for attention in (output.cross_attention, output.decoder_attention, output.encoder_attention):
        np.testing.assert_allclose(attention.sum(axis=-1), 1, rtol=1e-12)
    assert type(rows) is int


def test_asking_for_attention_changes_nothing(model, inputs):
    np.testing.assert_allclose(forward(model, *inputs).logits, compute_logits(model, *inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [SMALL, OVER_VIT], ids=["resnet", "vit"])
def test_the_plain_forward_pass_has_no_workaround(config, inputs):
    model = random_model(config, jnp.float32)
    images, mask, tokens, content = inputs
    inputs = (jnp.asarray(images, jnp.float32), mask, jnp.asarray(tokens, jnp.int32), content)
    plain = functools.partial(model, execution=PLAIN_EXECUTION)
    assert not primitives_of(jax.make_jaxpr(plain)(*inputs).jaxpr) & WORKAROUNDS
    assert "optimization_barrier" in primitives_of(jax.make_jaxpr(model)(*inputs).jaxpr)
    error = reference.relative_error(jax.jit(plain)(*inputs), compute_logits(model, *inputs))
    assert error < 2e-6  # float32, sums in another order


def test_attention_in_float32(inputs):
    """Without weights the fused path runs: the same sums in another order."""
    model, (images, mask, tokens, content) = random_model(SMALL, jnp.float32), inputs
    inputs = (images.astype(np.float32), mask, tokens.astype(np.int32), content)
    error = reference.relative_error(forward(model, *inputs).logits, compute_logits(model, *inputs))
    assert error < 2e-6


def test_a_batch_equals_its_items(model, inputs):
    together = forward(model, *inputs)
    for i in range(2):
        alone = forward(model, *(part[i : i + 1] for part in inputs))
        np.testing.assert_allclose(alone.logits[0], together.logits[i], rtol=0, atol=1e-12)


def test_words_do_not_see_later_words(model, inputs):
    images, mask, tokens, content = inputs
    before = forward(model, *inputs)
    after = compute_logits(model, images, mask, np.where(np.arange(9) < 4, tokens, 5), content)
    np.testing.assert_array_equal(before.logits[:, :4], after[:, :4])
    assert np.abs(before.logits[0, 4:] - after[0, 4:]).max() > 1e-6
    assert np.triu(before.decoder_attention, 1).max() == 0


def test_padded_text_changes_nothing(model, inputs):
    images, mask, tokens, content = inputs
    short = compute_logits(model, images, mask, tokens[:, :6], content[:, :6])
    full = forward(model, *inputs)
    np.testing.assert_allclose(full.logits[:, :6], short, rtol=0, atol=1e-12)
    assert full.decoder_attention[:, 1, :, :, 6:].max() == 0


@pytest.mark.parametrize(
    ("dilated", "sizes"), [(True, [(80, 33), (49, 80), (17, 18), (65, 79)]), (False, [(80, 33), (31, 47)])]
)
def test_mixed_sizes_give_each_image_what_it_gives_alone(dilated, sizes, inputs, x64):
    """The content of the padding has no effect, for odd and even content sizes at every stride."""
    model = random_model(replace(SMALL, encoder=replace(SMALL.encoder, dilated_last_stage=dilated)), jnp.float64)
    tokens, content = inputs[2][:1], inputs[3][:1]
    random = np.random.RandomState(7)
    images, mask = random.uniform(-1, 1, (len(sizes), 80, 80, 3)), np.zeros((len(sizes), 80, 80), bool)
    for i, (height, width) in enumerate(sizes):
        mask[i, :height, :width] = True
    repeated = [np.repeat(part, len(sizes), axis=0) for part in (tokens, content)]
    together = forward(model, images, mask, *repeated)
    gh, gw = together.grid
    for i, (height, width) in enumerate(sizes):
        one = images[i : i + 1, :height, :width]
        alone = forward(model, one, np.ones(one.shape[:3], bool), tokens, content)
        rows, columns = alone.grid
        assert reference.relative_error(together.logits[i], alone.logits[0]) < 1e-9
        seen = together.cross_attention[:, i].reshape(2, 4, 9, gh, gw)
        assert (
            reference.relative_error(
                seen[..., :rows, :columns], alone.cross_attention[:, 0].reshape(2, 4, 9, rows, columns)
            )
            < 1e-9
        )
        np.testing.assert_allclose(seen[..., :rows, :columns].sum(axis=(-1, -2)), 1, rtol=1e-12)
    # The reference differs: its convolutions reach over the edge.
    theirs = compute_logits(model, np.where(mask[..., None], images, 0), mask, *repeated, padding="reference")
    assert np.abs(theirs - together.logits)[0].max() > 1e-6


def test_cached_steps_equal_one_pass(model, inputs):
    images, mask, tokens, _ = inputs
    one_pass = compute_logits(model, images, mask, tokens, np.ones(tokens.shape, bool))
    memory = jax.jit(lambda m, *x: m.encode(*x))(model, images, mask)
    shared, cache, step = prepare_decoder(model, memory), empty_cache(model, 2, 11), jax.jit(decode_step)
    for position in range(9):
        logits, cache = step(model, jnp.asarray(tokens[:, position]), jnp.asarray(position), cache, shared)
        np.testing.assert_allclose(logits, one_pass[:, position], rtol=0, atol=1e-10)


def test_dropout_by_key(model, inputs):
    plain, one, same, other = (
        compute_logits(model, *inputs, key=key)
        for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - plain).max() > 1e-3


def test_the_padding_word_gets_no_gradient(model, inputs):
    gradients = jax.jit(jax.grad(lambda m: jnp.square(m(*inputs)).sum()))(model)
    words = gradients.embedding.words[...]
    assert jnp.abs(words[0]).max() == 0
    assert jnp.abs(words[int(inputs[2][0, 0])]).max() > 0


def test_the_gradient_in_the_weights(model, inputs):
    """The gradient in a perturbation of the weights agrees with finite differences."""
    from caption.model import decode_with_attention

    images, mask, tokens, content = inputs
    memory = jax.jit(lambda m, *x: m.encode(*x))(model, images, mask)
    output = forward(model, *inputs)
    zeros = (jnp.zeros_like(output.decoder_attention), jnp.zeros_like(output.cross_attention))

    @jax.jit
    def logit(perturbations):
        return decode_with_attention(model, memory, tokens, content, perturbations=perturbations).logits[0, 3, 7]

    gradients = jax.grad(logit)(zeros)
    for which, index in [(0, (0, 0, 1, 2, 1)), (1, (1, 0, 2, 3, 0))]:
        up, down = (tuple(z.at[index].set(h) if i == which else z for i, z in enumerate(zeros)) for h in (1e-5, -1e-5))
        assert abs((logit(up) - logit(down)) / 2e-5 - gradients[which][index]) < 1e-7


@pytest.mark.parametrize(("size", "stride", "dilation"), [(7, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 2, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolutions_are_torchs(size, stride, dilation, dtype, x64):
    random = np.random.RandomState(0)
    x, kernel = (
        random.standard_normal((2, 9, 12, 5)).astype(dtype),
        random.standard_normal((size, size, 5, 4)).astype(dtype),
    )
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        stride=stride, padding=dilation * (size // 2), dilation=dilation,
    )  # fmt: skip
    ours = convolve(jnp.asarray(x), jnp.asarray(kernel), stride=stride, dilation=dilation)
    assert reference.relative_error(ours, theirs.numpy().transpose(0, 2, 3, 1)) < (
        1e-14 if dtype == np.float64 else 1e-6
    )
    pooled = torch.nn.functional.max_pool2d(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).relu(), 3, 2, 1)
    np.testing.assert_array_equal(max_pool(jax.nn.relu(jnp.asarray(x))), pooled.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("shape", [(2, 8, 10, 3), (2, 9, 7, 3)])
def test_pooling_gives_its_gradient_to_the_first_of_equal_values_as_in_torch(shape):
    rng = np.random.default_rng(0)
    x = rng.integers(1, 4, shape).astype(np.float32)  # many equals, all above 0
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(theirs, 3, 2, 1)
    cotangent = rng.standard_normal(pooled.shape).astype(np.float32)
    pooled.backward(torch.from_numpy(cotangent))
    ours, vjp = jax.vjp(max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(ours, pooled.detach().numpy().transpose(0, 2, 3, 1))
    (gradient,) = vjp(jnp.asarray(cotangent.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(gradient, theirs.grad.numpy().transpose(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize(("position", "windows"), list(enumerate([1, 2, 1, 2, 4, 2, 1, 2, 1])))
def test_pooling_propagates_nan(position, windows):
    x = jnp.ones((9,)).at[position].set(jnp.nan).reshape(1, 3, 3, 1)
    assert jnp.isnan(max_pool(x)).sum() == windows


def test_dilation_is_torchvisions():
    stage = ResNet(SMALL.encoder, rngs=nnx.Rngs(0)).stages[3]
    assert [(block.conv2.stride, block.conv2.dilation) for block in stage] == [(1, 1), (1, 2)]
    stage = ResNet(replace(SMALL.encoder, dilated_last_stage=False), rngs=nnx.Rngs(0)).stages[3]
    assert [(block.conv2.stride, block.conv2.dilation) for block in stage] == [(2, 1), (1, 1)]


@pytest.mark.parametrize("config", [SMALL, OVER_VIT])
def test_save_and_load_are_exact(config, tmp_path):
    model = create(CaptionTransformer, config)
    save(model, tmp_path / "m", provenance={"source": "here"})
    assert load_card(tmp_path / "m").provenance == {"source": "here"}
    loaded = load(tmp_path / "m")
    assert loaded.config == config
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), model, loaded)
    text = (tmp_path / "m" / "config.json").read_text()
    for change, message in [
        (text.replace('"width": 16', '"wdith": 16'), "unknown fields wdith"),
        (text.replace("caption/1", "vit_jax/1"), "format is 'vit_jax/1', not 'caption/1'"),
        (text.replace('"kind": "', '"kind": "x'), "unknown encoder 'x"),
        (text.replace('"vocab_size": 31', '"vocab_size": 32'), "of another shape: embedding.words"),
    ]:
        (tmp_path / "m" / "config.json").write_text(change)
        with pytest.raises(InputError, match=message):
            load(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(width=18), "not divisible by num_heads"),
        (dict(width=10, num_heads=5), "not divisible by 4"),
        (dict(dropout=1.0), "dropout is in"),
        (dict(decoder_layers=0), "decoder_layers must be at least 1"),
        (dict(encoder_layers=-1), "encoder_layers must be at least 0"),
        (dict(pad_token=31), "not among the 31 tokens"),
        (dict(encoder=replace(VIT, num_classes=3)), "ends at its patches"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)
    with pytest.raises(InputError, match="3 stage_depths for 4 stage_widths"):
        ResNetConfig(stage_depths=(1, 1, 1))


def test_inputs_that_do_not_fit_are_refused(inputs):
    model = create(CaptionTransformer, SMALL)
    images, mask, tokens, content = inputs
    images = images.astype(np.float32)
    long = np.ones((2, 13), int)
    for wrong, message in [
        ((images[..., :2], mask, tokens, content), "2 channels in their last axis, not 3"),
        ((images, mask, long, long > 0), "a text of 13 tokens; the model has 12 positions"),
    ]:
        with pytest.raises(InputError, match=message):
            jax.eval_shape(model, *wrong)
    with pytest.raises(InputError, match="unknown padding 'x'"):
        jax.eval_shape(functools.partial(model, padding="x"), *inputs)
    with pytest.raises(InputError, match="a text of 13 tokens"):
        empty_cache(model, 2, 13)
