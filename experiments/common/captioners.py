"""Open a captioner from a saved folder, a run's folder, a foreign checkpoint or the name of a release."""

from pathlib import Path

import caption
from caption.tokenizer import VOCABULARY_FILE, Tokenizer, load_tokenizer
from experiments.common.models import model_folder
from vit_jax import InputError
from weights_convert import load_pretrained
from weights_convert.hub.releases import RELEASES
from weights_convert.hub.vocabulary import find_tokenizer
from weights_convert.model_types import CAPTION_MODEL, saved_model_type

BERT_SIZE = caption.CONFIGS["catr"].vocab_size


def open_captioner(
    weights: str, *, vocabulary: str | None = None, cache: str | None = None
) -> tuple[caption.CaptionTransformer, Tokenizer]:
    """Load a caption model and its vocabulary.

    weights:    a saved folder, a run's folder, a foreign checkpoint, hf:owner/name or the name of a release.
    vocabulary: a file. By default the folder's vocab.txt, else BERT's, from the cache or downloaded.

    Raises InputError for anything but a captioner, and for a vocabulary that is not of the model's size.
    """
    path = Path(weights)
    if not path.exists() and weights in RELEASES and RELEASES[weights].architecture not in caption.CONFIGS:
        raise InputError(f"{weights}: an image model; captions need a captioner, such as {_released_names()}")
    folder = model_folder(path) if path.is_dir() else None
    if folder is not None and saved_model_type(folder) not in (None, CAPTION_MODEL):
        raise InputError(f"{folder}: an image model; captions need a captioner, such as {_released_names()}")
    model = load_pretrained(weights if folder is None else folder, cache=cache)
    if not isinstance(model, caption.CaptionTransformer):
        raise InputError(f"{weights}: an image model; captions need a captioner, such as {_released_names()}")
    size = model.config.vocab_size
    if vocabulary is not None:
        return model, load_tokenizer(vocabulary, vocab_size=size)
    if folder is not None and (folder / VOCABULARY_FILE).is_file():
        return model, load_tokenizer(folder, vocab_size=size)
    if size != BERT_SIZE:
        raise InputError(
            f"{weights}: its {size} words are not BERT's, and it has no {VOCABULARY_FILE}; give --vocabulary"
        )
    return model, find_tokenizer(vocab_size=size, cache=cache)


def _released_names() -> str:
    return " or ".join(name for name, release in RELEASES.items() if release.architecture in caption.CONFIGS)
