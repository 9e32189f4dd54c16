"""CATR against golden values of the reference in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import caption.model
import tests.reference as reference
from caption import decode_step, empty_cache, encode_with_attention, prepare_decoder
from caption.model import decode_with_attention
from caption.positions import sine_positions
from tests.caption.positions import torch_positions
from weights_convert import convert, export

pytestmark = [pytest.mark.parity, pytest.mark.slow]  # full size

GOLDEN = reference.golden_arrays("catr")
START, GREEDY_STEPS = 101, 12


@pytest.fixture
def use_positions(monkeypatch):
    """Use the reference's own positions for these masks (at the feature map's size)."""

    def use(mask):
        positions = jnp.asarray(torch_positions(mask, 256))
        monkeypatch.setattr(caption.model, "sine_positions", lambda mask, width: positions)

    return use


@pytest.fixture(scope="module")
def model():
    with jax.enable_x64(True):
        return convert(reference.catr_parameters(), layout="catr")


def assert_close(ours, key):
    error = reference.relative_error(ours, GOLDEN[key])
    print(f"{key}: {error:.1e}")
    assert error < 1e-9, key


def test_positions():
    mask, golden = np.ones((1, 10, 14), bool), GOLDEN["a_pos"]
    theirs, ours = torch_positions(mask, 256), jax.jit(sine_positions, static_argnums=1)
    np.testing.assert_array_equal(theirs[0].transpose(2, 0, 1)[::16, ::3, ::4], golden)
    # A unit in the last place: 4.8e-7 of an angle in float32, 6e-8 of a sine where float64 holds it.
    assert np.abs(ours(mask, 256) - theirs).max() < 5e-7
    with jax.enable_x64(True):
        assert np.abs(ours(mask, 256) - theirs).max() < 6.1e-8


@jax.jit
def run_all_stages(model, images, image_mask, tokens, token_mask):
    maps, _ = model.features(images, image_mask)
    memory, encoder_attention = encode_with_attention(model, images, image_mask)
    return (
        maps,
        model.project(maps),
        memory,
        encoder_attention,
        decode_with_attention(model, memory, tokens, token_mask),
    )


def test_one_image(model, use_positions, x64):
    images = reference.images(1, 1, 160, 224)
    use_positions(np.ones((1, 10, 14), bool))
    mask = np.ones((1, 160, 224), bool)
    tokens, content = GOLDEN["tokens"][:1], ~GOLDEN["caption_mask"][:1]
    maps, projected, memory, encoder_attention, decoded = run_all_stages(model, images, mask, tokens, content)
    assert memory.grid == (10, 14)
    assert_close(maps[0].transpose(2, 0, 1)[::64, ::3, ::4], "a_feat")
    assert_close(projected[0].transpose(2, 0, 1)[::16, ::3, ::4], "a_input_proj")
    assert_close(memory.tokens[0, ::13, ::8], "a_memory")
    assert_close(decoded.logits[0, :12, :64], "a_logits")
    assert_close(decoded.cross_attention[-1, 0].mean(axis=0)[:9], "a_cross_last")
    assert_close(decoded.cross_attention[0, 0].mean(axis=0)[:9], "a_cross_first")
    assert_close(decoded.decoder_attention[-1, 0].mean(axis=0)[:9, :12], "a_dself_last")
    assert_close(encoder_attention[-1, 0].mean(axis=0)[:4], "a_eself_last")
    np.testing.assert_array_equal(decoded.logits[0, :9].argmax(axis=-1), GOLDEN["a_argmax"])

    shared, cache = prepare_decoder(model, memory), empty_cache(model, 1, GREEDY_STEPS)
    step, greedy, log_probs = jax.jit(decode_step), [START], []
    for position in range(GREEDY_STEPS):
        logits, cache = step(model, jnp.asarray(greedy[-1:]), position, cache, shared)
        greedy.append(int(logits[0].argmax()))
        log_probs.append(jax.nn.log_softmax(logits)[0, greedy[-1]])
    np.testing.assert_array_equal(greedy, GOLDEN["a_greedy"])
    assert_close(np.array(log_probs), "a_greedy_logprob")


def test_our_own_positions_change_the_logits_little(model, x64):
    """They differ by 6e-8 in a few sines."""
    images, mask = reference.images(1, 1, 160, 224), np.ones((1, 160, 224), bool)
    logits = jax.jit(lambda *a: a[0](*a[1:]))(model, images, mask, GOLDEN["tokens"][:1], ~GOLDEN["caption_mask"][:1])
    assert_close(logits[0, :12, :64], "a_logits")


def test_two_padded_images(model, use_positions, x64):
    """As in the reference's training, where convolutions reach over the padding's edge."""
    images, mask = reference.catr_padded()
    use_positions(~GOLDEN["b_fmask"])

    @jax.jit
    def run(model, images, mask, tokens, content):
        memory = model.encode(images, mask, padding="reference")
        return memory, decode_with_attention(model, memory, tokens, content)

    memory, decoded = run(model, images, mask, GOLDEN["tokens"], ~GOLDEN["caption_mask"])
    np.testing.assert_array_equal(memory.mask.reshape(2, 19, 19), ~GOLDEN["b_fmask"])
    assert_close(memory.tokens[:, ::29, ::8].swapaxes(0, 1), "b_memory")
    assert_close(decoded.logits[:, :14, :64], "b_logits")
    assert_close(decoded.cross_attention[-1].mean(axis=1)[:, :14], "b_cross_last")
    np.testing.assert_array_equal(decoded.logits[:, :14].argmax(axis=-1), GOLDEN["b_argmax"])


def test_float32():
    """The bound allows for another order of sums in some hundred layers of float32 products."""
    model = convert({name: array.astype(np.float32) for name, array in reference.catr_parameters().items()})
    images, mask = reference.images(1, 1, 160, 224).astype(np.float32), np.ones((1, 160, 224), bool)
    tokens = GOLDEN["tokens"][:1].astype(np.int32)
    logits = jax.jit(lambda *a: a[0](*a[1:]))(model, images, mask, tokens, ~GOLDEN["caption_mask"][:1])
    assert logits.dtype == jnp.float32
    error = reference.relative_error(logits[0, :12, :64], GOLDEN["a_logits"])
    print(f"float32: {error:.1e}")
    assert error < 1e-5


def test_conversion_and_export_are_exact(model):
    arrays = reference.catr_parameters()
    exported = export(model, layout="catr")
    assert len(exported) == 716
    assert set(exported) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(exported[name], array, strict=True)
