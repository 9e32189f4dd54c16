"""CATR against the golden figures that the reference itself answered in float64."""

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

GOLDEN = np.load(reference.GOLDEN / "catr.npz")
START, GREEDY_STEPS = 101, 12


@pytest.fixture
def use_positions(monkeypatch):
    """Put the reference's positions for these masks (at the feature map's size) in the place of ours."""

    def use(mask):
        made = jnp.asarray(torch_positions(mask, 256))
        monkeypatch.setattr(caption.model, "sine_positions", lambda mask, width: made)

    return use


@pytest.fixture(scope="module")
def model():
    with jax.enable_x64(True):
        return convert(reference.catr_parameters(), layout="catr")


def close(ours, key):
    error = reference.relative_error(ours, GOLDEN[key])
    print(f"{key}: {error:.1e}")
    assert error < 1e-9, key


def test_positions():
    mask, golden = np.ones((1, 10, 14), bool), GOLDEN["a_pos"]
    theirs, answer = torch_positions(mask, 256), jax.jit(sine_positions, static_argnums=1)
    np.testing.assert_array_equal(theirs[0].transpose(2, 0, 1)[::16, ::3, ::4], golden)
    # A unit in the last place: 4.8e-7 of an angle in float32, 6e-8 of a sine where float64 holds it.
    assert np.abs(answer(mask, 256) - theirs).max() < 5e-7
    with jax.enable_x64(True):
        assert np.abs(answer(mask, 256) - theirs).max() < 6.1e-8


@jax.jit
def everything(model, images, image_mask, tokens, token_mask):
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
    maps, projected, memory, encoder_attention, decoded = everything(model, images, mask, tokens, content)
    assert memory.grid == (10, 14)
    close(maps[0].transpose(2, 0, 1)[::64, ::3, ::4], "a_feat")
    close(projected[0].transpose(2, 0, 1)[::16, ::3, ::4], "a_input_proj")
    close(memory.tokens[0, ::13, ::8], "a_memory")
    close(decoded.logits[0, :12, :64], "a_logits")
    close(decoded.cross_attention[-1, 0].mean(axis=0)[:9], "a_cross_last")
    close(decoded.cross_attention[0, 0].mean(axis=0)[:9], "a_cross_first")
    close(decoded.decoder_attention[-1, 0].mean(axis=0)[:9, :12], "a_dself_last")
    close(encoder_attention[-1, 0].mean(axis=0)[:4], "a_eself_last")
    np.testing.assert_array_equal(decoded.logits[0, :9].argmax(axis=-1), GOLDEN["a_argmax"])

    shared, cache = prepare_decoder(model, memory), empty_cache(model, 1, GREEDY_STEPS)
    step, chosen, log_probs = jax.jit(decode_step), [START], []
    for position in range(GREEDY_STEPS):
        logits, cache = step(model, jnp.asarray(chosen[-1:]), position, cache, shared)
        chosen.append(int(logits[0].argmax()))
        log_probs.append(jax.nn.log_softmax(logits)[0, chosen[-1]])
    np.testing.assert_array_equal(chosen, GOLDEN["a_greedy"])
    close(np.array(log_probs), "a_greedy_logprob")


def test_our_own_positions_move_the_answer_little(model, x64):
    """6e-8 at a few sines."""
    images, mask = reference.images(1, 1, 160, 224), np.ones((1, 160, 224), bool)
    logits = jax.jit(lambda *a: a[0](*a[1:]))(model, images, mask, GOLDEN["tokens"][:1], ~GOLDEN["caption_mask"][:1])
    close(logits[0, :12, :64], "a_logits")


def test_two_padded_images(model, use_positions, x64):
    """As the reference's training sees them: convolutions reach over the padding's edge."""
    images, mask = reference.catr_padded()
    use_positions(~GOLDEN["b_fmask"])

    @jax.jit
    def run(model, images, mask, tokens, content):
        memory = model.encode(images, mask, padding="reference")
        return memory, decode_with_attention(model, memory, tokens, content)

    memory, decoded = run(model, images, mask, GOLDEN["tokens"], ~GOLDEN["caption_mask"])
    np.testing.assert_array_equal(memory.mask.reshape(2, 19, 19), ~GOLDEN["b_fmask"])
    close(memory.tokens[:, ::29, ::8].swapaxes(0, 1), "b_memory")
    close(decoded.logits[:, :14, :64], "b_logits")
    close(decoded.cross_attention[-1].mean(axis=1)[:, :14], "b_cross_last")
    np.testing.assert_array_equal(decoded.logits[:, :14].argmax(axis=-1), GOLDEN["b_argmax"])


def test_float32():
    """Some hundred layers of 24-bit products; the bound leaves room for another order of the sums."""
    model = convert({name: array.astype(np.float32) for name, array in reference.catr_parameters().items()})
    images, mask = reference.images(1, 1, 160, 224).astype(np.float32), np.ones((1, 160, 224), bool)
    tokens = GOLDEN["tokens"][:1].astype(np.int32)
    logits = jax.jit(lambda *a: a[0](*a[1:]))(model, images, mask, tokens, ~GOLDEN["caption_mask"][:1])
    assert logits.dtype == jnp.float32
    error = reference.relative_error(logits[0, :12, :64], GOLDEN["a_logits"])
    print(f"float32: {error:.1e}")
    assert error < 1e-5


def test_there_and_back_is_exact(model):
    arrays = reference.catr_parameters()
    back = export(model, layout="catr")
    assert len(back) == 716
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True)
