"""Word maps: alignment, WordPieces, padding; relevance against the paper's rule in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caption import CaptionOutput, forward_with_attention, word_attention, word_relevance
from caption.attention import content_size
from caption.model import decode_with_attention, encode_with_attention
from tests.caption.test_generate import case  # noqa: F401
from vit_jax import InputError


class Pieces:
    """A tokenizer of numbers: 5 starts, 6 ends, 0 pads, and 9 continues the word before it."""

    def words(self, tokens):
        words = []
        for position, token in enumerate(int(t) for t in tokens):
            if token in (0, 5):
                continue
            if token == 9:
                words[-1] = (words[-1][0] + "9", [*words[-1][1], position])
            else:
                words.append((str(token), [position]))
            if token == 6:
                break
        return words


@pytest.fixture
def output():
    cross = np.random.default_rng(0).uniform(size=(2, 3, 4, 6, 20))
    cross /= cross.sum(-1, keepdims=True)
    zeros = np.zeros((2, 3, 4, 6, 6))
    return CaptionOutput(np.zeros((3, 6, 13)), cross, zeros, zeros[:0], (4, 5))


def test_words_have_the_attention_of_the_query_before(output):
    tokens = [5, 3, 9, 4, 6, 0]
    maps = word_attention(output, tokens, Pieces(), item=1)
    assert [word for word, _ in maps] == ["39", "4", "6"]
    mean = output.cross_attention[-1, 1].mean(axis=0).reshape(6, 4, 5)
    np.testing.assert_allclose(maps[0][1], (mean[0] + mean[1]) / 2)
    np.testing.assert_allclose(maps[1][1], mean[2])
    np.testing.assert_allclose(maps[2][1], mean[3])
    one = word_attention(output, np.array(tokens), Pieces(), item=1, layer=0, head=2, content=(3, 2))
    np.testing.assert_allclose(one[1][1], output.cross_attention[0, 1, 2, 2].reshape(4, 5)[:3, :2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(layer=2), "no layer 2: there are 2"),
        (dict(head=-5), "no head -5: there are 4"),
        (dict(item=3), "no item 3"),
        (dict(content=(5, 5)), "content of 5x5 is no part of the grid, 4x5"),
    ],
)
def test_unknown_layers_heads_items_and_contents_are_refused(options, message, output):
    with pytest.raises(InputError, match=message):
        word_attention(output, [5, 3, 6], Pieces(), **options)
    with pytest.raises(InputError, match="8 tokens, but the output is for 6"):
        word_attention(output, [5, 3, 3, 3, 3, 3, 3, 6], Pieces())


def test_content_size_of_a_padded_image():
    mask = np.zeros((299, 299), bool)
    mask[:224, :299] = True
    assert content_size(mask, (19, 19)) == (14, 19)
    assert content_size(np.ones((40, 48), bool), (3, 3)) == (3, 3)


def test_relevance_is_the_rule_of_the_paper(case, x64):  # noqa: F811
    """Compute the first and the last word in numpy, with jax.grad of its own logit over the tokens up to it."""
    model, images, mask, _ = case
    image, content = images[1:2], mask[1:2]
    tokens = jnp.array([[5, 3, 7, 2, 6]], jnp.int32)
    relevance = np.asarray(jax.jit(word_relevance)(model, image, content, tokens))
    output = jax.jit(forward_with_attention)(model, image, content, tokens, jnp.ones_like(tokens, bool))
    assert relevance.shape == (4, output.cross_attention.shape[-1])
    shapes = [a.shape for a in (output.encoder_attention, output.decoder_attention, output.cross_attention)]

    def logit(perturbations, query):
        """Return the logit of the token after `query`, from a pass over the tokens up to it."""
        e, d, c = perturbations
        memory, _ = encode_with_attention(model, image, content, perturbations=e)
        text = tokens[:, : query + 1]
        cut = (d[..., : query + 1, : query + 1], c[..., : query + 1, :])
        output = decode_with_attention(model, memory, text, jnp.ones_like(text, bool), perturbations=cut)
        return output.logits[0, query, tokens[0, query + 1]]

    gradient = jax.jit(jax.grad(logit), static_argnums=1)
    for query in (0, 3):
        parts = gradient(tuple(jnp.zeros(shape) for shape in shapes), query)
        weights = (output.encoder_attention, output.decoder_attention, output.cross_attention)
        e, d, c = (np.maximum(np.asarray(w * g)[:, 0], 0).mean(axis=1) for w, g in zip(weights, parts, strict=True))
        r_ss = np.eye(e.shape[-1])
        for a in e:
            r_ss = r_ss + a @ r_ss
        r_tt, r_ts = np.eye(d.shape[-1]), np.zeros(c.shape[1:])
        for a, b in zip(d, c, strict=True):
            r_tt, r_ts = r_tt + a @ r_tt, r_ts + a @ r_ts
            left, right = (
                (r - np.eye(len(r))) / np.maximum((r - np.eye(len(r))).sum(-1, keepdims=True), 1e-300) + np.eye(len(r))
                for r in (r_tt, r_ss)
            )
            r_ts = r_ts + left.T @ b @ right
        np.testing.assert_allclose(relevance[query], r_ts[query], rtol=1e-7, atol=1e-12)
    assert relevance.min() >= 0
    assert relevance.max() > 0
    memory = jax.jit(lambda m, *x: m.encode(*x))(model, image, content)
    assert not relevance[:, ~np.asarray(memory.mask)[0]].any()
