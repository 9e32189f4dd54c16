"""BERT's vocabulary, which the released captioners use: given, in the cache, or fetched into it."""

import os
from pathlib import Path
from typing import Any

from caption.tokenizer import Tokenizer, load_tokenizer
from vit_jax.download import cache_folder
from weights_convert.hub.pretrained import Release, fetch

VOCABULARY = Release(
    "bert-base-uncased",
    "https://huggingface.co/bert-base-uncased/resolve/main/vocab.txt",
    "one WordPiece a line",
    "Apache-2.0",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)


def find_tokenizer(
    path: str | os.PathLike | None = None,
    *,
    vocab_size: int | None = None,
    cache: str | os.PathLike | None = None,
    **options: Any,
) -> Tokenizer:
    """The tokenizer of a vocabulary file, or folder with a vocab.txt; without one BERT's, from the cache or fetched.

    vocab_size: the model's. cache: in place of $VIT_JAX_CACHE or ~/.cache/vit_jax; options: download()'s.
    Raises InputError for a vocabulary that is missing or wrong, and for one that can't be had, saying where to put it
    by hand.
    """
    if path is not None:
        return load_tokenizer(path, vocab_size=vocab_size)
    folder = (cache_folder() if cache is None else Path(cache)) / VOCABULARY.name  # "vocab.txt" alone says little
    return load_tokenizer(fetch(VOCABULARY, cache=folder, **options), vocab_size=vocab_size)
