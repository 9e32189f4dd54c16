"""BERT's vocabulary, which the released captioners use: from a path, the cache or the network."""

import os
from pathlib import Path
from typing import Any

from caption.tokenizer import Tokenizer, load_tokenizer
from vit_jax.download import cache_folder
from weights_convert.hub.releases import Release, fetch_release

VOCABULARY = Release(
    "bert-base-uncased",
    "https://huggingface.co/bert-base-uncased/resolve/main/vocab.txt",
    "one WordPiece per line",
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
    """Return the tokenizer of a vocabulary file, or of a folder with a vocab.txt; without a path, BERT's.

    vocab_size: that of the model. cache: default $VIT_JAX_CACHE, else ~/.cache/vit_jax. options: those of
    download_file(). Raises InputError if the vocabulary is missing, malformed or of another size, and if BERT's cannot
    be downloaded; the message says where to put it.
    """
    if path is not None:
        return load_tokenizer(path, vocab_size=vocab_size)
    folder = (cache_folder() if cache is None else Path(cache)) / VOCABULARY.name  # "vocab.txt" alone is ambiguous
    return load_tokenizer(fetch_release(VOCABULARY, cache=folder, **options), vocab_size=vocab_size)
