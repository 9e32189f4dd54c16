"""Behaviour of captioners: forward pass, attention, decoding, word maps, conversion of CATR."""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from flax import nnx

import caption
import vit_jax
from caption.preprocess import CaptionPreprocess
from caption.tokenizer import Tokenizer
from tests.golden.behaviour_models import attempt, by_name, converted_model, fill_model, images
from tests.golden.behaviour_record import Results

CAPTION = caption.CaptionConfig(
    encoder=caption.ResNetConfig(stage_depths=(1, 2, 1, 2), stage_widths=(4, 4, 8, 8), stem_width=4),
    width=16, num_heads=4, mlp_dim=24, encoder_layers=2, decoder_layers=2, head_width=20, vocab_size=31,
    max_positions=12, dropout=0.3, preprocess=CaptionPreprocess(longest=48),
)  # fmt: skip
OVER_VIT = replace(
    CAPTION, encoder=vit_jax.ViTConfig(
        image_size=(48, 48), patch_size=(16, 16), width=24, depth=2, num_heads=3, mlp_dim=32, num_classes=0,
    ), encoder_layers=0,
)  # fmt: skip
WORDS = "a an red green blue yellow purple orange circle square triangle cross above below left right of the"
TOKENIZER = Tokenizer(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split(), "##s", "cat", "dog", "##gy", "on", "mat", ".", ",", "two")
)
TEXTS = ("A red circle above a blue square.", "two doggy cats on the mat")


@cache
def captioner(config: caption.CaptionConfig, dtype: str) -> Any:
    """Return a rule-filled captioner."""
    model = fill_model(caption.CaptionTransformer(config, rngs=nnx.Rngs(0)), caption)
    return jax.tree.map(lambda x: x.astype(dtype), model)


def caption_inputs(*, vit: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three images with masks, and the tokens of two captions."""
    x, mask = images(8, 3, 48, 48, 3), np.zeros((3, 48, 48), bool)
    for row, (height, width) in enumerate([(48, 48), (36, 48), (48, 20)]):
        mask[row, : 48 if vit else height, : 48 if vit else width] = True
    return np.where(mask[..., None], x, 0), mask, TOKENIZER.encode_batch(TEXTS, 12).tokens


def record_captioner(model: Any, *, vit: bool = False) -> Results:
    """Compute a captioner: teacher-forced pass, gradients, generated captions, word maps."""
    x, mask, tokens = caption_inputs(vit=vit)
    text = (x[:2], mask[:2], tokens, tokens != 0)
    results: Results = {}
    for padding in ("alone", "reference"):
        output = attempt(partial(caption.forward_with_attention, padding=padding), model, *text)
        results |= {f"{padding}/{field}": np.asarray(getattr(output, field)) for field in output._fields}
    results["dropout/logits"] = attempt(lambda m, *a: m(*a, key=jax.random.key(2)), model, *text)

    def loss(model: Any) -> jax.Array:
        logits = model(x[:2], mask[:2], tokens[:, :-1], tokens[:, :-1] != 0)
        return caption.caption_loss(logits, tokens[:, 1:], ignore_token=0, label_smoothing=0.1)

    results["loss"], gradient = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss))(model))
    results |= by_name("gradient", gradient)
    ends: dict[str, Any] = dict(max_length=10, start=TOKENIZER.start, end=TOKENIZER.end)
    searches: dict[str, dict[str, Any]] = {
        "greedy": {},
        "beams": dict(num_beams=3, n_best=3, length_penalty=0.7, no_repeat_ngram=2),
        "beams_reference": dict(num_beams=2, padding="reference"),
    }
    for name, options in searches.items():
        generated = caption.generate(model, x, mask, **ends, **options)
        results |= {f"{name}/{field}": np.asarray(getattr(generated, field)) for field in generated._fields}
    results["greedy/text"] = " | ".join(TOKENIZER.decode(row) for row in np.asarray(results["greedy/tokens"]))
    row = tokens[0][tokens[0] != 0]
    content = caption.content_size(mask[0], output.grid)
    for name, options in {"mean": {}, "head": dict(layer=0, head=1, content=content)}.items():
        words = caption.word_attention(output, row, TOKENIZER, **options)
        results[f"word_attention/{name}"] = np.stack([heat for _, heat in words])
        results["word_attention/words"] = " ".join(word for word, _ in words)
    results["word_relevance"] = caption.word_relevance(model, x[:1], mask[:1], row[None])
    return results


def record_catr() -> Results:
    """Compute the conversion of a small CATR checkpoint, and its captioner."""
    model, results = converted_model("catr")
    return results | record_captioner(model)
