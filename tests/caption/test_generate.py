"""Cached greedy and beam search against plain Python over uncached passes, on a small random model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caption import CaptionConfig, CaptionTransformer, ResNetConfig, generate
from caption.model import decode
from tests.create import create
from vit_jax import InputError
from vit_jax.checkpoint import to_arrays

V, LENGTH, START, END = 13, 8, 5, 6
CONFIG = CaptionConfig(
    encoder=ResNetConfig(stage_depths=(1, 1), stage_widths=(4, 8), stem_width=4, expansion=2),
    width=16,
    num_heads=2,
    mlp_dim=24,
    encoder_layers=1,
    decoder_layers=2,
    head_width=16,
    vocab_size=V,
    max_positions=LENGTH,
)


@pytest.fixture(scope="module")
def case():
    """Return a model with far from uniform outputs, three padded images, masks, and uncached log-probabilities."""
    with jax.enable_x64(True):
        model = create(CaptionTransformer, CONFIG)
        rng = np.random.default_rng(1)
        arrays = {name: x + 0.6 * rng.standard_normal(x.shape) for name, x in to_arrays(model).items()}
        arrays = {name: abs(x) if name.endswith("norm.var") else x for name, x in arrays.items()}
        model = jax.tree.unflatten(jax.tree.structure(model), list(arrays.values()))
        images = rng.uniform(-1, 1, (3, 40, 48, 3))
        mask = np.zeros((3, 40, 48), bool)
        for i, (h, w) in enumerate([(40, 48), (33, 40), (40, 20)]):
            mask[i, :h, :w] = True
        memory = jax.jit(lambda m, x, k: m.encode(x, k))(model, images, mask)
        decode_all = jax.jit(decode)
        mask_all = jnp.ones((1, LENGTH), bool)

        def log_probs(image, tokens):
            """Return the next token's log-probabilities, by one decoder pass over all tokens."""
            one = jax.tree.map(lambda x: x[image : image + 1], memory)
            text = jnp.zeros((1, LENGTH), jnp.int32).at[0, : len(tokens)].set(jnp.array(tokens, jnp.int32))
            logits = decode_all(model, one, text, mask_all)
            return np.asarray(jax.nn.log_softmax(logits[0, len(tokens) - 1]))

        yield model, images, mask, log_probs


def repeats(tokens, n):
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return n > 0 and len(set(grams)) < len(grams)


def oracle(log_probs, image, beams, penalty, ngram):
    """Run beam search as beam_search.py describes it, without early stopping."""
    active, finished = [([START], 0.0)], []
    while len(active[0][0]) < LENGTH:
        candidates = []
        for tokens, value in active:
            for word, more in enumerate(log_probs(image, tokens)):
                if not repeats([*tokens, word], ngram):
                    candidates.append(([*tokens, word], value + more))
        candidates = sorted(candidates, key=lambda c: -c[1])[: 2 * beams]
        finished += [c for c in candidates[:beams] if c[0][-1] == END]
        active = [c for c in candidates if c[0][-1] != END][:beams]
        if not active:
            break
    finished += active
    ranked = sorted(finished, key=lambda c: -c[1] / (len(c[0]) - 1) ** penalty)
    return ranked[:beams]


@pytest.mark.parametrize(
    ("beams", "penalty", "ngram"), [(1, 0.0, 0), (1, 0.0, 2), (2, 0.0, 0), (3, 1.0, 0), (4, 0.6, 1), (3, 1.5, 3)]
)
def test_beams_against_plain_python(beams, penalty, ngram, case, x64):
    model, images, mask, log_probs = case
    options = dict(num_beams=beams, n_best=beams, length_penalty=penalty, no_repeat_ngram=ngram, start=START, end=END)
    captions = generate(model, images, mask, max_length=LENGTH, **options)
    assert captions.tokens.shape == (3, beams, LENGTH)
    for image in range(3):
        for rank, (tokens, value) in enumerate(oracle(log_probs, image, beams, penalty, ngram)):
            length = int(captions.lengths[image, rank])
            assert captions.tokens[image, rank, :length].tolist() == tokens
            assert not captions.tokens[image, rank, length:].any()
            assert abs(float(captions.log_probs[image, rank]) - value) < 1e-9


def test_greedy_is_the_argmax_of_uncached_passes(case, x64):
    model, images, mask, log_probs = case
    captions = generate(model, images, mask, max_length=LENGTH, start=START, end=END)
    assert captions.tokens.shape == (3, LENGTH)
    for image in range(3):
        tokens, total = [START], 0.0
        while len(tokens) < LENGTH and tokens[-1] != END:
            step = log_probs(image, tokens)
            tokens.append(int(step.argmax()))
            total += step.max()
        assert captions.tokens[image, : len(tokens)].tolist() == tokens
        assert abs(float(captions.log_probs[image]) - total) < 1e-9


def test_a_batch_gives_each_image_the_captions_it_has_alone(case, x64):
    model, images, mask, _ = case
    options = dict(max_length=LENGTH, num_beams=3, length_penalty=1.0, start=START, end=END)
    together = generate(model, images, mask, **options)
    for i in range(3):
        rows, columns = mask[i].any(1).sum(), mask[i].any(0).sum()
        own = np.s_[i : i + 1, :rows, :columns]
        alone = generate(model, images[own], mask[own], **options)
        np.testing.assert_array_equal(together.tokens[i], alone.tokens[0])
        np.testing.assert_allclose(together.log_probs[i], alone.log_probs[0], rtol=1e-9)


def test_within_another_jit(case, x64):
    """The compiler options of the outer jit apply there."""
    model, images, mask, _ = case
    options = dict(max_length=LENGTH, num_beams=2, start=START, end=END)
    alone = generate(model, images, mask, **options)
    within = jax.jit(lambda m, x: generate(m, x, mask, **options))(model, images)
    np.testing.assert_array_equal(within.tokens, alone.tokens)
    np.testing.assert_allclose(within.log_probs, alone.log_probs, rtol=1e-12)


def test_the_loop_stops_when_all_are_done(case, x64):
    """A model that ends immediately takes one step: later positions are not written."""
    model, images, mask, _ = case
    model = jax.tree.map(lambda x: x, model)
    bias = model.head.layers[-1].bias
    bias[...] = jnp.full((V,), -50.0).at[END].set(50.0)
    captions = generate(model, images, mask, max_length=LENGTH, num_beams=2, n_best=2, start=START, end=END)
    assert captions.tokens[:, 0, :3].tolist() == [[START, END, 0]] * 3
    assert captions.lengths[:, 0].tolist() == [2] * 3
    assert np.all(np.asarray(captions.log_probs[:, 0]) > -1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(max_length=9), "max_length is between 2 and the model's 8 positions"),
        (dict(num_beams=7), "num_beams is between 1 and half the vocabulary"),
        (dict(num_beams=2, n_best=3), "n_best is between 1 and num_beams"),
        (dict(length_penalty=-1.0), "at least 0"),
        (dict(end=13), "end token 13 is not among the model's 13"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, case):
    model, images, mask, _ = case
    with pytest.raises(InputError, match=message):
        generate(model, images, mask, **dict(max_length=LENGTH, start=START, end=END) | options)
